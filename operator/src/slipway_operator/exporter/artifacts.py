"""Writing what the export leaves: signature, examples, certificate, and the model itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import platform
from pathlib import Path
from typing import Any

from .answers import Asked, Original, Output
from .columns import MISSING
from .inside import last_step
from .rows import Input, Rows

EXAMPLES = 20
TOLERANCE = 1e-5

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""Open Inference datatypes by NumPy's names."""


def sha256(content: bytes) -> str:
    """Give a digest as the wires write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Give a file's digest, whatever its size."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
    return "sha256:" + found.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON: sorted keys, no NaN, one final newline."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def datatype_of(array: Any) -> str:
    """Name the Open Inference datatype of an array."""
    return "BYTES" if array.dtype.kind in "OUS" else DATATYPES[array.dtype.name]


def tensor(name: str, datatype: str, array: Any) -> dict[str, Any]:
    """Write an array as an Open Inference tensor; NaN becomes null, as JSON has none."""
    data = array.ravel().tolist()
    if datatype.startswith("FP"):
        data = [None if math.isnan(value) else value for value in data]
        data = [value if value is None or math.isfinite(value) else None for value in data]
    elif datatype == "BYTES":
        data = [str(value) for value in data]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def versions() -> dict[str, str]:
    """Give the versions of everything that had a say in the answer."""
    found = {"python": platform.python_version()}
    metadata = importlib.import_module("importlib.metadata")
    for package in ("scikit-learn", "numpy", "pandas", "skl2onnx", "onnx", "onnxruntime", "protobuf"):
        try:
            found[package] = str(metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return found


def signature(
    original: Original | None, inputs: list[tuple[Input, str]], outputs: list[tuple[Output, Any]], columns: list[str]
) -> dict[str, Any]:
    """Describe what the model takes and gives, as the runtime reads it."""
    classes = None
    if original is not None and original.task == "classification":
        known: Any = getattr(original.model, "classes_", getattr(last_step(original.model), "classes_", None))
        classes = _plain(known.tolist(), outputs[0][1]) if hasattr(known, "tolist") else None
    return {
        "inputs": [_input(item, tensor) for item, tensor in inputs],
        "outputs": [
            {
                "name": output.name,
                "datatype": datatype_of(answer),
                "shape": [-1, *answer.shape[1:]],
                "tensor": output.tensor,
            }
            for output, answer in outputs
        ],
        "columns": columns,
        "classes": classes,
        "task": "unknown" if original is None else original.task,
        "producer": versions(),
    }


def _plain(values: list[Any], label: Any) -> list[Any]:
    if datatype_of(label) == "BYTES":
        return [str(value) for value in values]
    return [int(value) for value in values]


def _input(item: Input, tensor: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": item.name,
        "datatype": item.datatype,
        "shape": list(item.shape),
        "kind": item.kind,
        "tensor": tensor,
    }
    if item.datatype == "BYTES":
        described["missing"] = MISSING
    return described


def examples(session: Asked, rows: Rows, outputs: list[Output], *, number: str) -> dict[str, Any]:
    """Record what is answered to the first rows; a runtime is ready once it answers the same."""
    few = rows.take(slice(0, EXAMPLES))
    feed = few.feed(number)
    answers = dict(zip(session.outputs, session.run(feed)))  # noqa: B905 - Python 3.9
    return {
        "inputs": [tensor(item.name, item.datatype, feed[item.name]) for item in few.inputs(number)],
        "outputs": [
            tensor(output.name, datatype_of(answers[output.tensor]), answers[output.tensor]) for output in outputs
        ],
        "tolerance": TOLERANCE,
    }
