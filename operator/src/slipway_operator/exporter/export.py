"""``export``: has a worker load, convert and compare the model, and says how that ended.

The worker is a process of its own because a pickle is code: it may crash, hang
or end the interpreter, and each of these must become a sentence. This half uses
the standard library alone and imports nothing of the project.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from . import files
from .failure import ENVIRONMENT, Failure, of_system, report
from .request import ExportRequest, Places, export_request
from .supervise import Journal, Outcome, Run, supervise

RESULTS = ("model.onnx", "signature.json", "examples.json", "reference.json", "certificate.json")
LOADING = "loading the model"
WRITTEN = "written"
_LEAST_SECONDS = 60.0
"""What a model is given to answer its example by itself, however long its conversion took."""


NATIVE = "SLIPWAY_EXPORT_NATIVE"
"""Tells a worker that the model is to answer by itself, and as JSON why."""
NATIVE_REASONS = ("ConversionFailed", "ConversionUnsupported", "ModelTypeUnsupported", "ParityFailed")
"""Failures of a conversion that say nothing against the model itself."""


def served_name(model_path: str) -> str:
    """Give the name of a model that answers by itself, with the suffix that says how to load it."""
    suffix = Path(model_path).suffix.lower()
    return "model" + (suffix if re.fullmatch(r"\.[a-z0-9]{1,16}", suffix) else ".pkl")


def model_source(request: ExportRequest, places: Places) -> Path:
    """Give the path of the model: what training left, or the file in the project."""
    if request.trained:
        return places.work / "trained" / Path(request.model_path).name
    return files.resolve_inside(places.project, request.model_path)


def _fetch_model(request: ExportRequest, places: Places, area: Path) -> Path:
    target = area / Path(request.model_path).name
    try:
        files.take(model_source(request, places), target, named=request.model_path)
    except FileNotFoundError:
        message = (
            f"{request.model_path} is not in the project. Commit it, correct spec.model.path, "
            "or let spec.model.train make it."
        )
        raise Failure("ModelFileMissing", message) from None
    return target


def judge(request: ExportRequest, outcome: Outcome, area: Path, journal: Journal) -> None:
    """Raise the `Failure` of a worker that did not leave its results."""
    said = area / "failure.json"
    if said.is_file() and not outcome.interrupted:
        raw: dict[str, Any] = json.loads(said.read_text(encoding="utf-8"))
        raise Failure(str(raw["reason"]), str(raw["message"]))
    stage = _stage(area)
    if outcome.returncode == 0 and stage == WRITTEN:
        return
    if outcome.interrupted:
        raise Failure("Interrupted", "The export was stopped, as its pod was told to end.", retry=True)
    loading = stage == LOADING
    if outcome.timed_out:
        reason = "ModelLoadFailed" if loading else "ExportTimedOut"
        message = f"The export was still {stage} after {request.timeout_seconds:g} s. Raise spec.export.timeout"
        ending = ", or look for code that waits while the model is loaded." if loading else "."
        raise Failure(reason, message + ending)
    if outcome.returncode == -signal.SIGKILL:
        message = f"The export was killed (SIGKILL) while {stage}, as the kernel does where memory runs out."
        raise Failure("OutOfMemory", message + " Raise the memory limit of Jobs or make the model smaller.")
    tail = journal.last_lines(6)
    how = _how(outcome.returncode)
    reason = "ModelLoadFailed" if loading else "ConversionFailed"
    raise Failure(reason, f"The process {how} while {stage}. Last lines: {tail or '(none)'}")


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"ended itself (exit status {returncode})"
    try:
        return f"crashed ({signal.Signals(-returncode).name})"
    except ValueError:
        return f"crashed (signal {-returncode})"


def _stage(area: Path) -> str:
    try:
        return (area / "stage").read_text(encoding="utf-8").strip()
    except OSError:
        return "starting"


def run_export(request: ExportRequest, places: Places) -> None:
    """Export, and leave five files in ``/workspace/model``: ``model.onnx`` or the model itself, and what describes it.

    Raises:
        Failure: With the reasons that ``docs/reasons.md`` lists.
    """
    area = places.work / "export"
    began = time.monotonic()
    served = "model.onnx"
    try:
        _refuse_as_onnx(request)
        model = _work(request, places, area, seconds=request.timeout_seconds)
    except Failure as failure:
        is_onnx = Path(request.model_path).suffix.lower() == ".onnx"
        if not request.native or is_onnx or failure.reason not in NATIVE_REASONS:
            raise
        print(f"export: not as ONNX: {failure.message}", flush=True)  # noqa: T201 - the container's log
        left = request.timeout_seconds - (time.monotonic() - began)
        why = json.dumps({"reason": failure.reason, "message": failure.message})
        # Another process: what a conversion left behind, or broke, is none of the model's.
        model = _work(request, places, area, seconds=max(left, _LEAST_SECONDS), more={NATIVE: why})
        served = served_name(request.model_path)
    target = places.work / "model"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if served != "model.onnx":
        model.replace(target / served)
    for name in RESULTS:
        if name != "model.onnx" or served == name:
            (area / name).replace(target / name)


def _refuse_as_onnx(request: ExportRequest) -> None:
    if request.function is None:
        return
    if Path(request.model_path).suffix.lower() == ".onnx":
        message = f"{request.model_path} is ONNX and answers by itself. Leave spec.export.function out."
        raise Failure("ModelTypeUnsupported", message)
    raise Failure("ConversionUnsupported", f"{request.function} answers, a function of the project")


def _work(
    request: ExportRequest, places: Places, area: Path, *, seconds: float, more: dict[str, str] | None = None
) -> Path:
    """Have a worker do it in a fresh area; gives the copy of the model that it worked on."""
    shutil.rmtree(area, ignore_errors=True)
    area.mkdir(parents=True)
    model = _fetch_model(request, places, area)
    env = {key: value for key, value in os.environ.items() if key != ENVIRONMENT}
    env.update({
        "SLIPWAY_MODEL_FILE": str(model),
        "SLIPWAY_EXPORT_AREA": str(area),
        "PYTHONUNBUFFERED": "1",
        # One thread, so that sums have one order and two exports give the same bytes.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LOKY_MAX_CPU_COUNT": "1",
        "PYTHONHASHSEED": "0",
        **(more or {}),
    })  # fmt: skip
    if not os.access(env.get("HOME", "/nonexistent"), os.W_OK):
        env["HOME"] = "/tmp"  # noqa: S108 - the pod's own emptyDir
    command = (sys.executable, str(Path(__file__).resolve().parent), "worker")
    cwd = places.project if places.project.is_dir() else area
    journal = Journal()
    outcome = supervise(Run(command, cwd, env, seconds), journal)
    judge(request, outcome, area, journal)
    return model


def main() -> int:
    """Do the export that ``SLIPWAY_REQUEST`` asks for."""
    try:
        run_export(export_request(), Places.from_environment())
    except Failure as failure:
        report(failure)
        return 1
    except OSError as error:
        report(of_system(error))
        return 1
    return 0
