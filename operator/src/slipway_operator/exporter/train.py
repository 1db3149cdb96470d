"""``train``: the supervisor of a project's training command.

Runs the command, keeps its output in ``/workspace/train.log``, and leaves the model,
the metrics and ``/workspace/train.json`` for the container that pushes them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

from . import files
from .failure import ENVIRONMENT, Failure, of_system, report
from .request import VARIABLE, Places, TrainRequest, train_request
from .supervise import Journal, Outcome, Run, supervise

METRICS_LIMIT = 64 << 10
"""Bytes of a metrics file."""


def _writable_project(places: Places) -> Path:
    """Give a directory with the project's files in which training can write."""
    if os.access(places.project, os.W_OK):
        return places.project
    copy = places.work / "project"
    shutil.copytree(places.project, copy, symlinks=True, dirs_exist_ok=True)
    return copy


def usable_processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the processors that this container may use: its affinity, and its CPU limit rounded up."""
    count = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):
        return count  # "max" is no number: there is no limit


def _environment(root: Path) -> dict[str, str]:
    """Give the child's environment: ours without our own variables, and output that is not held back."""
    env = {key: value for key, value in os.environ.items() if key not in {VARIABLE, ENVIRONMENT}}
    env.setdefault("PYTHONUNBUFFERED", "1")
    # joblib looks for the count of cores with programs that an image without a shell has not.
    env.setdefault("LOKY_MAX_CPU_COUNT", str(usable_processors()))
    if usable_processors() < (os.cpu_count() or 1):
        # OpenMP sees the node's cores, and on a quota of fewer its threads wait for each other.
        env.setdefault("OMP_NUM_THREADS", str(usable_processors()))
    # OpenMP's threads spin while they wait; on a node that others use too, that took seven times the CPU.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env["PYTHONPATH"] = f"{root / 'src'}{os.pathsep}{root}"
    if not os.access(env.get("HOME", "/nonexistent"), os.W_OK):
        env["HOME"] = "/tmp"  # noqa: S108 - the pod's own emptyDir; libraries write caches below HOME
    return env


def judge(request: TrainRequest, outcome: Outcome, journal: Journal) -> None:
    """Raise the `Failure` of a command that did not end well."""
    command = " ".join(request.command)
    last = journal.last_lines()
    tail = f" Last lines: {last}" if last else " It printed nothing."
    if outcome.interrupted:
        raise Failure("Interrupted", f"{command} was stopped, as its pod was told to end.", retry=True)
    if outcome.timed_out:
        message = (
            f"{command} did not end within {request.timeout_seconds:g} s. "
            f"Raise spec.model.train.timeout or train on less.{tail}"
        )
        raise Failure("TrainingTimedOut", message)
    if outcome.returncode == -signal.SIGKILL:
        message = (
            f"{command} was killed (SIGKILL), as the kernel does where memory runs out. "
            f"Raise spec.model.train.resources.limits.memory or use less.{tail}"
        )
        raise Failure("TrainingOutOfMemory", message)
    if outcome.returncode < 0:
        name = signal.Signals(-outcome.returncode).name
        raise Failure("TrainingFailed", f"{command} was ended by {name}.{tail}")
    if outcome.returncode:
        memory = last.splitlines()[-1:] and last.splitlines()[-1].startswith(
            ("MemoryError", "numpy._core._exceptions._ArrayMemoryError")
        )
        reason = "TrainingOutOfMemory" if memory else "TrainingFailed"
        raise Failure(reason, f"{command} exited with {outcome.returncode}.{tail}")


def read_metrics(path: Path, named: str) -> dict[str, float]:
    """Read a metrics file: one JSON object of finite numbers.

    Raises:
        Failure: ``MetricsMissing``, ``MetricsInvalid``, ``ModelFileUnsafe``.
    """
    try:
        if path.stat().st_size > METRICS_LIMIT:
            raise Failure("MetricsInvalid", f"{named} has more than {METRICS_LIMIT} bytes. Write numbers only.")
        # parse_constant: JSON knows neither NaN nor Infinity; Python's reader would let them in.
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        message = f"Training ended well but wrote no {named}. Write it, or remove spec.model.train.metrics."
        raise Failure("MetricsMissing", message) from None
    except (ValueError, RecursionError) as error:
        raise Failure("MetricsInvalid", f"{named} is not JSON of finite numbers: {error}.") from error
    except OSError as error:
        raise Failure("MetricsInvalid", f"{named} cannot be read: {error.strerror}.") from error
    if not isinstance(value, dict):
        raise Failure("MetricsInvalid", f'{named} is not a JSON object such as {{"roc_auc": 0.71}}.')
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise Failure("MetricsInvalid", f"{named}: {name!r} is not a finite number but {number!r:.80}.")
    return {name: float(number) for name, number in value.items()}


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number that JSON knows")


def _collect_model(request: TrainRequest, root: Path, *, before: object, began: float) -> Path:
    source = files.resolve_inside(root, request.model_path)
    if files.mark(source) is None or files.mark(source) == before:
        written = files.models_written_since(root, began)
        stale = " (the one that is there was not written by this training)" if before is not None else ""
        seen = f" It wrote {', '.join(written)}: set spec.model.path to that." if written else ""
        message = (
            f"Training ended well but wrote no {request.model_path}{stale}.{seen or ' Save the model to that path.'}"
        )
        raise Failure("ModelFileMissing", message)
    return source


def run_training(request: TrainRequest, places: Places) -> None:
    """Train, and leave model, metrics and facts in ``/workspace``.

    Raises:
        Failure: With the reasons that ``docs/reasons.md`` lists.
    """
    root = _writable_project(places)
    before = files.mark(files.resolve_inside(root, request.model_path))
    journal = Journal()
    began = time.time()
    try:
        outcome = supervise(Run(request.command, root, _environment(root), request.timeout_seconds), journal)
    finally:
        journal.write(places.work / "train.log")
    judge(request, outcome, journal)
    # A file system may keep coarser times than the clock.
    source = _collect_model(request, root, before=before, began=began - 2)
    name = Path(request.model_path).name
    trained = places.work / "trained"
    metrics: dict[str, float] = {}
    if request.metrics_path is not None:
        metrics = read_metrics(files.resolve_inside(root, request.metrics_path), request.metrics_path)
    files.take(source, trained / name, named=request.model_path)
    if request.metrics_path is not None:
        _write_json(trained / "metrics.json", metrics)
    facts = {"seconds": round(outcome.seconds, 3), "exitCode": outcome.returncode, "model": name}
    _write_json(places.work / "train.json", facts)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> int:
    """Supervise the training that ``SLIPWAY_REQUEST`` asks for."""
    try:
        run_training(train_request(), Places.from_environment())
    except Failure as failure:
        report(failure)
        return 1
    except OSError as error:
        report(of_system(error))
        return 1
    return 0
