"""Keeps the store as the cluster is: for each kind one list, then a watch from there, then again from the start.

kopf watches the two kinds that are Slipway's own. What belongs to them is watched here, as kopf neither tells
what vanished while a watch was broken nor does without a task and a memory for each of thousands of objects.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.errors import ExpiredError
from slipway_operator.cluster.kinds import OWNED, Where
from slipway_operator.cluster.store import Store
from slipway_operator.domain import labels
from slipway_operator.domain.errors import SlipwayError, Waiting
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Ref, ref_of

PERIOD_SECONDS = 300.0
"""After so long a list is compared with the store: what a watch lost without breaking is found then."""
SILENCE_SECONDS = 90.0
"""A watch says something each minute, if only a bookmark; one that is silent for longer is dead."""
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0

log = structlog.get_logger()


class Watch:
    """One kind in one namespace ('': all)."""

    def __init__(self, cluster: KubernetesCluster, store: Store, where: Where, ring: Callable[[Key], None]) -> None:
        self._cluster = cluster
        self._store = store
        self._where = where
        self._ring = ring
        self._heard: float | None = None
        self.reached = 0
        """The version up to which the store has everything."""
        self.synced = asyncio.Event()
        """Set once the first list is in the store."""

    @property
    def is_current(self) -> bool:
        """Whether the store can be believed: the watch spoke a short while ago."""
        return self._heard is not None and asyncio.get_running_loop().time() - self._heard < SILENCE_SECONDS

    async def keep(self) -> None:
        """List and watch for ever."""
        backoff, version = FIRST_BACKOFF, ""
        while True:
            wait = 0.0
            try:
                if not version:
                    version = await self._list()
                async for reached in self._events(version):
                    version, backoff = reached, FIRST_BACKOFF
                    self.reached = int(reached)
                version = ""
            except ExpiredError:
                # A list tells what the watch cannot any more.
                version, wait = "", FIRST_BACKOFF * random.random()  # noqa: S311 - spreads load
            except SlipwayError as error:
                version = version if isinstance(error, Waiting) else ""
                told = error.retry_after if isinstance(error, Waiting) else None
                wait = (told if told is not None else backoff) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
                backoff = min(backoff * 2, LONGEST_BACKOFF)
                log.warning("watch broke", kind=self._where.kind, error=str(error), seconds=round(wait, 1))
            except Exception:
                # An answer that nobody foresaw must not leave the store as it is for ever.
                log.exception("watch failed", kind=self._where.kind)
                version, wait = "", backoff
                backoff = min(backoff * 2, LONGEST_BACKOFF)
            await asyncio.sleep(wait)

    async def _list(self) -> str:
        before = self._store.versions(self._where.kind, namespace=self._where.namespace)
        shown: set[Ref] = set()
        version = ""
        async for items, reached in self._cluster.pages(self._where, selector=labels.OWNER):
            version = reached
            for item in items:
                shown.add(ref_of(item))
                self._rung(self._store.put(item))
        for key in self._store.sweep(before, shown, int(version)):
            self._ring(key)
        self._hear()
        self.reached = int(version)
        self.synced.set()
        return version

    async def _events(self, version: str) -> AsyncIterator[str]:
        """Take events until the API server ends the watch; gives the version that each leads to."""
        period = PERIOD_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - nine kinds are not to be listed at once
        until = asyncio.get_running_loop().time() + period
        watch = self._cluster.watch(
            self._where, selector=labels.OWNER, version=version, seconds=period, silence=SILENCE_SECONDS
        )
        async for line in watch:
            self._hear()
            if not line:
                continue
            event = json.loads(line)
            self._take(event)
            yield str(event["object"]["metadata"]["resourceVersion"])
        if asyncio.get_running_loop().time() < until - 1:
            # It broke before its time: what it missed comes from where it was, without a list.
            raise Waiting("WatchEnded", "the watch ended early")

    def _take(self, event: dict[str, Any]) -> None:
        manifest = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self._rung(self._store.put(manifest))
            case "DELETED":
                self._rung(self._store.drop(manifest))
            case "BOOKMARK":
                pass
            case _ if manifest.get("code") == 410:
                raise ExpiredError("Expired", "the watch's version is too old")
            case _:
                raise Waiting("WatchEnded", f"the watch says {manifest.get('message') or event['type']}")

    def _rung(self, changed: Key | None) -> None:
        if changed is not None:
            self._ring(changed)

    def _hear(self) -> None:
        self._heard = asyncio.get_running_loop().time()


class Watches:
    """All kinds, in all namespaces that are served."""

    def __init__(
        self, cluster: KubernetesCluster, store: Store, namespaces: tuple[str, ...], ring: Callable[[Key], None]
    ) -> None:
        self._watches = [
            Watch(cluster, store, Where(api, kind, space), ring) for space in namespaces or ("",) for api, kind in OWNED
        ]

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        for watch in self._watches:
            await watch.synced.wait()

    @property
    def reached(self) -> int:
        """The version up to which the store has everything."""
        return min(watch.reached for watch in self._watches)

    @property
    def are_current(self) -> bool:
        """Whether what the store has can be believed."""
        return all(watch.is_current for watch in self._watches)

    async def keep(self) -> None:
        """Watch for ever."""
        await asyncio.gather(*(watch.keep() for watch in self._watches))
