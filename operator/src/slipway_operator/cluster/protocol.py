"""What the controllers need of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from slipway_operator.plan.observed import Event, Manifest, Ref


class Cluster(Protocol):
    """Reads and writes objects as plain data.

    Every method raises `Waiting` for what passes by itself (conflicts, an API server
    that is away, a namespace that is going) and `Blocked` for what a person must change.
    """

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, or None if there is none (or its namespace is gone)."""

    async def list_owned(self, namespace: str, owner: str) -> Sequence[Manifest]:
        """Everything in a namespace that carries the owner's label: all kinds that planners look at."""

    async def list_events(self, namespace: str, uids: Sequence[str]) -> Sequence[Manifest]:
        """Warnings about the objects of these UIDs."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply with our field manager; conflicts are forced."""

    async def create(self, manifest: Manifest) -> bool:
        """Create an object. False: one of that name exists already."""

    async def delete(self, ref: Ref) -> None:
        """Delete an object and, in the background, what it owns. One that is gone already is no error."""

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> None:
        """Make this the whole status of a custom resource that was read as given."""

    async def emit(self, resource: Mapping[str, Any], event: Event) -> None:
        """Record an event about a custom resource. It is a courtesy: failures are logged, not raised."""


class ConflictError(Exception):
    """The object changed since it was read: look again."""
