"""What an ONNX file must not do: point at other files.

ONNX lets tensors live in files beside the model, by a path that the model names. A model
comes from a project, so such a path could name anything that the runtime may read
(CVE-2022-25882, CVE-2024-27318). The runtime hands ONNX Runtime the bytes of one file and
refuses those that refer to others, before ONNX Runtime sees them.

Field numbers are those of onnx.proto; this reads just as much of protobuf's wire format as
is needed to find tensors, so that no protobuf library is in the image.
"""

from __future__ import annotations

from collections.abc import Iterator

from slipway_runtime.errors import CannotServe

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL = {7: "graph", 20: "training", 25: "function"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_NODE = {5: "attribute"}
_FUNCTION = {7: "node", 11: "attribute"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_TRAINING = {1: "graph", 2: "graph"}
_INSIDE = {
    "model": _MODEL,
    "graph": _GRAPH,
    "node": _NODE,
    "function": _FUNCTION,
    "attribute": _ATTRIBUTE,
    "sparse": _SPARSE,
    "training": _TRAINING,
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(model: bytes) -> None:
    """Refuse a model that keeps tensors in other files.

    Raises:
        CannotServe: If it does, or if its bytes are not protobuf.
    """
    # External data is found by its key "location", which is in the bytes as it is. Walking the
    # tensors of a large forest takes a second; most models do not hold the word at all.
    if b"location" not in model:
        return
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(model))]
    while waiting:
        kind, content = waiting.pop()
        for number, value in _fields(content):
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1):
                    raise CannotServe("the ONNX model keeps tensors in other files; export it as one file")
            elif (inside := _INSIDE[kind].get(number)) is not None and isinstance(value, memoryview):
                waiting.append((inside, value))


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    offset, end = 0, len(content)
    while offset < end:
        key, offset = _varint(content, offset)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, offset = _varint(content, offset)
            yield number, value
        elif kind == _BYTES:
            size, offset = _varint(content, offset)
            if offset + size > end:
                raise CannotServe("the ONNX file is cut off")
            yield number, content[offset : offset + size]
            offset += size
        elif kind in (_FIXED64, _FIXED32):
            offset += 8 if kind == _FIXED64 else 4
        else:
            raise CannotServe("the ONNX file is not a model")


def _varint(content: memoryview, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if offset >= len(content) or shift > 63:
            raise CannotServe("the ONNX file is cut off")
        byte = content[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
