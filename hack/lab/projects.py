"""Small real projects, written to a folder: one that works, and ways to break it.

All share one lock file, so that on a cluster only the first of them installs packages.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.install import ROOT

LOCK = ROOT / "examples" / "iris-legacy" / "requirements.txt"
LOCKED = Path(__file__).parent / "locked"
"""A project that needs NumPy only; ``uv lock`` and ``uv export --format pylock.toml`` wrote its lock files."""

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


def linear_model(features: int = 4) -> bytes:
    """Return an ONNX model of three scores for some numbers, as a project commits it that trains elsewhere."""
    return _onnx(features)


def narrow_model(longest: int) -> bytes:
    """Return an ONNX model like `linear_model` that fails on a flower whose sepals are longer than that, in cm."""
    return _onnx(4, most=longest)


def _onnx(features: int, most: int = 0) -> bytes:
    import numpy as np  # noqa: PLC0415 - the demo needs neither, and is quicker without
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weights = np.linspace(-1, 1, features * 3, dtype=np.float32).reshape(features, 3)
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["sums" if most else "scores"])]
    constants: dict[str, np.ndarray[Any, Any]] = {"weights": weights}
    if most:
        # As many ones as the longest sepals have cm, of which there are too few: then they have not that shape.
        nodes += [
            helper.make_node("Gather", ["input", "first"], ["lengths"], axis=1),
            helper.make_node("Cast", ["lengths"], ["whole"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["whole"], ["length"], axes=[0], keepdims=1),
            helper.make_node("Slice", ["ones", "zero", "length"], ["taken"]),
            helper.make_node("Reshape", ["taken", "length"], ["row"]),
            helper.make_node("ReduceMax", ["row"], ["one"], keepdims=0),
            helper.make_node("Mul", ["sums", "one"], ["scores"]),
        ]
        constants |= {"first": np.array(0), "zero": np.array([0]), "ones": np.ones(most, np.float32)}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def write_trained_project(folder: Path, files: Mapping[str, str | bytes | None] | None = None) -> Path:
    """Write a project whose model is committed: nothing is trained, so that it is live within seconds."""
    return write_project(folder, {"train.py": None, "model.onnx": linear_model(), **(files or {})})


def locked_by(*names: str) -> dict[str, str | bytes | None]:
    """Return files of the project that needs NumPy only, for one that would else have a requirements.txt."""
    return {"requirements.txt": None, **{name: (LOCKED / name).read_bytes() for name in names}}


def trained_spec(source: Mapping[str, object], lock_file: str = "requirements.txt") -> dict[str, object]:
    """Return the spec of a ModelDeployment of such a project, from any kind of source."""
    return {
        "source": dict(source),
        "environment": {"isolation": "Project", "lockFile": lock_file},
        "model": {"path": "model.onnx", "example": "data/sample.csv"},
    }


_FAST_C = """\
#include <Python.h>

static PyObject *twice(PyObject *self, PyObject *number) {
    return PyFloat_FromDouble(2 * PyFloat_AsDouble(number));
}

static PyMethodDef methods[] = {{"twice", twice, METH_O, "Return twice a number."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "slipway_fast", NULL, -1, methods};

PyMODINIT_FUNC PyInit_slipway_fast(void) { return PyModule_Create(&module); }
"""
_FAST = {
    "fast.c": _FAST_C,
    "pyproject.toml": '[build-system]\nrequires = ["setuptools>=70"]\nbuild-backend = "setuptools.build_meta"\n',
    "setup.py": "from setuptools import Extension, setup\n"
    'setup(name="slipway-fast", version="1.0", ext_modules=[Extension("slipway_fast", ["fast.c"])])\n',
}


def source_archive() -> bytes:
    """Return a package that exists only as source and is written in C: ``slipway_fast.twice(number)``."""
    return packed("slipway_fast-1.0", _FAST)


def packed(folder: str, files: Mapping[str, str]) -> bytes:
    """Return files in a folder as a ``.tar.gz``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def model_deployment(name: str, namespace: str, spec_: Mapping[str, object]) -> dict[str, object]:
    """Return a ModelDeployment."""
    return {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": dict(spec_),
    }
