"""Infer answers and metadata: from named arrays to the bytes of a body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.protocol.alignment import suggestion
from slipway_runtime.protocol.requests import RequestedOutput
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import Array, to_binary


class Encoded(NamedTuple):
    """A body, and where its JSON ends if raw tensors follow."""

    body: bytes
    json_length: int | None = None


_SHAPES = [b"[" + b",".join([b"%d"] * dimensions) + b"]" for dimensions in range(33)]
"""How shapes are written, by their number of dimensions."""


def json_values(array: Array) -> bytes:
    """Write an array's values as a flat JSON list; NaN and infinities become null."""
    if array.dtype.kind == "O":
        return orjson.dumps(array.ravel().tolist())
    return orjson.dumps(np.ascontiguousarray(array).ravel(), option=orjson.OPT_SERIALIZE_NUMPY)


class AnswerWriter:
    """Writes the answers of one model.

    Everything that is the same in each of them is written once, here; an answer is put
    together from those pieces.
    """

    def __init__(self, signature: Signature, name: str, version: str) -> None:
        self._signature = signature
        self._positions = {spec.name: index for index, spec in enumerate(signature.outputs)}
        self._all = tuple(range(len(signature.outputs)))
        names = orjson.dumps({"model_name": name, "model_version": version})
        self._opening = names[:-1] + b',"id":'
        self._heads = [self._head(spec) for spec in signature.outputs]

    @staticmethod
    def _head(spec: TensorSpec) -> bytes:
        return orjson.dumps({"name": spec.name, "datatype": spec.datatype.name})[:-1] + b',"shape":'

    def check(self, outputs: tuple[RequestedOutput, ...] | None) -> None:
        """Refuse outputs that the model does not have, before it runs.

        Raises:
            InvalidRequest: Naming the first of them.
        """
        for output in outputs or ():
            if output.name not in self._positions:
                raise InvalidRequest(f'there is no output "{output.name}"{suggestion(output.name, self._positions)}')

    def write(
        self, request_id: str, arrays: Sequence[Array], outputs: tuple[RequestedOutput, ...] | None, *, binary: bool
    ) -> Encoded:
        """Write an answer.

        Args:
            request_id: Echoed as ``id``.
            arrays: All outputs, in the signature's order.
            outputs: Which of them the caller wants; None: all.
            binary: Whether outputs that are not named one by one go as raw bytes.
        """
        pieces = [self._opening, orjson.dumps(request_id), b',"outputs":[']
        if outputs is None and not binary:
            for position in self._all:
                array = arrays[position]
                pieces += (self._heads[position], _shape(array), b',"data":', json_values(array), b"},")
            pieces[-1] = b"}]}"
            return Encoded(b"".join(pieces))
        chosen = [(self._positions[output.name], output.binary) for output in outputs or ()]
        if outputs is None:
            chosen = [(position, True) for position in self._all]
        raws: list[bytes] = []
        for position, raw_wanted in chosen:
            array = arrays[position]
            pieces += (self._heads[position], _shape(array))
            if raw_wanted:
                raw = to_binary(array, self._signature.outputs[position].datatype)
                raws.append(raw)
                pieces.append(b',"parameters":{"binary_data_size":%d}},' % len(raw))
            else:
                pieces += (b',"data":', json_values(array), b"},")
        pieces[-1] = pieces[-1][:-1] + b"]}"
        head = b"".join(pieces)
        return Encoded(b"".join((head, *raws)), len(head)) if raws else Encoded(head)


def _shape(array: Array) -> bytes:
    return _SHAPES[array.ndim] % array.shape


def server_metadata(version: str) -> dict[str, Any]:
    """Answer of ``GET /v2``."""
    return {"name": "slipway", "version": version, "extensions": ["binary_tensor_data"]}


def model_metadata(signature: Signature, name: str, version: str) -> dict[str, Any]:
    """Answer of ``GET /v2/models/<name>``."""
    return {
        "name": name,
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
        "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
        "parameters": {
            "columns": list(signature.columns),
            "classes": list(signature.classes),
            "task": signature.task,
        },
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": list(spec.shape)}
