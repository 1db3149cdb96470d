"""What a planner is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from slipway_operator.domain import labels
from slipway_operator.domain.keys import Key
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.settings import Settings

Manifest = dict[str, Any]
"""An object of the API as plain data."""


class Ref(NamedTuple):
    """Names one object of the cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str


def ref_of(manifest: Mapping[str, Any]) -> Ref:
    """The name of the object that a manifest describes."""
    meta = manifest["metadata"]
    return Ref(manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one serving pod says of its predictions since it started."""

    requests: int
    errors: int
    """Answered with a 5xx status."""
    refused: int = 0
    """Well-formed, and the model itself could not compute an answer for the values."""
    buckets: tuple[tuple[float, int], ...] = ()
    """Upper bound in seconds and how many took at most so long, as Prometheus' histograms are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that a plan for one ModelDeployment depends on, read at one moment."""

    key: Key
    now: datetime
    settings: Settings
    resource: Manifest
    """The ModelDeployment as the API server gave it."""
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    deployments: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    autoscalers: tuple[Manifest, ...] = ()
    budgets: tuple[Manifest, ...] = ()
    policies: tuple[Manifest, ...] = ()
    config_maps: tuple[Manifest, ...] = ()
    entries: tuple[Manifest, ...] = ()
    """ControllerRevisions of the log, in any order."""
    events: tuple[Manifest, ...] = ()
    """Warnings about objects that `plan.troubles.puzzling` named."""
    samples: Mapping[str, Sample] = field(default_factory=dict)
    """Figures of pods that are watched, by the pod's name; a pod that did not answer has none."""
    elsewhere: frozenset[str] | None = None
    """Digests that other deployments name; None: not known, so that what may be shared is kept."""
    image_volumes: bool | None = None
    """Whether every node can mount images; None: not known yet."""

    @property
    def generation(self) -> int:
        """The generation that this plan is for."""
        return int(self.resource["metadata"].get("generation", 1))

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations of the resource."""
        return self.resource["metadata"].get("annotations") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it is now: a report that may be lost, but for requests whose annotations are gone."""
        return self.resource.get("status") or {}

    @property
    def owner_reference(self) -> Manifest:
        """What makes the garbage collector clean up, with no finalizer of ours."""
        return owner_reference_of(self.resource)

    def objects(self) -> tuple[Manifest, ...]:
        """Everything that belongs to the resource, for comparing with what is wanted."""
        return (
            *self.jobs,
            *self.deployments,
            *self.services,
            *self.autoscalers,
            *self.budgets,
            *self.policies,
            *self.config_maps,
            *self.entries,
        )

    def deployment(self, name: str) -> Manifest | None:
        """The Deployment of that name."""
        return next((d for d in self.deployments if d["metadata"]["name"] == name), None)


def owner_reference_of(resource: Mapping[str, Any]) -> Manifest:
    """An owner reference to a custom resource, as its one controller."""
    meta = resource["metadata"]
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def metadata_for(seen: Observed, name: str, **more: str) -> Manifest:
    """Metadata of something that belongs to the resource.

    Args:
        seen: What was observed.
        name: Name of the new object.
        more: Further labels, by the names of constants in ``domain.labels`` in lower case.
    """
    extra = {getattr(labels, constant.upper()): value for constant, value in more.items()}
    return {
        "name": name,
        "namespace": seen.key.namespace,
        "labels": {**labels.owned(seen.key.name), **extra},
        "ownerReferences": [seen.owner_reference],
    }


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in words, for ``kubectl describe``."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str = "Reconcile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, in this order: apply, create, delete, status, events."""

    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    """Created, never changed: Jobs and log entries. One that exists already is looked at again."""
    delete: tuple[Ref, ...] = ()
    status: Manifest = field(default_factory=dict)
    """The whole status as it should be."""
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until something changes by time alone; None: only a change in the cluster matters."""
    refuses: bool = False
    """It refuses a request, which is for good: it must not be made upon what is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps a step from going on, and who must act."""

    reason: Reason | str
    message: str
    stalled: bool
    """True: a person must change something; False: it may pass by itself."""


def soonest(*waits: float | None) -> float | None:
    """The shortest of the waits that are given."""
    given = [w for w in waits if w is not None]
    return min(given) if given else None
