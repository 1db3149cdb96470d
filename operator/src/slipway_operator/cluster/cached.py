"""A cluster whose reads of what belongs to a ModelDeployment are answered by the store, where that is safe.

Safe means:

- the resource itself is always read from the API server, so no plan is made for a spec that is not there any more;
- the answers to our own writes are in the store before the next look, so a look sees what the one before it did;
- before the first write of a look the log is read from the API server: the log decides what is live, and a plan
  that was made on an older one is thrown away;
- what waits for something, what failed, and what a write found otherwise than the store said, is read anew;
- lists that are older than the resource are not believed, and the store only once it has been as new;
- a request is refused, which is for good, only upon what was read anew;
- a watch that is silent for too long is not believed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, OWNED, Where
from slipway_operator.cluster.store import Store, owner_of
from slipway_operator.cluster.watching import Watches
from slipway_operator.domain import labels
from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Event, Manifest, Ref, ref_of

LOG_KIND = ("apps/v1", "ControllerRevision")
ANEW_SECONDS = 15.0
"""What waits for something is read anew this often: the event that it waits for may be lost."""
BEHIND_SECONDS = 15.0
"""So long lists that are older than the resource are asked for again. No API server is behind for longer; where kinds
have stores of their own, their versions tell nothing of each other."""
SYNC_SECONDS = 30.0
"""A look waits so long for the first lists before it asks for itself."""


class CachedCluster:
    """The real cluster behind a store; one for all workers."""

    def __init__(self, cluster: KubernetesCluster, store: Store, watches: Watches) -> None:
        self._cluster = cluster
        self._store = store
        self._watches = watches
        self._anew_at: dict[Key, float] = {}
        """Loop time from which on a key is to be read from the API server."""
        self._version: dict[Key, int] = {}
        """The version in which each resource was read last."""
        self._caught_up: set[Key] = set()
        """Keys of which the store was seen to be as new as the resource; from then on the watches keep it so."""
        self._certain: set[Key] = set()
        """Keys whose last look was not answered by the store."""
        self._behind: dict[Key, float] = {}
        """Loop time since which lists of a key are older than its resource."""
        self._told: dict[Key, str] = {}
        """The version of each resource that our last write of its status made."""
        self._patient_until: float | None = None

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, always from the API server."""
        found = await self._cluster.get(ref)
        if (ref.api_version, ref.kind) == MODEL_DEPLOYMENT:
            key = Key(ref.namespace, ref.name)
            if found is None:
                self._forget(key)
            else:
                self._version[key] = int(found["metadata"]["resourceVersion"])
                if "status" not in found:  # nothing was made for it yet
                    self._caught_up.add(key)
        return found

    async def list_owned(self, namespace: str, owner: str, *, anew: bool = False) -> Sequence[Manifest]:
        """Everything that carries the owner's label: from the store, or anew where that may be behind."""
        key = Key(namespace, owner)
        if not anew and await self._may_use_store(key):
            self._certain.discard(key)
            return self._store.owned(key)
        # Before the lists: what makes it doubtful while they are read stays doubtful.
        self._anew_at.pop(key, None)
        try:
            items = await self._read(key, OWNED)
        except BaseException:
            self.doubt(key)
            raise
        self._certain.add(key)
        self._caught_up.add(key)
        return items

    async def list_everywhere(self) -> Sequence[Manifest]:
        """What names images in any namespace, always from the API server."""
        return await self._cluster.list_everywhere()

    async def list_events(self, namespace: str, uids: Sequence[str]) -> Sequence[Manifest]:
        """Warnings, always from the API server."""
        return await self._cluster.list_events(namespace, uids)

    async def is_newest(self, key: Key, entries: Sequence[Manifest]) -> bool:
        """Whether the log is still as it was read."""
        if key in self._certain:
            return True
        now = [e for e in await self._read(key, (LOG_KIND,)) if e["metadata"]["labels"].get(labels.LOG) == "true"]
        same = {_identity(e) for e in now} == {_identity(e) for e in entries}
        if not same:
            self.doubt(key)
        return same

    def is_certain(self, key: Key) -> bool:
        """Whether the last look was not answered by the store; if it was, the next one is not."""
        if key not in self._certain:
            self.doubt(key)
        return key in self._certain

    def doubt(self, key: Key) -> None:
        """Read a key anew at its next look."""
        self._anew_at[key] = asyncio.get_running_loop().time()

    def tell(self, key: Key, *, waits: bool) -> None:
        """Say whether a key waits for something; while it does, it is read anew now and then."""
        now = asyncio.get_running_loop().time()
        if waits:
            self._anew_at.setdefault(key, now + ANEW_SECONDS)
        elif self._anew_at.get(key, now) > now:  # a doubt that is due stays
            del self._anew_at[key]

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply; the answer is what the next look sees."""
        with self._doubting(manifest):
            answer = await self._cluster.apply(manifest)
        self._store.put(answer)
        return answer

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; None: one of that name exists, which the store did not know."""
        with self._doubting(manifest):
            answer = await self._cluster.create(manifest)
        if answer is not None:
            self._store.put(answer)
        else:
            self._doubt_owner(manifest)
        return answer

    async def delete(self, ref: Ref, uid: str | None = None) -> Manifest | None:
        """Delete an object; what is left of it for a while, if anything."""
        key = self._store.owner(ref)
        try:
            left = await self._cluster.delete(ref, uid)
        except BaseException:
            if key is not None:
                self.doubt(key)
            raise
        if left is not None:
            self._store.put(left)
        elif key is not None and uid is not None:
            self._store.deleted(ref, uid)
        elif key is not None:
            self.doubt(key)
        return left

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> str:
        """Replace the status; resources are not in the store."""
        version = await self._cluster.write_status(resource, status)
        meta = resource["metadata"]
        self._told[Key(meta["namespace"], meta["name"])] = version
        return version

    def is_echo(self, key: Key, version: str) -> bool:
        """Whether a version of a resource is the one that our own write of its status made.

        It differs from what the look before the write read in nothing but that status: no need to look again.
        """
        return self._told.get(key) == version

    async def emit(self, resource: Mapping[str, Any], event: Event) -> None:
        """Record an event."""
        await self._cluster.emit(resource, event)

    async def _may_use_store(self, key: Key) -> bool:
        loop = asyncio.get_running_loop()
        if self._anew_at.get(key, float("inf")) <= loop.time():
            return False
        if self._patient_until is None:
            self._patient_until = loop.time() + SYNC_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._patient_until):
                await self._watches.synced()
        if key not in self._caught_up and self._watches.reached >= self._version.get(key, 0):
            self._caught_up.add(key)
        return self._watches.are_current and key in self._caught_up

    async def _read(self, key: Key, kinds: Sequence[tuple[str, str]]) -> Sequence[Manifest]:
        """Read kinds of an owner from the API server, and put the store right.

        Raises:
            Waiting: the API server gave lists of the past.
        """
        selector = f"{labels.OWNER}={key.name}"
        before = {kind: self._store.versions(kind, key=key) for _, kind in kinds}
        lists = await asyncio.gather(
            *(self._cluster.list_at(Where(api, kind, key.namespace), selector=selector) for api, kind in kinds)
        )
        for (_, kind), (items, version) in zip(kinds, lists, strict=True):
            for item in items:
                self._store.put(item)
            self._store.sweep(before[kind], {ref_of(item) for item in items}, int(version))
        self._require_new(key, min(int(version) for _, version in lists))
        return [item for items, _ in lists for item in items]

    def _require_new(self, key: Key, shown: int) -> None:
        """What is read after the resource must be as new."""
        now = asyncio.get_running_loop().time()
        if shown >= self._version.get(key, 0):
            self._behind.pop(key, None)
        elif now - self._behind.setdefault(key, now) < BEHIND_SECONDS:
            raise Waiting("ApiServerUnavailable", "the API server's lists are older than what it gave before")

    def _forget(self, key: Key) -> None:
        for kept in (self._anew_at, self._version, self._behind, self._told):
            kept.pop(key, None)
        self._caught_up.discard(key)
        self._certain.discard(key)

    @contextlib.contextmanager
    def _doubting(self, manifest: Mapping[str, Any]) -> Iterator[None]:
        """A write that fails may have been done all the same, or failed as the store was behind: look anew."""
        try:
            yield
        except BaseException:
            self._doubt_owner(manifest)
            raise

    def _doubt_owner(self, manifest: Mapping[str, Any]) -> None:
        key = owner_of(manifest) or self._store.owner(ref_of(manifest))
        if key is not None:
            self.doubt(key)


def _identity(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry["metadata"]["name"]), str(entry["metadata"]["uid"])
