"""The data that Argo CD's customizations are tested with: objects as they really are, and none forgotten.

What Argo CD itself computes from them is in tests/gitops: its program takes minutes to build.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from slipway_operator.api import ModelDeploymentSpec, ModelDeploymentStatus, RetrainJobSpec, RetrainJobStatus

SOURCE = Path(__file__).resolve().parents[3] / "charts/slipway/files/argocd/resource_customizations/slipway.dev"
KINDS: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "ModelDeployment": (ModelDeploymentSpec, ModelDeploymentStatus),
    "RetrainJob": (RetrainJobSpec, RetrainJobStatus),
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(SOURCE.glob("**/testdata/*.yaml")), ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_the_objects_are_of_the_kinds_as_the_api_has_them(path: Path) -> None:
    found = read(path)
    spec, status = KINDS[found["kind"]]

    for model, fields in ((spec, found["spec"]), (status, found.get("status", {}))):
        read_back = model.model_validate(fields).model_dump(mode="json", by_alias=True, exclude_unset=True)
        # A status is read with what it does not know left out, so that a typing error shows only here.
        assert read_back == fields


@pytest.mark.parametrize("kind", KINDS)
def test_all_data_is_used_and_every_action_is_tested(kind: str) -> None:
    folder = SOURCE / kind
    actions, health = read(folder / "actions" / "action_test.yaml"), read(folder / "health_test.yaml")
    scripts = {path.parent.name for path in folder.glob("actions/*/action.lua")}

    assert {test["action"] for test in actions["actionTests"]} == scripts
    for test in actions["discoveryTests"]:
        assert {row["name"] for row in test["result"]} == scripts
    assert {folder / test["inputPath"] for test in health["tests"]} == set(folder.glob("testdata/*.yaml"))
    outputs = {folder / "actions" / test.get("expectedOutputPath", "") for test in actions["actionTests"]}
    assert set(folder.glob("actions/testdata/*.yaml")) <= outputs
