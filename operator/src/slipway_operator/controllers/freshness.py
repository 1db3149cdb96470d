"""Notices watches that are dead: what a list shows must also have come as an event.

kopf opens a stream anew after silence, but a stream can also be alive and deaf. So a
small list of the resources is compared with what the watch has brought: a version that
is still unseen at the next look means that the watch is behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from slipway_operator.cluster.client import KubernetesCluster, NotFoundError
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, Where
from slipway_operator.domain.errors import SlipwayError
from slipway_operator.domain.keys import Key

LOOK_SECONDS = 20.0
AGAIN_SECONDS = 4.0
"""When to look again where a version is still unseen: an event on its way needs far less."""
BEHIND_SECONDS = 90.0
"""A watch that is behind for so long will not come back: the process is to be started anew."""

log = structlog.get_logger()


class Freshness:
    """Compares versions that the watch brought with versions that a list shows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Key, str] = {}
        self._missing: dict[Key, str] = {}
        self._fresh_at = clock()
        self._tick = clock()

    def seen(self, key: Key, version: str) -> None:
        """The watch brought this version of an object."""
        self._seen[key] = version

    def compare(self, listed: Mapping[Key, str]) -> frozenset[Key]:
        """Compare with a list.

        A version that was listed at the last look already and that no event brought since
        is one that the watch missed. (An object that changes between two looks is not:
        its next version may be on its way.)

        Returns:
            Keys that the watch missed.
        """
        behind = frozenset(k for k, v in listed.items() if self._missing.get(k) == v and self._seen.get(k) != v)
        self._missing = {k: v for k, v in listed.items() if self._seen.get(k) != v}
        self._seen = {k: v for k, v in self._seen.items() if k in listed}
        if not behind:
            self._fresh_at = self._clock()
        return behind

    @property
    def is_unsure(self) -> bool:
        """Whether the last list showed a version whose event may be on its way or lost."""
        return bool(self._missing)

    def tick(self) -> None:
        """The comparing loop is alive, whether or not the API server answers."""
        self._tick = self._clock()

    def pause(self) -> None:
        """The API server did not answer: nothing is known, so nothing counts."""
        self._fresh_at = self._clock()

    @property
    def age(self) -> float:
        """Seconds since the watches were last known to be complete."""
        return self._clock() - self._fresh_at

    def is_alive(self) -> bool:
        """Whether the process should go on: its loop turns, and its watches are not known to be behind for long."""
        return self._clock() - self._tick < BEHIND_SECONDS + LOOK_SECONDS and self.age < BEHIND_SECONDS


async def listed_versions(cluster: KubernetesCluster, namespaces: Sequence[str]) -> Mapping[Key, str]:
    """Versions of all ModelDeployments as a list shows them; no namespaces: everywhere."""
    return {
        Key(m["metadata"]["namespace"], m["metadata"]["name"]): str(m["metadata"]["resourceVersion"])
        for space in namespaces or ("",)
        async for found, _ in cluster.pages(Where(*MODEL_DEPLOYMENT, space), metadata_only=True)
        for m in found
    }


async def keep_comparing(
    freshness: Freshness, list_versions: Callable[[], Awaitable[Mapping[Key, str]]], ring: Callable[[Key], None]
) -> None:
    """Compare for ever; what the watch missed is rung by hand.

    An API server that does not answer is no fault of the watch: its time does not count.
    """
    was_unsure = False
    while True:
        # Looked at again soon once, not for ever: an object that always changes is always on its way.
        was_unsure = freshness.is_unsure and not was_unsure
        await asyncio.sleep(AGAIN_SECONDS if was_unsure else LOOK_SECONDS)
        freshness.tick()
        try:
            behind = freshness.compare(await list_versions())
        except NotFoundError:
            # Our kinds are not installed (any more): kopf looks for them only at its start, so start anew.
            log.error("the API server does not know ModelDeployments; is the CRD installed?")  # noqa: TRY400 - no trace helps
            continue
        except SlipwayError as error:
            log.warning("cannot list for comparison", error=str(error))
            freshness.pause()
            continue
        for key in behind:
            log.warning("the watch missed a change", object=str(key))
            ring(key)
