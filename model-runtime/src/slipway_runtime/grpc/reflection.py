"""Server reflection, v1 and v1alpha: what grpcurl and its like need in order to call without .proto files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from slipway_runtime.grpc.calls import Call, Method
from slipway_runtime.grpc.messages import HEALTH, INFERENCE, POOL, REFLECTION, decoded, message_class
from slipway_runtime.grpc.status import Code

_SERVICES = sorted([INFERENCE, HEALTH, *(f"{package}.ServerReflection" for package in REFLECTION)])


def reflection_methods() -> Iterator[tuple[str, Method]]:
    """Give what it answers, by path."""
    for package in REFLECTION:
        service = _Reflection(package)
        yield (
            f"{package}.ServerReflection/ServerReflectionInfo",
            Method("reflection", service.handle, streams=True, lasts=True),
        )


class _Reflection:
    """One version of the service; they differ in nothing but their package."""

    def __init__(self, package: str) -> None:
        self._request = message_class(f"{package}.ServerReflectionRequest")
        self._answer = message_class(f"{package}.ServerReflectionResponse")

    def handle(self, call: Call, message: bytes) -> None:
        """Answer one question of a stream of them."""
        request = decoded(self._request, message)
        answer = self._answer(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        found = False
        with contextlib.suppress(KeyError):
            found = _found(kind, request, answer)
        if not found:
            answer.error_response.error_code = Code.NOT_FOUND
            answer.error_response.error_message = "there is nothing of that name here"
        call.send(answer.SerializeToString())


def _found(kind: str | None, request: Any, answer: Any) -> bool:
    """Write down what is asked for; False, or a KeyError of the pool, if there is no such thing."""
    if kind == "list_services":
        for name in _SERVICES:
            answer.list_services_response.service.add(name=name)
    elif kind == "file_by_filename":
        file = POOL.FindFileByName(request.file_by_filename)
        answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
    elif kind == "file_containing_symbol":
        file = POOL.FindFileContainingSymbol(request.file_containing_symbol)
        answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
    elif kind == "all_extension_numbers_of_type":
        POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
        answer.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
    else:
        return False  # proto3 has no extensions to be found
    return True
