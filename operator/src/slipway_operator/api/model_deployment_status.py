"""The status of the kind ModelDeployment: what the operator saw and did.

The descriptions are the API's documentation: `kubectl explain` and
docs/spec/modeldeployment.md show them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from slipway_operator.api.common import UNSEEN, Condition, Timestamp
from slipway_operator.api.schema import StatusModel

StepName = Literal["Resolve", "Build", "Train", "Export", "Rollout"]
StepState = Literal["Pending", "Running", "Waiting", "Succeeded", "Failed", "Skipped"]


class SourceStatus(StatusModel):
    """What the source was resolved to."""

    commit: str | None = Field(
        default=None,
        max_length=512,
        description="The exact commit, r<revision> of Subversion, or the package's digest.",
    )
    ref: str | None = Field(default=None, max_length=255, description="The ref or revision that was resolved.")
    resolved_at: Timestamp | None = Field(default=None, description="When it was resolved (UTC).")
    package: str | None = Field(default=None, max_length=512, description="Digest of the package made of it.")


class StepStatus(StatusModel):
    """One step of the way from source to predictions."""

    name: StepName = Field(
        description="The step: Resolve (where the source is followed), Build, Train, Export or Rollout."
    )
    state: StepState = Field(
        default="Pending",
        description="How far it is. Waiting passes by itself; Failed needs a change; Skipped is not asked for.",
    )
    key: str | None = Field(
        default=None, max_length=64, description="Digest of all that the step depends on; nothing is made twice."
    )
    started_at: Timestamp | None = Field(default=None, description="When it started (UTC).")
    finished_at: Timestamp | None = Field(default=None, description="When it ended (UTC).")
    message: str | None = Field(
        default=None, max_length=4096, description="What it does now, or why it failed and what to change."
    )
    job: str | None = Field(
        default=None, max_length=253, description="The Job that does it: kubectl logs job/<this> shows its output."
    )


class TrainingStatus(StatusModel):
    """The training of the newest content."""

    seconds: float | None = Field(default=None, ge=0, description="How long it took, in seconds.")
    metrics: dict[str, float] = Field(
        default_factory=dict, max_length=32, description="Numbers that the training wrote, by name."
    )


class ExportStatus(StatusModel):
    """The comparison of the exported model with the original on the example rows."""

    rows: int | None = Field(default=None, ge=0, description="How many rows were compared.")
    max_absolute_difference: float | None = Field(
        default=None, ge=0, description="The largest difference of any number of any answer."
    )
    label_flips: int | None = Field(default=None, ge=0, description="How many rows got another label.")
    engine: Literal["onnx", "worker"] | None = Field(
        default=None,
        description="What answers: onnx, or worker, which is the model itself in the project's environment.",
    )
    why: str | None = Field(default=None, max_length=1024, description="Why it is not ONNX, where it is not.")


class LiveStatus(StatusModel):
    """What answers predictions now."""

    content: str | None = Field(
        default=None, max_length=64, description="Short digest of the content; answers carry it as model_version."
    )
    revision: int | None = Field(default=None, ge=0, description="Number of the log entry that put it live.")
    since: Timestamp | None = Field(default=None, description="Since when it is live (UTC).")
    commit: str | None = Field(default=None, max_length=512, description="The source that it was made from.")


class StandbyStatus(StatusModel):
    """The content that is kept warm for a way back."""

    content: str | None = Field(default=None, max_length=64, description="Short digest of the content.")
    revision: int | None = Field(default=None, ge=0, description="Number of the newest log entry that names it.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Its pods that could answer now.")


class HeldStatus(StatusModel):
    """A content that was rolled back or given up, and does not go live again by itself."""

    content: str = Field(max_length=64, description="Short digest of the content.")
    revision: int | None = Field(default=None, ge=0, description="Number of the log entry that holds it.")
    since: Timestamp | None = Field(default=None, description="Since when it is held (UTC).")
    why: str | None = Field(default=None, max_length=1024, description="Why, in the words of whoever asked for it.")


class RolloutStatus(StatusModel):
    """A new content on its way to traffic."""

    content: str = Field(max_length=64, description="Short digest of the content.")
    state: Literal["RollingOut", "Canary", "Paused"] = Field(
        description="RollingOut: its pods start. Canary: it answers its share. Paused: it goes no further for now."
    )
    pods: int | None = Field(default=None, ge=0, description="Its pods that answer requests now.")
    of: int | None = Field(default=None, ge=0, description="All pods that answer requests now: its share is pods/of.")
    since: Timestamp | None = Field(default=None, description="Since when it answers (UTC).")
    requests: int | None = Field(default=None, ge=0, description="Predictions that its pods have answered.")
    error_rate: float | None = Field(default=None, ge=0, description="Share of them answered with a 5xx status.")
    refusal_rate: float | None = Field(
        default=None,
        ge=0,
        description="Share of them that the model could not compute for the values sent; absent where there is none.",
    )
    p99_latency_millis: float | None = Field(
        default=None,
        ge=0,
        alias="p99LatencyMillis",
        description="The 99th percentile of the time to an answer, in milliseconds.",
    )


class RequestStatus(StatusModel):
    """What became of a request for a rollback, resume, promotion or abort: the newest of each verb."""

    verb: Literal["Rollback", "Resume", "Promote", "Abort", "RollbackTo"] = Field(
        description="What was asked for, by the annotation of that name; RollbackTo: by spec.rollbackTo."
    )
    id: str = Field(max_length=63, description="Id of the request; the log entry that answers it carries it.")
    state: Literal["Pending", "Done", "Refused"] = Field(
        description="Pending: on its way. Done: the log has it. Refused: it cannot be done; message says why."
    )
    message: str | None = Field(default=None, max_length=1024, description="What was done, or why not.")
    at: Timestamp | None = Field(default=None, description="When it was answered (UTC).")
    target: str | None = Field(
        default=None,
        max_length=63,
        description="While it is pending, what it means: a revision, or a content's short digest. "
        "It is done though its annotation is removed.",
    )
    why: str | None = Field(default=None, max_length=1024, description="While it is pending: why, as its author says.")
    who: str | None = Field(default=None, max_length=1024, description="While it is pending: who asked.")
    who_by: Literal["Admission", "FieldManager", "Nobody"] | None = Field(
        default=None, description="While it is pending: how it is known who asked."
    )


class ModelDeploymentStatus(StatusModel):
    """What the operator saw and did; everything in it can be rebuilt from the cluster and the log."""

    observed_generation: int | None = Field(
        default=None,
        ge=UNSEEN,
        description="The metadata.generation that this status was computed from; -1 before anybody has looked.",
    )
    summary: str | None = Field(
        default=None, max_length=1024, description="Where it stands, in one line, as kubectl get shows it."
    )
    url: str | None = Field(
        default=None,
        max_length=512,
        description="Where predictions are answered inside the cluster (Open Inference Protocol v2).",
    )
    retry_of: str | None = Field(
        default=None,
        max_length=1024,
        description="The value of the annotation slipway.dev/retry that was acted on last.",
    )
    source: SourceStatus | None = Field(default=None, description="What the source was resolved to.")
    steps: tuple[StepStatus, ...] = Field(
        default=(),
        max_length=8,
        description="The steps of the way, in order, always the whole way.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    training: TrainingStatus | None = Field(default=None, description="The training of the newest content.")
    export: ExportStatus | None = Field(
        default=None, description="The comparison of the exported model with the original."
    )
    live: LiveStatus | None = Field(default=None, description="What answers predictions now.")
    standby: StandbyStatus | None = Field(default=None, description="What is kept warm for a way back.")
    held: tuple[HeldStatus, ...] | None = Field(
        default=None, max_length=16, description="What was rolled back or given up, the newest first."
    )
    rollout: RolloutStatus | None = Field(default=None, description="A new content on its way to traffic.")
    requests: tuple[RequestStatus, ...] | None = Field(
        default=None,
        max_length=8,
        description="What became of the newest request of each verb.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["verb"]},
    )
    replicas: int | None = Field(default=None, ge=0, description="Pods of the live content.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Pods of the live content that answer.")
    selector: str | None = Field(
        default=None, max_length=1024, description="Label selector of the live content's pods, for autoscalers."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready, Reconciling, Stalled (by kstatus); Available: predictions are answered now; RollbackReady: "
        "the content before could take over now; LogIntact: the log's entries follow from each other; "
        "ServedNatively: the model itself answers, as it cannot be ONNX.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
