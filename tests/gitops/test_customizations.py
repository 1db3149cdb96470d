"""Health and actions as Argo CD itself computes them, over the test data that lies beside the Lua."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.customizations import SOURCE, EvaluationError, Evaluator

KINDS = sorted(path.parent for path in SOURCE.glob("*/*/health.lua"))


def listed(file: str, key: str) -> list[Any]:
    """Every test in the files that Argo CD's own test reads, with the folder that its paths start at."""
    found = []
    for kind in KINDS:
        path = kind / file
        for number, test in enumerate(yaml.safe_load(path.read_text())[key]):
            name = f"{kind.name}-{test.get('action', '')}-{Path(test['inputPath']).stem}-{number}"
            found.append(pytest.param(path.parent, test, id=name))
    return found


def without_time(value: Any) -> Any:
    """An object without the second that it was asked for in; what came before it in the id stays."""
    return json.loads(re.sub(r"(argocd-\d+)-\d+", r"\1-0", json.dumps(value)))


@pytest.mark.parametrize(("folder", "test"), listed("health_test.yaml", "tests"))
def test_health(evaluator: Evaluator, folder: Path, test: dict[str, Any]) -> None:
    expected = test["healthStatus"]

    assert evaluator.health(folder / test["inputPath"]) == (expected["status"], expected["message"])


@pytest.mark.parametrize(("folder", "test"), listed("actions/action_test.yaml", "discoveryTests"))
def test_which_actions_there_are_now(evaluator: Evaluator, folder: Path, test: dict[str, Any]) -> None:
    expected = {each["name"]: each["disabled"] for each in test["result"]}

    assert evaluator.actions(folder / test["inputPath"]) == expected


@pytest.mark.parametrize(("folder", "test"), listed("actions/action_test.yaml", "actionTests"))
def test_what_an_action_does(evaluator: Evaluator, folder: Path, test: dict[str, Any]) -> None:
    path, parameters = folder / test["inputPath"], test.get("parameters")
    if "expectedErrorMessage" in test:
        with pytest.raises(EvaluationError, match=re.escape(test["expectedErrorMessage"])):
            evaluator.run(path, test["action"], parameters)
        return

    result = evaluator.run(path, test["action"], parameters)

    assert without_time(result) == yaml.safe_load((folder / test["expectedOutputPath"]).read_text())


def test_a_kind_without_a_health_check_is_told_from_a_healthy_one(evaluator: Evaluator, tmp_path: Path) -> None:
    """The program ends with 0 in both cases: the other tests could not fail otherwise."""
    path = tmp_path / "other.yaml"
    path.write_text(json.dumps({"apiVersion": "slipway.dev/v1alpha1", "kind": "Other", "metadata": {"name": "a"}}))

    with pytest.raises(EvaluationError, match=r"not configured for 'slipway\.dev/Other'"):
        evaluator.health(path)


def test_the_id_of_an_action_is_one_that_slipway_takes(evaluator: Evaluator) -> None:
    path = KINDS[0] / "testdata" / "serving.yaml"

    value = evaluator.run(path, "rollback")["metadata"]["annotations"]["slipway.dev/rollback"]

    assert re.fullmatch(r"previous@[A-Za-z0-9._-]{1,63} .+", value)
