"""Infer requests and answers as protobuf messages: to and from named arrays.

Values come and go in a field of their datatype (``contents``) or as raw bytes, as the binary
tensor extension of HTTP has them; a request that is raw gets a raw answer, unless it says
otherwise by the parameter ``binary_data_output``. FP16 has no field, so it is always raw.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.grpc.messages import decoded, message_class
from slipway_runtime.protocol.alignment import Given
from slipway_runtime.protocol.datatypes import DATATYPES, Datatype, datatype_named
from slipway_runtime.protocol.requests import RequestedOutput
from slipway_runtime.protocol.signature import Signature
from slipway_runtime.protocol.tensors import MAX_DIMENSIONS, Array, count_of, from_binary, from_values, to_binary

_Request = message_class("inference.ModelInferRequest")
_Answer = message_class("inference.ModelInferResponse")

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of a datatype are, if they are not raw."""


class GrpcInferRequest(NamedTuple):
    """An infer request as its caller meant it; not yet compared with a model's signature."""

    model: str
    version: str
    id: str
    inputs: Given
    outputs: tuple[RequestedOutput, ...] | None
    """None: all of them."""
    raw: bool
    """Whether the answer should be raw bytes."""


def read_infer(message: bytes) -> GrpcInferRequest:
    """Read an infer request.

    Raises:
        InvalidRequest: If anything in it is not as the protocol says.
    """
    return infer_of(request_of(message))


def request_of(message: bytes) -> Any:
    """Decode a message: whom it asks is known, and nothing of what it says is looked at.

    Raises:
        InvalidRequest: If it is none.
    """
    return decoded(_Request, message)


def infer_of(request: Any, known: Container[str] | None = None) -> GrpcInferRequest:
    """Read an infer request that is decoded.

    Args:
        request: The message.
        known: The names of the model's outputs, as in `slipway_runtime.protocol.requests.infer_of`.

    Raises:
        InvalidRequest: If anything in it is not as the protocol says.
    """
    raws = request.raw_input_contents
    tensors = request.inputs
    if raws and len(raws) != len(tensors):
        raise InvalidRequest(
            f"raw_input_contents has {len(raws)} items for {len(tensors)} inputs; send all inputs raw, or none"
        )
    if not tensors:
        raise InvalidRequest("inputs must hold at least one tensor")
    inputs: Given = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        datatype = DATATYPES.get(tensor.datatype) or datatype_named(tensor.datatype, f"inputs[{index}].datatype")
        shape = tuple(tensor.shape)
        if not 0 < len(shape) <= MAX_DIMENSIONS or min(shape) < 0:
            raise InvalidRequest(
                f"inputs[{index}].shape must be 1 to {MAX_DIMENSIONS} sizes, none negative, for example [1, 4]"
            )
        if name in inputs or not name:
            raise InvalidRequest(f'inputs[{index}].name "{name}" is {"given twice" if name else "missing"}')
        if raws:
            if tensor.HasField("contents"):
                raise InvalidRequest(f"inputs[{index}] has both contents and raw_input_contents; send one of them")
            array = from_binary(raws[index], datatype, shape, f"raw_input_contents[{index}]")
        else:
            array = _typed(tensor.contents, datatype, shape, f"inputs[{index}].contents")
        inputs[name] = (datatype.name, array)
    raw = bool(raws)
    if request.parameters:
        raw = _flag(request.parameters, "binary_data_output", default=raw)
    outputs = _outputs(request.outputs, known) if request.outputs else None
    return GrpcInferRequest(request.model_name, request.model_version, request.id, inputs, outputs, raw)


def _typed(contents: Any, datatype: Datatype, shape: tuple[int, ...], field: str) -> Array:
    place = _FIELDS.get(datatype.name)
    if place is None:
        raise InvalidRequest(f"{field} cannot hold {datatype.name}; send it in raw_input_contents")
    values = list(getattr(contents, place))
    expected = count_of(shape, field)
    if len(values) != expected:
        raise InvalidRequest(
            f"{field}.{place} has {len(values)} values, but shape {list(shape)} of {datatype.name} needs {expected}"
        )
    if datatype.is_text:
        values = [_text(value, f"{field}.{place}[{index}]") for index, value in enumerate(values)]
    return from_values(values, datatype, f"{field}.{place}").reshape(shape)


def _text(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{field} is not UTF-8") from None


def _outputs(items: Any, known: Container[str] | None) -> tuple[RequestedOutput, ...]:
    names: dict[str, None] = {}
    for index, item in enumerate(items):
        if item.name in names:
            raise InvalidRequest(f'outputs[{index}].name "{item.name}" is given twice')
        if "classification" in item.parameters:
            raise InvalidRequest(
                f"outputs[{index}].parameters.classification is not supported; ask for the labels by name"
            )
        names[item.name] = None
        if known is not None and item.name not in known:
            break
    return tuple(RequestedOutput(name, binary=True) for name in names)


def _flag(parameters: Any, name: str, *, default: bool) -> bool:
    if name not in parameters:
        return default
    value = parameters[name]
    if value.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(f"parameters.{name} must be a bool_param")
    return bool(value.bool_param)


class GrpcAnswerWriter:
    """Writes the answers of one model.

    A protobuf message may be put together from pieces that were serialised one by one. What is
    the same in many answers (names, the description of a tensor of some shape) is kept.
    """

    _KEPT = 512

    def __init__(self, signature: Signature, name: str, version: str) -> None:
        self._specs = signature.outputs
        self._positions = {spec.name: index for index, spec in enumerate(signature.outputs)}
        self._all = tuple(range(len(signature.outputs)))
        self._names: bytes = _Answer(model_name=name, model_version=version).SerializeToString()
        self._described: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self._always_raw = any(spec.datatype.name not in _FIELDS for spec in signature.outputs)

    def write(
        self, request_id: str, arrays: Sequence[Array], outputs: tuple[RequestedOutput, ...] | None, *, raw: bool
    ) -> bytes:
        """Write an answer.

        Args:
            request_id: Echoed as ``id``.
            arrays: All outputs, in the signature's order.
            outputs: Which of them the caller wants; None: all.
            raw: Whether values go as raw bytes.
        """
        chosen = self._all if outputs is None else [self._positions[output.name] for output in outputs]
        pieces = [self._names, _field(3, request_id.encode())]
        if raw or self._always_raw:
            pieces += [self._description(position, arrays[position].shape) for position in chosen]
            pieces += [_field(6, to_binary(arrays[position], self._specs[position].datatype)) for position in chosen]
        else:
            pieces += [self._typed(position, arrays[position]) for position in chosen]
        return b"".join(pieces)

    def write_batch(self, sizes: Sequence[int], ids: Sequence[str], arrays: Sequence[Array]) -> list[bytes]:
        """Write the answers to several requests that ran together, all outputs as raw bytes.

        Args:
            sizes: The number of rows of each request.
            ids: Echoed as ``id``.
            arrays: All outputs for the rows of all requests.
        """
        if len(sizes) == 1:
            # Alone, a request has an answer of any shape: the outputs of some models are not rows.
            return [self.write(ids[0], arrays, None, raw=True)]
        if any(spec.datatype.is_text for spec in self._specs):
            bounds = [0, *accumulate(sizes)]
            parts = [[array[begin:end] for array in arrays] for begin, end in pairwise(bounds)]
            return [self.write(one, part, None, raw=True) for one, part in zip(ids, parts, strict=True)]
        # All rows of an output as bytes at once, cut where a request ends.
        raws = [to_binary(array, spec.datatype) for array, spec in zip(arrays, self._specs, strict=True)]
        strides = [len(raw) // array.shape[0] for raw, array in zip(raws, arrays, strict=True)]
        messages, row = [], 0
        for rows, identifier in zip(sizes, ids, strict=True):
            end = row + rows
            pieces = [self._names, _field(3, identifier.encode())]
            pieces += [self._description(place, (rows, *array.shape[1:])) for place, array in enumerate(arrays)]
            pieces += [_field(6, raw[row * step : end * step]) for raw, step in zip(raws, strides, strict=True)]
            messages.append(b"".join(pieces))
            row = end
        return messages

    def _description(self, position: int, shape: tuple[int, ...]) -> bytes:
        known = self._described.get((position, shape))
        if known is None:
            spec = self._specs[position]
            output = {"name": spec.name, "datatype": spec.datatype.name, "shape": shape}
            known = _Answer(outputs=[output]).SerializeToString()
            if len(self._described) < self._KEPT:
                self._described[position, shape] = known
        return known

    def _typed(self, position: int, array: Array) -> bytes:
        spec = self._specs[position]
        values = array.ravel().tolist()
        if spec.datatype.is_text:
            values = [b"" if value is None else str(value).encode() for value in values]
        output = {
            "name": spec.name,
            "datatype": spec.datatype.name,
            "shape": array.shape,
            "contents": {_FIELDS[spec.datatype.name]: values},
        }
        written: bytes = _Answer(outputs=[output]).SerializeToString()
        return written


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes or text (https://protobuf.dev/programming-guides/encoding)."""
    size = len(content)
    if size < 0x80:
        return b"%c%c%b" % (number << 3 | 2, size, content)
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return b"%c%b%c%b" % (number << 3 | 2, bytes(length), size, content)
