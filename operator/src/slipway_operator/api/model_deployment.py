"""The spec of the kind ModelDeployment: from a source to answered predictions; its status is next door.

The descriptions are the API's documentation: `kubectl explain` and
docs/spec/modeldeployment.md show them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slipway_operator.api.common import Command, EnvVar, Resources
from slipway_operator.api.schema import (
    Argument,
    Check,
    RelativeFile,
    SpecModel,
    duration,
    matches,
    unchangeable,
)
from slipway_operator.api.serving import Serving
from slipway_operator.api.source import Source

DEFAULT_LOCK_FILE = "uv.lock"

REQUEST_ID = matches(r"[A-Za-z0-9._-]{1,63}", "must be 1 to 63 letters, digits, '.', '_' and '-'")
EXAMPLE_SUFFIX = Check(
    "self.endsWith('.csv') || self.endsWith('.parquet') || self.endsWith('.npy')",
    "must be a .csv, .parquet or .npy file",
    lambda path: path.endswith((".csv", ".parquet", ".npy")),
)


class PackageListRef(SpecModel):
    """One version of a package list that the platform publishes."""

    name: Annotated[str, matches(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "must be lower-case letters, digits and '-'")] = (
        Field(min_length=1, max_length=63, description="Name of the list. Example: default.")
    )
    version: Annotated[
        str,
        matches(r"[A-Za-z0-9][A-Za-z0-9._-]*", "must be letters, digits, '.', '_' and '-'"),
    ] = Field(min_length=1, max_length=63, description='Version of the list, quoted in YAML. Example: "2026.11".')


class Environment(SpecModel):
    """What the project's code runs in."""

    checks = (
        Check(
            "(self.isolation == 'Common') == has(self.packageList)",
            "packageList goes with isolation Common: set both or neither",
            lambda here: (here.isolation == "Common") == (here.package_list is not None),
        ),
        Check(
            "self.isolation == 'Project' || !has(self.lockFile)",
            "lockFile goes with isolation Project only: with Common the platform's package list decides",
            lambda here: here.isolation == "Project" or here.lock_file is None,
        ),
    )

    language: Annotated[Literal["python"], unchangeable("language")] = Field(
        default="python",
        description="Language of the project. It cannot be changed later.",
    )
    python: Annotated[str, matches(r"3\.[0-9]{1,2}", 'must be a version such as "3.11"')] | None = Field(
        default=None,
        max_length=8,
        description="Version of the interpreter, quoted in YAML; one of those that the platform offers. "
        'Default: the platform\'s first. Example: "3.11".',
    )
    isolation: Literal["Project", "Common"] = Field(
        default="Project",
        description="Project: packages from the project's own lock file. "
        "Common: packages from a list that the platform publishes.",
    )
    lock_file: RelativeFile | None = Field(
        default=None,
        description="Lock file in the project: uv.lock, pylock.toml, or a requirements.txt with hashes. "
        "Only with isolation Project. Default: uv.lock.",
    )
    package_list: PackageListRef | None = Field(
        default=None, description="The platform's package list. Always and only with isolation Common."
    )

    @property
    def effective_lock_file(self) -> str:
        """The lock file with its default; the schema has none, as it would not fit ``Common``."""
        return self.lock_file or DEFAULT_LOCK_FILE


class Train(SpecModel):
    """How the model is trained."""

    checks = (
        # One argument list in one environment variable of the Job: Linux takes 128 KiB at most.
        Check(
            "self.command.map(text, text.size()).sum() + "
            "(has(self.args) ? self.args.map(text, text.size()).sum() : 0) <= 32768",
            "command and args must have at most 32768 characters together",
            lambda train: sum(map(len, (*train.command, *train.args))) <= 32768,
        ),
    )

    command: Command = Field(
        description="Program and arguments, run in the project's directory by no shell. "
        "Example: [python, -m, flight_delay.train].",
    )
    args: tuple[Argument, ...] = Field(
        default=(), max_length=64, description="More arguments, after those of command. Example: [--trees, '200']."
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=64,
        description="Environment variables.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU, memory and other resources of the training container. Default: the platform's.",
    )
    timeout: Annotated[str, *duration("1s", "168h")] = Field(
        default="1h", description="After this time the training is stopped and has failed. From 1s to 168h."
    )
    metrics: RelativeFile | None = Field(
        default=None,
        description="JSON file that the training writes, an object of numbers; the first ten are shown in status. "
        "Example: metrics.json.",
    )


class Model(SpecModel):
    """The model and the rows that prove it."""

    train: Train | None = Field(
        default=None, description="How to train the model. Without it, path is a file of the source."
    )
    path: RelativeFile = Field(
        description="The model file, relative to the project: what the training writes, or what the source holds. "
        "Example: model.joblib.",
    )
    example: Annotated[RelativeFile, EXAMPLE_SUFFIX] = Field(
        description="Rows as the model takes them (.csv, .parquet or .npy), relative to the project. They give the "
        "signature, the comparison with the exported model, and the rows that a server must answer before it is Ready. "
        "Example: data/sample.csv.",
    )


class Parity(SpecModel):
    """How much the exported model may differ from the original on the example rows."""

    max_absolute_difference: float = Field(
        default=1e-5,
        ge=0,
        le=1,
        description="Largest difference of any number of any answer. From 0 to 1. Example: 0.00001.",
    )
    max_label_flips: int = Field(
        default=0, ge=0, le=1_000_000, description="Rows that may get another label. Example: 0."
    )


FUNCTION = matches(
    r"[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*",
    "must be a module and a function of the project, such as flights.answers:predict",
)


class Export(SpecModel):
    """How the model is converted to what is served."""

    checks = (
        Check(
            "!has(self.__function__) || self.onFailure == 'ServeNative'",  # a word that CEL reserves
            "function goes with onFailure ServeNative: no function of a project can be ONNX",
            lambda export: export.function is None or export.on_failure == "ServeNative",
        ),
    )

    formats: tuple[Literal["onnx"], ...] = Field(
        default=("onnx",),
        min_length=1,
        max_length=1,
        description="What to convert to; onnx is what is served.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    parity: Parity = Field(
        default=Parity(), description="How much the exported model may differ from the original on the example rows."
    )
    on_failure: Literal["Block", "ServeNative"] = Field(
        default="Block",
        description="What happens with a model that cannot be converted or is not equal. "
        "Block: it does not go live, and what is live stays. ServeNative: the model itself answers, in a container of "
        "its own in the project's environment; slower, and larger (spec.serving.native).",
    )
    function: Annotated[str, FUNCTION] | None = Field(
        default=None,
        min_length=3,
        max_length=253,
        description="Function of the project that answers instead of the model's own methods, with onFailure "
        "ServeNative. It takes a DataFrame and gives one answer a row, or several by name; a parameter called model "
        "gets the loaded model. Example: flights.answers:predict.",
    )
    timeout: Annotated[str, *duration("1s", "24h")] = Field(
        default="15m", description="After this time the conversion is stopped and has failed. From 1s to 24h."
    )


class Standby(SpecModel):
    """What is kept warm for a way back."""

    full_for: Annotated[str, *duration("0s", "168h")] = Field(
        default="10m",
        description="How long the content that was live before keeps all its pods after a switch; after that it keeps "
        "one. From 0s to 168h.",
    )


class Canary(SpecModel):
    """A few pods of the new content among those of the live one, for a time."""

    pods: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Pods of the new content beside the live ones; its share of the requests is its share of the pods. "
        "From 1 to 100.",
    )
    for_: Annotated[str, *duration("0s", "168h")] = Field(
        default="10m",
        alias="for",
        description="How long the canary must answer before the new content goes live. From 0s to 168h.",
    )


class RollBackOn(SpecModel):
    """Limits on a new content, measured from its own pods. Passing one ends a canary, or rolls back what is live."""

    checks = (
        Check(
            "has(self.errorRate) || has(self.refusalRate) || has(self.p99LatencyMillis) || has(self.failedProbes)",
            "set at least one of errorRate, refusalRate, p99LatencyMillis and failedProbes",
            lambda limits: (
                limits.error_rate is not None
                or limits.refusal_rate is not None
                or limits.p99_latency_millis is not None
                or limits.failed_probes is not None
            ),
        ),
    )

    error_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest share of predictions answered with a 5xx status. From 0 to 1. Example: 0.01.",
    )
    refusal_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest share of well-formed predictions that the model itself cannot compute (422). "
        "From 0 to 1. Example: 0.2.",
    )
    p99_latency_millis: float | None = Field(
        default=None,
        gt=0,
        le=600_000,
        alias="p99LatencyMillis",
        description="Largest 99th percentile of the time to an answer, in milliseconds. Example: 100.",
    )
    failed_probes: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="So many restarts, and pods that answered and do not any more, are too many. From 1 to 1000.",
    )
    minimum_requests: int = Field(
        default=100,
        ge=1,
        le=1_000_000_000,
        description="From so many predictions on, errorRate, refusalRate and p99LatencyMillis count. "
        "From 1 to 1000000000.",
    )
    watch_for: Annotated[str, *duration("1s", "168h")] = Field(
        default="10m",
        description="How long a content is watched after it went live. From 1s to 168h.",
    )


class Rollout(SpecModel):
    """How a new content takes over. Without canary: all at once, when its pods answer."""

    canary: Canary | None = Field(
        default=None, description="A few pods first, for a time. Without it: one switch of all requests."
    )
    paused: bool = Field(
        default=False, description="While true nothing goes further: a canary stays, and no new content goes live."
    )
    roll_back_on: RollBackOn | None = Field(
        default=None, description="Limits that end a canary or roll back by themselves."
    )


class RollbackTo(SpecModel):
    """A request to go back, for those who work with files only; acted on once for each value."""

    revision: int = Field(ge=1, le=1_000_000_000, description="Number of the log entry whose content to serve again.")
    id: Annotated[str, REQUEST_ID] | None = Field(
        default=None,
        max_length=63,
        description="Name of the request; another one makes the same revision another request. Example: ticket-42.",
    )


class ModelDeploymentSpec(SpecModel):
    """What you want: a source, an environment, a model that is proven equal to its export, and how to serve it."""

    source: Source = Field(description="Where code and data come from: exactly one of git, svn and package.")
    environment: Environment = Field(
        default=Environment(), description="What the project's code runs in: language, interpreter and packages."
    )
    model: Model = Field(description="The model: how it is made, where it is, and rows that prove it.")
    export: Export = Field(
        default=Export(), description="How the model is converted to what is served, and how equal it must be."
    )
    serving: Serving = Field(
        default=Serving(),
        description="How predictions are answered: size, who may ask, what is noticed. A change makes no new content.",
    )
    rollout: Rollout = Field(
        default=Rollout(), description="How a new content takes over, and what rolls it back by itself."
    )
    standby: Standby = Field(default=Standby(), description="What is kept warm for a way back.")
    rollback_to: RollbackTo | None = Field(
        default=None,
        description="Go back to this entry of the log. It counts once, for the spec that it arrived with; what was "
        "rolled back is held until a new commit or another spec.",
    )
    revision_history_limit: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="How many entries of the log are kept beside the live one. From 1 to 1000.",
    )
