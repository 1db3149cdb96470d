"""Infer requests: from the bytes of a body to named arrays."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

import orjson

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.protocol.datatypes import datatype_named
from slipway_runtime.protocol.tensors import Array, from_binary, from_json, shape_of

_NOTHING = memoryview(b"")
_FIELDS = [f"inputs[{index}]" for index in range(64)]
"""Names of places for messages, made before they are needed: most requests need none."""


class RequestedOutput(NamedTuple):
    """An output that the caller asks for, in JSON or as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """An infer request as its caller meant it; not yet compared with a model's signature."""

    id: str | None
    inputs: dict[str, tuple[str, Array]]
    """Datatype name and array by input name, in the caller's order."""
    outputs: tuple[RequestedOutput, ...] | None
    """None: all of them."""
    binary: bool
    """Whether outputs that are not named one by one come as raw bytes."""
    parameters: dict[str, Any]


def json_of(raw: bytes | memoryview, example: str = "") -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Raises:
        InvalidRequest: With the place of the error, and the example of what would be right, if there is one.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not raw:
            raise InvalidRequest(f"the body is empty{_such_as(example)}") from None
        hint = "; JSON has no NaN, send null for a missing value" if b"NaN" in bytes(raw) else ""
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidRequest(f"the body is not valid JSON at {where}: {error.msg}{hint}{_such_as(example)}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object{_such_as(example)}")
    return document


def _such_as(example: str) -> str:
    return f"; send JSON such as {example}" if example else ""


def decode_infer(body: bytes, json_length: int | None = None, known: Container[str] | None = None) -> InferRequest:
    """Read an infer request.

    Args:
        body: The whole body.
        json_length: Where the JSON ends and raw tensors begin (``Inference-Header-Content-Length``);
            None: all of it is JSON.
        known: As `infer_of`.

    Raises:
        InvalidRequest: If anything in it is not as the protocol says.
    """
    raw = _NOTHING
    if json_length is None:
        document = json_of(body)
    elif json_length > len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes")
    else:
        document, raw = json_of(body[:json_length]), memoryview(body)[json_length:]
    return infer_of(document, raw, known)


def infer_of(document: dict[str, Any], raw: memoryview = _NOTHING, known: Container[str] | None = None) -> InferRequest:
    """Read an infer request whose JSON is parsed.

    Args:
        document: What the JSON says.
        raw: What follows it.
        known: The names of the model's outputs. Of the outputs that are asked for, none is read behind
            the first that is not among them, which `AnswerWriter.check` will refuse. None: all are read.

    Raises:
        InvalidRequest: If anything in it is not as the protocol says.
    """
    tensors = document.get("inputs")
    if type(tensors) is not list or not tensors:
        raise InvalidRequest('"inputs" must be a list of at least one tensor')
    inputs: dict[str, tuple[str, Array]] = {}
    for index, tensor in enumerate(tensors):
        name, value, raw = _input(tensor, raw, index)
        if name in inputs:
            raise InvalidRequest(f'inputs[{index}].name "{name}" is given twice')
        inputs[name] = value
    if raw:
        raise InvalidRequest(f"the body has {len(raw)} bytes after its last binary tensor")
    # Most requests name neither id, outputs nor parameters.
    if len(document) == 1:
        return InferRequest(None, inputs, None, binary=False, parameters={})
    parameters = _parameters(document.get("parameters"), "parameters")
    binary = _flag(parameters, "binary_data_output", "parameters")
    outputs = _outputs(document.get("outputs"), binary, known)
    return InferRequest(_id(document.get("id")), inputs, outputs, binary, parameters)


def _input(tensor: object, raw: memoryview, index: int) -> tuple[str, tuple[str, Array], memoryview]:
    """Read one input; gives what is left of the raw bytes, as binary tensors follow each other."""
    field = _FIELDS[index] if index < len(_FIELDS) else f"inputs[{index}]"
    if type(tensor) is not dict:
        raise InvalidRequest(f"{field} must be an object with name, datatype, shape and data")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{field}.name must be a string")
    datatype = datatype_named(tensor.get("datatype"), f"{field}.datatype")
    shape = shape_of(tensor.get("shape"), f"{field}.shape")
    if "parameters" in tensor:
        size = _parameters(tensor["parameters"], f"{field}.parameters").get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(raw):
                raise InvalidRequest(
                    f"{field}.parameters.binary_data_size must be a number of bytes that follow the JSON; "
                    f"{len(raw)} are left (is Inference-Header-Content-Length set?)"
                )
            if "data" in tensor:
                raise InvalidRequest(f"{field} has both data and binary_data_size; send one of them")
            return name, (datatype.name, from_binary(raw[:size], datatype, shape, field)), raw[size:]
    if "data" not in tensor:
        raise InvalidRequest(f"{field}.data is missing")
    return name, (datatype.name, from_json(tensor["data"], datatype, shape, f"{field}.data")), raw


def _outputs(value: object, binary: bool, known: Container[str] | None) -> tuple[RequestedOutput, ...] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise InvalidRequest('"outputs" must be a list such as [{"name": "label"}]')
    wanted: dict[str, RequestedOutput] = {}
    for index, item in enumerate(value):
        field = f"outputs[{index}]"
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise InvalidRequest(f'{field} must be an object such as {{"name": "label"}}')
        if name in wanted:
            raise InvalidRequest(f'{field}.name "{name}" is given twice')
        parameters = _parameters(item.get("parameters"), f"{field}.parameters")
        if parameters.get("classification"):
            raise InvalidRequest(f"{field}.parameters.classification is not supported; ask for the labels by name")
        wanted[name] = RequestedOutput(name, _flag(parameters, "binary_data", f"{field}.parameters", default=binary))
        if known is not None and name not in known:
            break
    return tuple(wanted.values())


def _parameters(value: object, field: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object")
    return value


def _flag(parameters: dict[str, Any], name: str, field: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidRequest(f"{field}.{name} must be true or false")
    return value


def _id(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest('"id" must be a string')
