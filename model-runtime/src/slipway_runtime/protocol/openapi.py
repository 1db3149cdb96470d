"""What the HTTP interface takes and gives, as an OpenAPI document made from the signature.

https://spec.openapis.org/oas/v3.1.1.html is the source of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from slipway_runtime import __version__
from slipway_runtime.protocol.datatypes import DATATYPES, Datatype
from slipway_runtime.protocol.signature import Signature

Schema = dict[str, Any]

_LARGEST = {"FP16": 65504.0, "FP32": 3.4028234e38}
_ERRORS = {
    "400": "Malformed, or not what the model takes",
    "408": "It did not arrive in time",
    "413": "Too many bytes or rows",
    "415": "Another media type than the runtime reads",
    "422": "It fits the signature, but the model cannot compute an answer for these values",
    "503": "The queue is full or the pod is stopping; Retry-After says when to come back",
}


_INDEX: Schema = {
    "required": False,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"ready": {"type": "boolean", "description": "Leave out those that would not answer"}},
            }
        }
    },
}


class Served(NamedTuple):
    """One model that is described."""

    signature: Signature
    name: str
    version: str
    """Of the content."""
    example: dict[str, Any]
    """A known good value for each column; empty where the model takes no rows."""


def openapi(models: Sequence[Served]) -> Schema:
    """Make the document of a server that has one model, or several."""
    alone = len(models) == 1
    paths: Schema = {
        "/v2": {"get": _get("Name, version and extensions of the server")},
        "/v2/health/live": {"get": _get("Whether the process lives")},
        "/v2/health/ready": {"get": _get("Whether it wants requests", stopping=True)},
        "/v2/repository/index": {
            "get": _get("The models that are here", kind="array"),
            "post": {
                "summary": "The models that are here, or those that would answer",
                "requestBody": _INDEX,
                "responses": _answers({"application/json": {"schema": {"type": "array"}}}, *_ERRORS),
            },
        },
        "/metrics": {"get": _get("Prometheus metrics", media="text/plain")},
        "/openapi.json": {"get": _get("This document")},
    }
    tensors: Schema = {}
    for model in models:
        tensor = "Tensor" if alone else f"Tensor-{model.name}"
        tensors[tensor] = _tensor([spec.name for spec in model.signature.outputs])
        paths |= _paths_of(model, tensor, "/predict" if alone else f"/models/{model.name}/predict")
    one = models[0]
    title, version = (one.name, one.version) if alone else ("Models", __version__)
    several = "one model" if alone else f"{len(models)} models"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "summary": f"Predictions of {several}, by rows of named columns or by the Open Inference Protocol v2",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string", "description": "What to change"}},
                    "required": ["error"],
                },
                **tensors,
            },
            "headers": {
                "Content": {"description": "Short digest of what answered", "schema": {"type": "string"}},
                "ModelDigest": {"description": "SHA-256 of the ONNX file", "schema": {"type": "string"}},
                "RequestId": {"description": "The caller's id, or a new one", "schema": {"type": "string"}},
            },
        },
    }


def _paths_of(model: Served, tensor: str, predict: str) -> Schema:
    base = f"/v2/models/{model.name}"
    paths: Schema = {
        base: {"get": _get("Inputs, outputs, columns and classes of the model")},
        f"{base}/ready": {"get": _get("Whether the model answers", stopping=True)},
        f"{base}/infer": {"post": _infer(model.signature, tensor)},
    }
    if model.signature.takes_columns:
        paths[predict] = {"post": _predict(model.signature, model.example)}
    return paths


def _headers() -> Schema:
    names = {"slipway-content": "Content", "slipway-model-digest": "ModelDigest", "x-request-id": "RequestId"}
    return {header: {"$ref": f"#/components/headers/{name}"} for header, name in names.items()}


def _answers(content: Schema, *errors: str) -> Schema:
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: Schema = {"200": {"description": "The answer", "headers": _headers(), "content": content}}
    answers |= {code: {"description": _ERRORS[code], "headers": _headers(), "content": refused} for code in errors}
    return answers


def _get(summary: str, media: str = "application/json", *, kind: str = "object", stopping: bool = False) -> Schema:
    schema: Schema = {"type": kind} if media == "application/json" else {"type": "string"}
    answers = _answers({media: {"schema": schema}})
    if stopping:
        # The readiness of a model tells its name, not an error.
        body = {"application/json": {"schema": {"type": "object"}}}
        answers["503"] = {"description": "The pod is stopping", "headers": _headers(), "content": body}
    return {"summary": summary, "responses": answers}


def _predict(signature: Signature, example: dict[str, Any]) -> Schema:
    row = {
        "type": "object",
        "properties": {name: _value(spec.datatype, example.get(name)) for name, spec in signature.column_specs.items()},
        "required": list(signature.column_specs),
        "additionalProperties": False,
    }
    rows = {"type": "object", "properties": {"rows": {"type": "array", "minItems": 1, "items": row}}}
    given = {"schema": {**rows, "required": ["rows"]}, "example": {"rows": [example]}}
    prediction = {"type": "object", "properties": {spec.name: {} for spec in signature.outputs}}
    said: Schema = {
        "schema": {
            "type": "object",
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "predictions": {"type": "array", "items": prediction},
            },
            "required": ["model_name", "model_version", "id", "predictions"],
        }
    }
    table = {"text/csv": {"schema": {"type": "string", "description": "A header line with the columns' names"}}}
    return {
        "summary": "One answer for each row",
        "requestBody": {"required": True, "content": {"application/json": given, **table}},
        "responses": _answers({"application/json": said, **table}, *_ERRORS),
    }


def _value(datatype: Datatype, example: Any) -> Schema:
    if datatype.is_text:
        schema: Schema = {"type": ["string", "null"]}
    elif datatype.code == "?":
        schema = {"type": "boolean"}
    elif datatype.is_integer:
        limits = np.iinfo(str(datatype.array))
        schema = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    else:
        schema = {"type": ["number", "null"]}
        if (largest := _LARGEST.get(datatype.name)) is not None:
            schema |= {"minimum": -largest, "maximum": largest}
    return schema if example is None else {**schema, "examples": [example]}


def _tensor(names: list[str]) -> Schema:
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": names},
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "shape": {"type": "array", "minItems": 1, "maxItems": 8, "items": {"type": "integer", "minimum": 0}},
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "Flat in row-major order, or nested as the shape"},
        },
        "required": ["name", "datatype", "shape"],
    }


def _infer(signature: Signature, tensor: str) -> Schema:
    names = [spec.name for spec in signature.inputs] + list(signature.columns)
    request: Schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
            "inputs": {"type": "array", "minItems": 1, "items": _tensor(list(dict.fromkeys(names)))},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "enum": [spec.name for spec in signature.outputs]},
                        "parameters": {"type": "object"},
                    },
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"$ref": f"#/components/schemas/{tensor}"}},
        },
        "required": ["model_name", "model_version", "id", "outputs"],
    }
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "summary": "Infer (Open Inference Protocol v2)",
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": _answers({"application/json": {"schema": answer}, **binary}, *_ERRORS),
    }
