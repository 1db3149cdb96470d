"""The protobuf messages of the services, as protobuf's own runtime reads and writes them.

Their descriptors are built here, in a pool of their own: generated code would register the same
names in the one pool that all of a process shares, where foreign clients have theirs already.

Names and numbers are those of
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto,
https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto (the repository's index),
https://github.com/grpc/grpc/blob/master/src/proto/grpc/health/v1/health.proto and
https://github.com/grpc/grpc-proto/blob/master/grpc/reflection/v1/reflection.proto.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]  # it ships no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above

from slipway_runtime.errors import InvalidRequest

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
"""The packages that the same reflection service goes by."""

_Messages = dict[str, str]
_Methods = dict[str, tuple[str, str, bool, bool]]
"""Request, answer, and whether each of the two is a stream, by name."""
_Enums = dict[str, tuple[str, tuple[str, ...]]]

_INFERENCE_MESSAGES: _Messages = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 bool ready",
    "ModelReadyRequest": "1 string name, 2 string version",
    "ModelReadyResponse": "1 bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 string name, 2 string version, 3 repeated string extensions",
    "ModelMetadataRequest": "1 string name, 2 string version",
    "ModelMetadataResponse": """1 string name, 2 repeated string versions, 3 string platform,
        4 repeated ModelMetadataResponse.TensorMetadata inputs,
        5 repeated ModelMetadataResponse.TensorMetadata outputs""",
    "ModelMetadataResponse.TensorMetadata": "1 string name, 2 string datatype, 3 repeated int64 shape",
    "ModelInferRequest": """1 string model_name, 2 string model_version, 3 string id,
        4 map InferParameter parameters, 5 repeated ModelInferRequest.InferInputTensor inputs,
        6 repeated ModelInferRequest.InferRequestedOutputTensor outputs, 7 repeated bytes raw_input_contents""",
    "ModelInferRequest.InferInputTensor": """1 string name, 2 string datatype, 3 repeated int64 shape,
        4 map InferParameter parameters, 5 InferTensorContents contents""",
    "ModelInferRequest.InferRequestedOutputTensor": "1 string name, 2 map InferParameter parameters",
    "ModelInferResponse": """1 string model_name, 2 string model_version, 3 string id,
        4 map InferParameter parameters, 5 repeated ModelInferResponse.InferOutputTensor outputs,
        6 repeated bytes raw_output_contents""",
    "ModelInferResponse.InferOutputTensor": """1 string name, 2 string datatype, 3 repeated int64 shape,
        4 map InferParameter parameters, 5 InferTensorContents contents""",
    "RepositoryIndexRequest": "1 string repository_name, 2 bool ready",
    "RepositoryIndexResponse": "1 repeated RepositoryIndexResponse.ModelIndex models",
    "RepositoryIndexResponse.ModelIndex": "1 string name, 2 string version, 3 string state, 4 string reason",
    "InferParameter": """1 bool bool_param of parameter_choice, 2 int64 int64_param of parameter_choice,
        3 string string_param of parameter_choice, 4 double double_param of parameter_choice,
        5 uint64 uint64_param of parameter_choice""",
    "InferTensorContents": """1 repeated bool bool_contents, 2 repeated int32 int_contents,
        3 repeated int64 int64_contents, 4 repeated uint32 uint_contents, 5 repeated uint64 uint64_contents,
        6 repeated float fp32_contents, 7 repeated double fp64_contents, 8 repeated bytes bytes_contents""",
}
_INFERENCE_METHODS = {
    name: (f"{name}Request", f"{name}Response", False, False)
    for name in (
        *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
        "RepositoryIndex",
    )
}

_HEALTH_MESSAGES = {
    "HealthCheckRequest": "1 string service",
    "HealthCheckResponse": "1 HealthCheckResponse.ServingStatus status",
}
_HEALTH_METHODS = {
    "Check": ("HealthCheckRequest", "HealthCheckResponse", False, False),
    "Watch": ("HealthCheckRequest", "HealthCheckResponse", False, True),
}
_HEALTH_ENUMS: _Enums = {
    "HealthCheckResponse": ("ServingStatus", ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"))
}

_REFLECTION_MESSAGES = {
    "ServerReflectionRequest": """1 string host, 3 string file_by_filename of message_request,
        4 string file_containing_symbol of message_request,
        5 ExtensionRequest file_containing_extension of message_request,
        6 string all_extension_numbers_of_type of message_request, 7 string list_services of message_request""",
    "ExtensionRequest": "1 string containing_type, 2 int32 extension_number",
    "ServerReflectionResponse": """1 string valid_host, 2 ServerReflectionRequest original_request,
        4 FileDescriptorResponse file_descriptor_response of message_response,
        5 ExtensionNumberResponse all_extension_numbers_response of message_response,
        6 ListServiceResponse list_services_response of message_response,
        7 ErrorResponse error_response of message_response""",
    "FileDescriptorResponse": "1 repeated bytes file_descriptor_proto",
    "ExtensionNumberResponse": "1 string base_type_name, 2 repeated int32 extension_number",
    "ListServiceResponse": "1 repeated ServiceResponse service",
    "ServiceResponse": "1 string name",
    "ErrorResponse": "1 int32 error_code, 2 string error_message",
}
_REFLECTION_METHODS = {"ServerReflectionInfo": ("ServerReflectionRequest", "ServerReflectionResponse", True, True)}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
}


def _file(package: str, service: str, messages: _Messages, methods: _Methods, enums: _Enums | None = None) -> Any:
    """Describe what a .proto file would."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}.proto", package=package, syntax="proto3"
    )
    described: dict[str, Any] = {}
    for name, fields in messages.items():
        outer, _, inner = name.rpartition(".")
        message = described[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        described[name] = message
        if name in (enums or {}):
            enum_name, values = (enums or {})[name]
            enum = message.enum_type.add(name=enum_name)
            for number, value in enumerate(values):
                enum.value.add(name=value, number=number)
        for field in fields.split(",") if fields else ():
            _add_field(package, name, message, field.split())
    offered = file.service.add(name=service)
    for name, (request, answer, streams_in, streams_out) in methods.items():
        method = offered.method.add(name=name, input_type=f".{package}.{request}", output_type=f".{package}.{answer}")
        method.client_streaming, method.server_streaming = streams_in, streams_out
    return file


def _add_field(package: str, owner: str, message: Any, words: list[str]) -> None:
    """Add a field that reads ``1 string name``, ``2 repeated T names``, ``3 map T by_name`` or ``4 T one of many``."""
    number, words = int(words[0]), words[1:]
    label = words[0] if words[0] in ("repeated", "map") else ""
    words = words[1:] if label else words
    kind, name, choice = words[0], words[1], words[3] if len(words) == 4 else ""
    if label == "map":
        # As protoc writes it: a map is a list of entries, each of a nested message.
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(package, owner, entry, ["1", "string", "key"])
        _add_field(package, owner, entry, ["2", kind, "value"])
        kind = f"{owner}.{entry_name}"
    first, *others = name.split("_")
    json_name = first + "".join(other.capitalize() for other in others)  # protoc writes it, and clients rely on it
    field = message.field.add(name=name, number=number, json_name=json_name)
    field.label = _Field.LABEL_REPEATED if label else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind.endswith("ServingStatus") else _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
    if choice:
        known = [item.name for item in message.oneof_decl]
        if choice not in known:
            message.oneof_decl.add(name=choice)
            known.append(choice)
        field.oneof_index = known.index(choice)


POOL = descriptor_pool.DescriptorPool()
for _described in (
    _file("inference", "GRPCInferenceService", _INFERENCE_MESSAGES, _INFERENCE_METHODS),
    _file("grpc.health.v1", "Health", _HEALTH_MESSAGES, _HEALTH_METHODS, _HEALTH_ENUMS),
    *(_file(package, "ServerReflection", _REFLECTION_MESSAGES, _REFLECTION_METHODS) for package in REFLECTION),
):
    POOL.Add(_described)


def message_class(name: str) -> Any:
    """Give the class of a message by its full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def decoded(kind: Any, message: bytes) -> Any:
    """Read a message.

    Raises:
        InvalidRequest: If its bytes are not one.
    """
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidRequest(f"the message is not a {kind.DESCRIPTOR.full_name}") from None
