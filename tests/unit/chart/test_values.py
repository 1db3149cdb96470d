"""Values, their schema and the operator's settings belong together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from slipway_operator.api import Traces
from slipway_operator.domain.settings import (
    CleanUpSettings,
    JobSettings,
    LogSettings,
    ProxySettings,
    RollbackSettings,
    ServingSettings,
    Settings,
)

CHART = Path(__file__).resolve().parents[3] / "charts" / "slipway"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

OPEN = {"affinity", "global", "tolerations[]", "networkPolicy.metricsFrom[]", "serving.metricsFrom[]"}
"""Objects of Kubernetes' own: its API server checks them."""


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object":
        yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from objects(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")


def test_the_schema_refuses_what_it_does_not_know() -> None:
    for path, schema in objects(SCHEMA):
        if path not in OPEN:
            assert schema.get("additionalProperties", True) is not True, path


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        known = set(schema["properties"]) - {"global"}
        assert set(values) == known, path
        for name, value in values.items():
            child = schema["properties"][name]
            if isinstance(value, dict) and "properties" in child and value:
                compare(value, child, f"{path}.{name}")

    compare(VALUES, SCHEMA, "values")


def test_every_value_says_what_it_is() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    undescribed = {"resources", "nodeSelector", "tolerations", "affinity", "priorityClassName", "podAnnotations"}
    undescribed |= {"podLabels", "crds", "rbac", "argocd", "admissionPolicies", "serviceAccount", "networkPolicy"}
    for number, line in enumerate(lines):
        name = line.split(":")[0]
        if name in VALUES and name not in undescribed:
            assert lines[number - 1].startswith("#"), name


@pytest.mark.parametrize(
    ("model", "key"),
    [
        (JobSettings, "jobs"),
        (ProxySettings, "proxy"),
        (RollbackSettings, "rollback"),
        (CleanUpSettings, "cleanUp"),
        (LogSettings, "log"),
        (ServingSettings, "serving"),
    ],
)
def test_what_the_chart_offers_is_what_the_operator_reads(model: type[BaseModel], key: str) -> None:
    assert set(VALUES[key]) == {field.alias for field in model.model_fields.values()}


def test_the_defaults_of_chart_and_operator_are_equal() -> None:
    assert JobSettings.model_validate(VALUES["jobs"]) == JobSettings()
    assert RollbackSettings.model_validate(VALUES["rollback"]) == RollbackSettings()
    assert CleanUpSettings.model_validate(VALUES["cleanUp"]) == CleanUpSettings()
    # An empty endpoint is the chart's way to say none: the template leaves traces out then.
    assert ServingSettings.model_validate({**VALUES["serving"], "traces": None}) == ServingSettings()
    assert VALUES["serving"]["traces"]["ratio"] == Traces.model_fields["ratio"].default


def test_every_setting_is_in_the_template() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    for field in Settings.model_fields.values():
        assert f'"{field.alias}"' in helpers, field.alias


def test_no_rule_has_a_wildcard_or_a_secret() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    rules = yaml.safe_load(helpers.split('define "slipway.rules" -}}')[1].split("{{- end -}}")[0])
    for rule in rules:
        assert not {"*", "secrets"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        if rule["apiGroups"] == ["slipway.dev"]:
            writes = set(rule["verbs"]) - {"get", "list", "watch"}
            assert not writes or all(name.endswith("/status") for name in rule["resources"])
