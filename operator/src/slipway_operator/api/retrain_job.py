"""The kind RetrainJob: a schedule, a candidate, gates and an approval.

This release stores and checks it; what acts on it comes with a later one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slipway_operator.api.common import UNSEEN, Command, Condition
from slipway_operator.api.schema import SpecModel, StatusModel, duration, matches, unchangeable

_CRON = matches(
    r"(@(yearly|annually|monthly|weekly|daily|hourly)|[0-9*/,A-Za-z?#L-]+( +[0-9*/,A-Za-z?#L-]+){4})",
    'must be five cron fields such as "0 3 * * 1", or @weekly and the like',
)
_MODEL_NAME = matches(
    r"[a-z]([a-z0-9-]*[a-z0-9])?", "must be the name of a ModelDeployment: lower-case letters, digits and '-'"
)


class Training(SpecModel):
    """How a candidate is trained."""

    command: Command | None = Field(
        default=None,
        description="Program and arguments, run in the project's directory by no shell. "
        "Default: that of the ModelDeployment. Example: [python, -m, flight_delay.train].",
    )
    timeout: Annotated[str, *duration("1s", "168h")] = Field(
        default="1h", description="After this time the training is stopped and has failed. From 1s to 168h."
    )


class Metric(SpecModel):
    """A gate on one number."""

    name: Annotated[str, matches(r"[A-Za-z_][A-Za-z0-9_.-]*", "must be letters, digits, '_', '.' and '-'")] = Field(
        min_length=1, max_length=128, description="Name of the number that the validation writes. Example: roc_auc."
    )
    minimum: float | None = Field(default=None, description="The candidate must reach it. Example: 0.7.")
    max_regression: float | None = Field(
        default=None,
        ge=0,
        description="How much lower than the champion's the candidate's may be. Example: 0.005.",
    )


class Validation(SpecModel):
    """How champion and candidate are compared."""

    command: Command | None = Field(
        default=None,
        description="Program and arguments that score a model on the holdout, run by no shell. "
        "Default: the built-in scorer. Example: [python, -m, flight_delay.evaluate].",
    )
    metrics: tuple[Metric, ...] = Field(
        default=(),
        max_length=32,
        description="Gates that the candidate must pass.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class Approval(SpecModel):
    """Who decides on a candidate that passed the gates."""

    mode: Literal["Manual", "Automatic"] = Field(
        default="Manual",
        description="Manual: a person with the right to approve it does. Automatic: passing the gates is enough.",
    )
    expires_after: Annotated[str, *duration("1m", "8760h")] = Field(
        default="168h", description="After this time a candidate that nobody approved is dropped. From 1m to 8760h."
    )


class RetrainJobSpec(SpecModel):
    """What you want: which model to retrain, when, what a candidate must reach, and who approves it."""

    model_deployment: Annotated[str, _MODEL_NAME, unchangeable("modelDeployment")] = Field(
        min_length=1,
        max_length=45,
        description="The ModelDeployment of this namespace to retrain. It cannot be changed later. "
        "Example: flight-delay.",
    )
    schedule: Annotated[str, _CRON] = Field(
        min_length=1,
        max_length=128,
        description='When to retrain: five cron fields (minute, hour, day, month, weekday). Example: "0 3 * * 1".',
    )
    time_zone: Annotated[
        str,
        matches(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", "must be an IANA name such as Europe/Paris"),
    ] = Field(
        default="Etc/UTC", min_length=1, max_length=64, description="Time zone of the schedule. Example: Europe/Paris."
    )
    training: Training = Field(default=Training(), description="How a candidate is trained.")
    validation: Validation = Field(
        default=Validation(), description="How champion and candidate are compared on the same holdout."
    )
    approval: Approval = Field(default=Approval(), description="Who decides on a candidate that passed the gates.")
    suspend: bool = Field(default=False, description="True: no new run starts; a run that has started goes on.")


class RetrainJobStatus(StatusModel):
    """What the operator saw and did."""

    observed_generation: int | None = Field(
        default=None,
        ge=UNSEEN,
        description="The metadata.generation that this status was computed from; -1 before anybody has looked.",
    )
    summary: str | None = Field(
        default=None, max_length=1024, description="Where it stands, in one line, as kubectl get shows it."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready, Reconciling and Stalled (by kstatus), and AwaitingApproval.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
