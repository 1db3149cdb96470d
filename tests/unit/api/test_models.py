"""The models refuse what the API server refuses, for objects that were stored before a rule existed."""

import pytest
from pydantic import ValidationError

from chart.specs import Case, cases
from slipway_operator.api import (
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    RetrainJobSpec,
    parse_duration,
)

MODELS: dict[str, type[ModelDeploymentSpec | RetrainJobSpec]] = {
    "ModelDeployment": ModelDeploymentSpec,
    "RetrainJob": RetrainJobSpec,
}


@pytest.mark.parametrize("case", [c for c in cases() if c.refused is None], ids=str)
def test_good_specs_are_read_and_written_back(case: Case) -> None:
    spec = MODELS[case.kind].model_validate(case.manifest["spec"])

    again = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert MODELS[case.kind].model_validate(again) == spec


@pytest.mark.parametrize("case", [c for c in cases() if c.refused is not None and not c.server_only], ids=str)
def test_bad_specs_are_refused(case: Case) -> None:
    with pytest.raises(ValidationError):
        MODELS[case.kind].model_validate(case.manifest["spec"])


def test_a_check_says_the_same_words_as_the_api_server() -> None:
    with pytest.raises(ValidationError, match="set exactly one of git, svn and package"):
        ModelDeploymentSpec.model_validate({"source": {}, "model": {"path": "a", "example": "a.csv"}})


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("10m", 600), ("1h30m", 5400), ("168h", 604800), ("1h0m1s", 3601), ("0s", 0)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "1d", "30m1h", "-1s", "1.5h", " 1s", "1s\n", "\uff11s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_status_of_another_release_is_read() -> None:
    status = ModelDeploymentStatus.model_validate(
        {"observedGeneration": 2, "mood": "good", "live": {"content": "3b1f", "colour": "blue"}}
    )

    assert status.live is not None
    assert status.to_wire()["live"] == {"content": "3b1f"}


def test_replicas_have_no_default() -> None:
    """With one the API server would reset what `kubectl scale` wrote."""
    spec = ModelDeploymentSpec.model_validate(
        {"source": {"git": {"url": "https://h/a"}}, "model": {"path": "a", "example": "a.csv"}}
    )

    assert spec.serving.replicas is None
    assert spec.source.git is not None
    assert spec.source.git.follow is None
