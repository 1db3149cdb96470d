"""What both kinds share: conditions, commands, resources."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slipway_operator.api.schema import Argument, Check, Quantity, SpecModel, StatusModel, matches

GROUP = "slipway.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
UNSEEN = -1
"""The generation that the status of a new object speaks of: of none."""

Command = Annotated[
    tuple[Argument, ...],
    Field(min_length=1, max_length=64),
]

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC with whole seconds, such as ``2026-11-22T23:20:00Z``."""


class Condition(StatusModel):
    """One condition, by the conventions of Kubernetes and kstatus."""

    type: str = Field(max_length=64, description="What the condition is about, such as Ready or Available.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds: True, False or Unknown.")
    reason: str = Field(default="", max_length=128, description="Why, as one CamelCase word that programs can compare.")
    message: str = Field(
        default="", max_length=4096, description="Why, as a sentence for people; for a failure it says what to change."
    )
    last_transition_time: Timestamp = Field(description="When the status changed last (UTC).")
    observed_generation: int = Field(
        default=0, ge=0, description="The metadata.generation that the condition was computed from."
    )


class EnvVar(SpecModel):
    """A plain environment variable; there is no way to name a Secret here, on purpose."""

    name: Annotated[
        str,
        matches(r"[A-Za-z_][A-Za-z0-9_]*", "must be letters, digits and '_', and not start with a digit"),
    ] = Field(min_length=1, max_length=128, description="Name of the variable, such as SEED.")
    value: Argument = Field(
        default="", description='Its value. Everyone who can read this object sees it. Example: "1".'
    )


ResourceName = Annotated[str, Field(min_length=1, max_length=128)]


class Resources(SpecModel):
    """CPU, memory and other resources of a container."""

    checks = (
        Check(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
            "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            "a request must not be larger than the limit of the same resource",
            # Comparing quantities is the API server's; what slips through here is refused with the pod.
            lambda _: True,
        ),
    )

    requests: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=6,
        description="What the scheduler reserves, by resource name. Example: {cpu: 250m, memory: 512Mi}.",
    )
    limits: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=6,
        description="What the container may use at most, by resource name; above the memory limit it is killed. "
        "Example: {memory: 4Gi}.",
    )

    def to_container(self) -> dict[str, dict[str, str]]:
        """The ``resources`` of a container, without what is empty."""
        both = {"requests": dict(self.requests), "limits": dict(self.limits)}
        return {name: amounts for name, amounts in both.items() if amounts}
