"""The generated CRDs are structural, described, bounded, and use only what Kubernetes 1.30 has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from slipway_operator.api.__main__ import CRD_DIRECTORIES, generated
from slipway_operator.api.crd import all_crds, structural_schema

ROOT = Path(__file__).resolve().parents[3]

# Functions and macros of CEL in Kubernetes 1.30, of those that rules here use. Newer libraries (ip and cidr: 1.31,
# format: 1.32, semver: 1.34) would make an API server of 1.30 refuse the whole CRD.
CEL_OF_1_30 = {
    "all",
    "compareTo",
    "contains",
    "duration",
    "endsWith",
    "exists",
    "has",
    "map",
    "matches",
    "quantity",
    "size",
    "split",
    "startsWith",
    "string",
    "sum",
}


# https://kubernetes.io/docs/reference/using-api/cel/#escaping
CEL_RESERVED = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + mark)


def all_nodes() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for crd in all_crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        found += list(nodes(schema, crd["spec"]["names"]["kind"]))
    return found


def is_metadata(path: str) -> bool:
    return bool(re.fullmatch(r"\w+\.metadata(\.name)?", path))


def test_every_field_is_described_in_a_sentence() -> None:
    bad = [
        path
        for path, node in all_nodes()
        if not is_metadata(path) and not re.fullmatch(r"[A-Z].{8,}[.]|[A-Z].*https://\S+", node.get("description", ""))
    ]

    assert bad == []


def test_no_field_is_described_by_its_class() -> None:
    """A class docstring where a field's sentence belongs says nothing about the field."""
    assert [path for path, node in all_nodes() if "Base of" in node.get("description", "")] == []


def test_the_schema_is_structural() -> None:
    allowed = {
        "type", "description", "properties", "items", "additionalProperties", "required", "enum", "default", "format",
        "pattern", "minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
        "maxProperties", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    }  # fmt: skip
    for path, node in all_nodes():
        assert set(node) <= allowed, path
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")), path


def test_a_bound_is_never_lost_on_the_way() -> None:
    """What pydantic refuses and the API server takes is stored, and then nothing of that object is acted on."""

    class Above(BaseModel):
        share: float = Field(gt=0, le=1)

    class Below(BaseModel):
        share: float = Field(lt=1)

    share = structural_schema(Above, defaults=True)["properties"]["share"]
    assert (share["minimum"], share["exclusiveMinimum"], share["maximum"]) == (0, True, 1)
    with pytest.raises(ValueError, match="exclusiveMaximum"):
        structural_schema(Below, defaults=True)


def test_everything_is_bounded() -> None:
    """Without bounds the API server cannot know what a rule costs, and one object could fill etcd."""
    for path, node in all_nodes():
        if is_metadata(path) or path.count(".") < 2:
            continue
        kind = node.get("type")
        if kind == "string" and "enum" not in node and node.get("format") != "date-time":
            assert "maxLength" in node, path
        if kind == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def rules() -> list[tuple[str, str]]:
    return [
        (path, rule.get(key, ""))
        for path, node in all_nodes()
        for rule in node.get("x-kubernetes-validations", ())
        for key in ("rule", "messageExpression")
    ]


def test_rules_use_only_what_kubernetes_1_30_has() -> None:
    for path, rule in rules():
        code = re.sub(r"r?'(?:[^'\\]|\\.)*'", "''", re.sub(r"r'[^']*'", "''", rule))
        called = set(re.findall(r"([A-Za-z_]+)\(", code))
        assert called <= CEL_OF_1_30, f"{path}: {called - CEL_OF_1_30}"
        assert "optionalOldSelf" not in rule


def test_no_rule_names_a_field_by_a_word_that_cel_reserves() -> None:
    """Such a field is ``self.__function__`` there; as it is written elsewhere, no API server takes the CRD."""
    for path, rule in rules():
        names = set(re.findall(r"\.([A-Za-z_]+)\b(?!\()", re.sub(r"'(?:[^'\\]|\\.)*'", "''", rule)))
        assert not names & CEL_RESERVED, f"{path}: {rule}"


def test_every_rule_has_a_message_for_people() -> None:
    for path, node in all_nodes():
        for rule in node.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) > 15, path


def test_defaults() -> None:
    found = {path: node["default"] for path, node in all_nodes() if "default" in node}

    assert {path: default for path, default in found.items() if ".status" in path} == {
        f"{kind}.status": {"observedGeneration": -1} for kind in ("ModelDeployment", "RetrainJob")
    }, "an object that nobody has looked at is not ready by kstatus, and nothing else is made up"
    assert "ModelDeployment.spec.serving" not in found
    assert "ModelDeployment.spec.serving.replicas" not in found
    assert "ModelDeployment.spec.source.git.follow" not in found, "what is off unless asked for has no default"
    assert found["ModelDeployment.spec.environment"] == {"language": "python", "isolation": "Project"}
    assert found["ModelDeployment.spec.export"]["parity"] == {"maxAbsoluteDifference": 1e-05, "maxLabelFlips": 0}


def test_kubectl_explain_says_every_default() -> None:
    for path, node in all_nodes():
        if "default" in node and node.get("type") != "object":
            assert "Default: " in node["description"], path


@pytest.mark.parametrize("crd", all_crds().values(), ids=lambda crd: crd["spec"]["names"]["kind"])
def test_kubectl_finds_its_way(crd: dict[str, Any]) -> None:
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]

    assert names["categories"] == ["slipway", "all"]
    assert names["shortNames"]
    assert "status" in version["subresources"]
    columns = version["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")][:2] == ["Ready", "Status"]
    assert [c for c in columns if c.get("priority") == 1]


def test_lists_are_keyed_so_that_several_managers_can_write() -> None:
    keyed = {
        path: node["x-kubernetes-list-map-keys"] for path, node in all_nodes() if "x-kubernetes-list-map-keys" in node
    }

    assert keyed == {
        "ModelDeployment.spec.model.train.env": ["name"],
        "ModelDeployment.status.steps": ["name"],
        "ModelDeployment.status.requests": ["verb"],
        "ModelDeployment.status.conditions": ["type"],
        "RetrainJob.spec.validation.metrics": ["name"],
        "RetrainJob.status.conditions": ["type"],
    }


def test_a_list_of_rules_adds_up() -> None:
    """`example` is a relative file with a suffix: one check must not replace the others."""
    example = dict(all_nodes())["ModelDeployment.spec.model.example"]

    assert len(example["x-kubernetes-validations"]) == 4


def test_what_is_committed_is_what_is_generated() -> None:
    for path, text in generated(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)}: run `make crds`"


def test_the_chart_carries_the_same_crds() -> None:
    ours, charts = ({p.name: p.read_bytes() for p in (ROOT / d).glob("*.yaml")} for d in CRD_DIRECTORIES)

    assert ours == charts
    assert {yaml.safe_load(text)["kind"] for text in ours.values()} == {"CustomResourceDefinition"}
