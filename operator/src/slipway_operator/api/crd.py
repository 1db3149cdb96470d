"""From the pydantic models to CustomResourceDefinitions.

A CRD wants a *structural* schema: no ``$ref``, no ``anyOf`` with null, no
``additionalProperties: false`` beside properties, no titles; defaults only
where a person would want to see them in the stored object.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from slipway_operator.api.common import GROUP, UNSEEN, VERSION
from slipway_operator.api.model_deployment import ModelDeploymentSpec
from slipway_operator.api.model_deployment_status import ModelDeploymentStatus
from slipway_operator.api.retrain_job import RetrainJobSpec, RetrainJobStatus
from slipway_operator.api.schema import INT_OR_STRING, VALIDATIONS

Schema = dict[str, Any]

_NAME_LENGTH = {
    "rule": "self.metadata.name.size() <= 45",
    "message": "metadata.name must have at most 45 characters: Jobs and Deployments are named after it",
    "messageExpression": "'metadata.name must have at most 45 characters, as Jobs are named after it: ' + "
    "self.metadata.name",
}
_NAME_FORM = {
    "rule": "self.metadata.name.matches(r'^[a-z]([a-z0-9-]*[a-z0-9])?$')",
    "message": "metadata.name must be lower-case letters, digits and '-', start with a letter and not end with '-': "
    "a Service is named after it",
}

_API_VERSION = (
    "Version of the schema that the object was written for. Example: slipway.dev/v1alpha1. "
    "More: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
)
_KIND = (
    "Kind of the object, in CamelCase. "
    "More: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
)


def structural_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The structural schema of a model; a status takes none below it, as only the operator writes it."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(document, document.get("$defs", {}), defaults=defaults)


def _structural(node: Schema, definitions: dict[str, Schema], *, defaults: bool) -> Schema:
    node = _without_indirection(node, definitions)
    result: Schema = {}
    if "type" in node and not node.get(INT_OR_STRING):
        result["type"] = node["type"]
    if "description" in node:
        result["description"] = " ".join(str(node["description"]).split())
    result |= {key: node[key] for key in _COPIED if key in node} | _bounds_beside(node)
    if "const" in node:
        result["enum"] = [node["const"]]
    if node.get("type") == "array":
        result.setdefault("x-kubernetes-list-type", "atomic")
        result["items"] = _described(_structural(node["items"], definitions, defaults=defaults), "One entry.")
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        result["additionalProperties"] = _described(
            _structural(extra, definitions, defaults=defaults), "The value of one name."
        )
    if "properties" in node:
        result["properties"] = {
            name: _structural(child, definitions, defaults=defaults) for name, child in node["properties"].items()
        }
    if defaults:
        _add_default(result, node)
        _say_default(result)
    _bound_keys(result, node)
    return result


_COPIED = (
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    INT_OR_STRING,
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    VALIDATIONS,
)


def _bounds_beside(node: Schema) -> Schema:
    """``exclusiveMinimum`` is a number in JSON Schema and a word on ``minimum`` in a CRD; its like are not used yet."""
    lost = {"exclusiveMaximum", "multipleOf"} & set(node)
    if lost:
        raise ValueError(f"a bound would be lost on the way to a CRD: {', '.join(sorted(lost))}")
    low = node.get("exclusiveMinimum")
    return {"minimum": low, "exclusiveMinimum": True} if low is not None else {}


def _described(schema: Schema, otherwise: str) -> Schema:
    """Every node has a description; items and map values may have a plain one."""
    schema.setdefault("description", otherwise)
    return schema


def _without_indirection(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Put the referenced (or only non-null) schema in the node's place; what stands beside it wins, rules add up."""
    while "$ref" in node or "anyOf" in node:
        beside = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in node:
            inner = definitions[str(node["$ref"]).rsplit("/", 1)[-1]]
        else:
            choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"a structural schema knows no choice of types: {choices}")
            inner = choices[0]
        rules = [*inner.get(VALIDATIONS, []), *beside.get(VALIDATIONS, [])]
        node = {**inner, **beside}
        if rules:
            node[VALIDATIONS] = rules
    return node


def _add_default(result: Schema, node: Schema) -> None:
    """Scalars and filled lists as they are; objects with all that is set by default below them."""
    if result.get("type") == "object":
        # An object with required fields below it is never made up, nor one that is off unless asked for.
        if node.get("default") is None or result.get("required"):
            return
        # Whole, not `{}`: the API server evaluates an object's rules on its default as it stands.
        below = {name: child["default"] for name, child in result.get("properties", {}).items() if "default" in child}
        if below:
            result["default"] = below
    elif node.get("default") not in (None, [], {}):
        result["default"] = node["default"]


def _say_default(result: Schema) -> None:
    """`kubectl explain` does not show defaults: let the sentence say it."""
    if "default" in result and result.get("type") != "object" and "Default" not in result.get("description", ""):
        value = result["default"]
        text = "[" + ", ".join(value) + "]" if isinstance(value, list) else _as_text(value)
        result["description"] = f"{result['description']} Default: {text}."


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:f}".rstrip("0").rstrip(".")
    return repr(value) if value in {"", "."} else str(value)


def _bound_keys(result: Schema, node: Schema) -> None:
    """A structural schema has no ``propertyNames``: bound a map's keys by a rule."""
    limit = node.get("propertyNames", {}).get("maxLength")
    if limit is not None:
        rule = {
            "rule": f"self.all(name, name.size() <= {limit})",
            "message": f"a name must have at most {limit} characters",
        }
        result[VALIDATIONS] = [*result.get(VALIDATIONS, []), rule]


def _column(name: str, path: str, description: str, **more: Any) -> Schema:
    return {"name": name, "type": "string", "jsonPath": path, "description": description, **more}


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


def _names(kind: str, short_names: list[str]) -> Schema:
    return {
        "kind": kind,
        "listKind": f"{kind}List",
        "singular": kind.lower(),
        "plural": f"{kind.lower()}s",
        "shortNames": short_names,
        "categories": ["slipway", "all"],
    }


_AGE: Schema = {
    "name": "Age",
    "type": "date",
    "jsonPath": ".metadata.creationTimestamp",
    "description": "How old the object is.",
}


def _definition(names: Schema, schema: Schema, columns: list[Schema], subresources: Schema) -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }


def _root(description: str, spec: type[BaseModel], status: type[BaseModel]) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": _API_VERSION},
            "kind": {"type": "string", "description": _KIND},
            # Bounded, so that the rules on the name have a cost that the API server can know.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": structural_schema(spec, defaults=True),
            # kstatus, and with it `helm install --wait`, takes an object without a status for one that is ready.
            "status": structural_schema(status, defaults=False) | {"default": {"observedGeneration": UNSEEN}},
        },
        VALIDATIONS: [_NAME_LENGTH, _NAME_FORM],
    }


def model_deployment_crd() -> Schema:
    """The CRD of ModelDeployment."""
    columns = [
        _column("Ready", _condition("Ready"), "Whether what was asked for is live."),
        _column("Status", ".status.summary", "Where it stands."),
        {
            "name": "Revision",
            "type": "integer",
            "jsonPath": ".status.live.revision",
            "description": "Number of the log entry that is live.",
        },
        _column("Content", ".status.live.content", "Short digest of the content that is live."),
        _column("Commit", ".status.live.commit", "The source that it was made from."),
        {
            "name": "Replicas",
            "type": "integer",
            "jsonPath": ".status.readyReplicas",
            "description": "Pods that answer.",
        },
        _AGE,
        _column("URL", ".status.url", "Where predictions are answered.", priority=1),
        _column("Ref", ".status.source.ref", "The ref or revision that was resolved.", priority=1),
        _column("Available", _condition("Available"), "Whether predictions are answered now.", priority=1),
    ]
    subresources = {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.serving.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    schema = _root(
        "ModelDeployment takes a data-science project from its source to answered predictions: it packages the code, "
        "builds its environment, trains and exports the model, proves the export equal, and serves it.",
        ModelDeploymentSpec,
        ModelDeploymentStatus,
    )
    return _definition(_names("ModelDeployment", ["md", "mdep"]), schema, columns, subresources)


def retrain_job_crd() -> Schema:
    """The CRD of RetrainJob."""
    columns = [
        _column("Ready", _condition("Ready"), "Whether the schedule is in force."),
        _column("Status", ".status.summary", "Where it stands."),
        _column("Model", ".spec.modelDeployment", "The ModelDeployment that is retrained."),
        _column("Schedule", ".spec.schedule", "When it is retrained."),
        {
            "name": "Suspended",
            "type": "boolean",
            "jsonPath": ".spec.suspend",
            "description": "Whether new runs are held.",
        },
        _AGE,
        _column("Time Zone", ".spec.timeZone", "Time zone of the schedule.", priority=1),
        _column("Approval", ".spec.approval.mode", "Who decides on a candidate.", priority=1),
    ]
    schema = _root(
        "RetrainJob trains a candidate of a ModelDeployment's model by schedule, compares it with the model that is "
        "live, and puts it live after an approval. This release stores and checks it and runs nothing yet.",
        RetrainJobSpec,
        RetrainJobStatus,
    )
    return _definition(_names("RetrainJob", ["rj", "retrain"]), schema, columns, {"status": {}})


def all_crds() -> dict[str, Schema]:
    """File name → CRD, of both kinds."""
    return {
        f"{GROUP}_modeldeployments.yaml": model_deployment_crd(),
        f"{GROUP}_retrainjobs.yaml": retrain_job_crd(),
    }
