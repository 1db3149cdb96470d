"""Small real projects, written to a folder: one that works, and ways to break it.

All share one lock file, so that on a cluster only the first of them installs packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.install import ROOT

LOCK = ROOT / "examples" / "iris-legacy" / "requirements.txt"

TRAIN = '''\
"""Train on 150 flowers; write the model and how good it is."""

import json

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500, C={strength}).fit(rows, species)
joblib.dump(model, "model.joblib")
json.dump({{"accuracy": model.score(rows, species)}}, open("metrics.json", "w"))
print("trained on", len(rows), "flowers")
'''

SAMPLE = """\
sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)
5.1,3.5,1.4,0.2
6.7,3.1,4.7,1.5
6.3,3.3,6.0,2.5
"""

FLOWER = {
    "sepal length (cm)": 5.1,
    "sepal width (cm)": 3.5,
    "petal length (cm)": 1.4,
    "petal width (cm)": 0.2,
}


def write_project(
    folder: Path, files: Mapping[str, str | bytes | None] | None = None, *, strength: float = 1.0
) -> Path:
    """Write the project that works, with some files replaced, added or (None) left out."""
    everything: dict[str, str | bytes | None] = {
        "train.py": TRAIN.format(strength=strength),
        "requirements.txt": LOCK.read_bytes(),
        "data/sample.csv": SAMPLE,
        **(files or {}),
    }
    for name, content in everything.items():
        if content is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def spec(url: str, ref: str = "main", *, train: bool = True) -> dict[str, object]:
    """Return the spec of a ModelDeployment of such a project."""
    model: dict[str, object] = {"path": "model.joblib", "example": "data/sample.csv"}
    if train:
        model["train"] = {"command": ["python", "train.py"], "metrics": "metrics.json", "timeout": "5m"}
    return {
        "source": {"git": {"url": url, "ref": ref}},
        "environment": {"isolation": "Project", "lockFile": "requirements.txt"},
        "model": model,
    }


def model_deployment(name: str, namespace: str, spec_: Mapping[str, object]) -> dict[str, object]:
    """Return a ModelDeployment."""
    return {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": dict(spec_),
    }
