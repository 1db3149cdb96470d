"""What the controllers need of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Event, Manifest, Ref


class Cluster(Protocol):
    """Reads and writes objects as plain data.

    Every method raises `Waiting` for what passes by itself (conflicts, an API server
    that is away, a namespace that is going) and `Blocked` for what a person must change.
    """

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, or None if there is none (or its namespace is gone)."""

    async def list_owned(self, namespace: str, owner: str, *, anew: bool = False) -> Sequence[Manifest]:
        """Everything in a namespace that carries the owner's label: all kinds that planners look at.

        Args:
            namespace: Where.
            owner: Name of the ModelDeployment.
            anew: Ask the API server, whatever is remembered.
        """

    async def is_newest(self, key: Key, entries: Sequence[Manifest]) -> bool:
        """Whether the log is as it was read: asked before the first write that follows from it."""

    def is_certain(self, key: Key) -> bool:
        """Whether what was listed last of a key was no memory; if it was, it is doubted."""

    def tell(self, key: Key, *, waits: bool) -> None:
        """Say whether a key waits for something to happen, so that nothing remembered is relied on for long."""

    def doubt(self, key: Key) -> None:
        """Rely on nothing that is remembered of a key at its next look."""

    async def list_events(self, namespace: str, uids: Sequence[str]) -> Sequence[Manifest]:
        """Warnings about the objects of these UIDs."""

    async def list_everywhere(self) -> Sequence[Manifest]:
        """What names images in any namespace: ModelDeployments, log entries, builds and what they made.

        It is long: ask rarely.
        """

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply with our field manager; conflicts are forced."""

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object. None: one of that name exists already."""

    async def delete(self, ref: Ref, uid: str | None = None) -> Manifest | None:
        """Delete an object and, in the background, what it owns. One that is gone already is no error.

        Args:
            ref: Which one.
            uid: Only the one that was seen: another of its name raises `ConflictError`.

        Returns:
            What is left of it for a while, if anything.
        """

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> str:
        """Make this the whole status of a custom resource that was read as given; the version that this makes."""

    async def emit(self, resource: Mapping[str, Any], event: Event) -> None:
        """Record an event about a custom resource. It is a courtesy: failures are logged, not raised."""


class ConflictError(Exception):
    """The object changed since it was read: look again."""
