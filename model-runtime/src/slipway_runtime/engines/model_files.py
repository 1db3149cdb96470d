"""A model's files: read, compared with what the operator says they are, and proven by its examples.

A runtime is ready after it has given the answers of ``examples.json`` again, which were recorded
when the model was exported: numbers within the tolerance, labels exactly.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from slipway_runtime.engines.base import Engine
from slipway_runtime.errors import CannotServe, InvalidRequest, SlipwayRuntimeError
from slipway_runtime.protocol.alignment import Aligner, Feeds, Given
from slipway_runtime.protocol.datatypes import datatype_named
from slipway_runtime.protocol.requests import json_of
from slipway_runtime.protocol.signature import Signature
from slipway_runtime.protocol.tensors import NULL, Array, from_json, shape_of

_MAX_MODEL_BYTES = 2 << 30
"""Of ONNX: a message of protobuf has no more."""
_MAX_WORKER_MODEL_BYTES = 4 << 30
"""As many as an export takes."""
_MAX_JSON_BYTES = 16 << 20
_SHOWN_BYTES = 8192
_MOST_EXAMPLES = 1 << 20
"""Rows. They are the model's own: a bound on the rows of callers is none on them."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows with the answers that were recorded for them."""

    inputs: Given
    outputs: dict[str, Array]
    tolerance: float

    def first_row(self, signature: Signature) -> dict[str, Any]:
        """Give a known good value for each column."""
        matrix = signature.matrix
        if matrix is not None and matrix.name in self.inputs:
            values = self.inputs[matrix.name][1]
            return dict(zip(signature.columns, _plain(values[0]), strict=False))
        return {name: _plain(array.reshape(array.shape[0], -1)[0])[0] for name, (_, array) in self.inputs.items()}

    def request(self, signature: Signature) -> str:
        """Give a known good infer request, of one row where that is possible; nothing where it would be too long."""
        tensors = []
        for name, (datatype, array) in self.inputs.items():
            spec = signature.input_named.get(name)
            some = array[:1] if spec is None or spec.is_batched else array
            tensors.append({"name": name, "datatype": datatype, "shape": some.shape, "data": _plain(some.ravel())})
        written = orjson.dumps({"inputs": tensors}).decode()
        return written if len(written) <= _SHOWN_BYTES else ""


def _plain(row: Array) -> list[Any]:
    # Through text in the array's own precision: 0.1 in FP32 is shown as 0.1.
    if row.dtype.kind == "O":
        return [value if isinstance(value, str) else None for value in row.tolist()]
    values: list[Any] = orjson.loads(orjson.dumps(np.ascontiguousarray(row), option=orjson.OPT_SERIALIZE_NUMPY))
    return values


def read_file(folder: Path, name: str, limit: int = _MAX_JSON_BYTES) -> bytes:
    """Read one regular file of the model.

    Raises:
        CannotServe: If it is absent, too large, or not a regular file.
    """
    with _opened(folder / name, limit) as file:
        return file.read(limit)


def _opened(path: Path, limit: int) -> BufferedReader:
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        what = "is not a regular file" if error.errno == errno.EISDIR else f"cannot be read: {error.strerror}"
        raise CannotServe(f"{path} {what}") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        fault = "is not a regular file"
    elif status.st_size > limit:
        fault = f"has {status.st_size} bytes; at most {limit} are loaded"
    else:
        return file
    file.close()
    raise CannotServe(f"{path} {fault}")


def read_model(folder: Path, digest: str, name: str = "model.onnx") -> bytes:
    """Read the model's file and compare it with its digest: the bytes that were compared are those that are loaded.

    Args:
        folder: Where the model image is mounted.
        digest: ``sha256:`` and 64 hexadecimal digits.
        name: The file's.

    Raises:
        CannotServe: If it is absent, or another model than the digest names.
    """
    model = read_file(folder, name, _MAX_MODEL_BYTES)
    _compare(folder / name, hashlib.sha256(model).hexdigest(), digest)
    return model


def check_model(folder: Path, digest: str, name: str) -> None:
    """Compare the file of a model that another process loads with its digest, in a few kilobytes of memory.

    Raises:
        CannotServe: As `read_model`.
    """
    with _opened(folder / name, _MAX_WORKER_MODEL_BYTES) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _compare(folder / name, found, digest)


def _compare(path: Path, found: str, digest: str) -> None:
    if f"sha256:{found}" != digest:
        raise CannotServe(f"{path} is sha256:{found}, but {digest} should be served; mount that model")


def read_examples(raw: bytes, signature: Signature) -> Examples:
    """Read ``examples.json``.

    Raises:
        CannotServe: If it is not as the contract says.
    """
    try:
        document = json_of(raw, '{"inputs": [], "outputs": []}')
        inputs = _tensors(document["inputs"])
        outputs = {name: _as_answered(array) for name, (_, array) in _tensors(document["outputs"]).items()}
        tolerance = float(document.get("tolerance", 0.0))
    except (InvalidRequest, KeyError, TypeError, ValueError) as error:
        raise CannotServe(f"examples.json cannot be read: {error}") from None
    if unknown := outputs.keys() - signature.output_named.keys():
        raise CannotServe(f"examples.json has outputs that signature.json does not name: {', '.join(sorted(unknown))}")
    if not inputs or not outputs:
        raise CannotServe("examples.json holds no rows; a model without examples cannot be proven")
    return Examples(inputs, outputs, tolerance)


def _as_answered(array: Array) -> Array:
    """Have None for a missing string, as an engine's answer has."""
    if array.dtype.kind == "O":
        array[array == NULL] = None
    return array


def _tensors(items: list[dict[str, Any]]) -> Given:
    tensors: Given = {}
    for index, item in enumerate(items):
        field = f"tensor {index}"
        datatype = datatype_named(item["datatype"], f"{field}.datatype")
        array = from_json(item["data"], datatype, shape_of(item["shape"], f"{field}.shape"), f"{field}.data")
        tensors[item["name"]] = (datatype.name, array)
    return tensors


def prove(engine: Engine, signature: Signature, examples: Examples) -> tuple[Feeds, int]:
    """Compare the engine's answers to the example rows with the recorded ones.

    Returns:
        The example rows as the engine took them, and their number.

    Raises:
        CannotServe: If one differs, naming output, row and both values.
    """
    try:
        feeds, rows = Aligner(signature, max_rows=_MOST_EXAMPLES).align(examples.inputs)
        answers = engine.run(feeds)
    except SlipwayRuntimeError as error:
        raise CannotServe(f"the example rows of examples.json get no answer: {error.message}") from error
    for spec, answer in zip(signature.outputs, answers, strict=True):
        recorded = examples.outputs.get(spec.name)
        if recorded is None:
            continue
        if recorded.shape != answer.shape:
            raise CannotServe(
                f"the model's answer {spec.name} to the example rows has shape {list(answer.shape)}; "
                f"recorded was {list(recorded.shape)}"
            )
        place = _first_difference(recorded, answer, examples.tolerance)
        if place is not None:
            raise CannotServe(
                f"the model's answer {spec.name} to example row {place[0]} is {answer[place]}; recorded was "
                f"{recorded[place]} (tolerance {examples.tolerance:g}). It must not be served: export it again"
            )
    return feeds, rows


def _first_difference(recorded: Array, answer: Array, tolerance: float) -> tuple[int, ...] | None:
    if answer.dtype.kind == "f":
        wanted, given = recorded.astype(np.float64), answer.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (np.abs(wanted - given) <= tolerance) | (np.isnan(wanted) & ~np.isfinite(given))
    else:
        same = recorded == answer
    different = np.argwhere(~np.asarray(same, dtype=bool))
    return tuple(int(index) for index in different[0]) if different.size else None
