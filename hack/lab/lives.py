"""The operator of a fault case, from its start until it is killed, and what it logs as a bug.

`Life` is the real one but for kopf: workers, planner, store and client, in this process, so that it can be ended at
one certain write and many run beside each other. `Process` is the whole of it, as it is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient, Configuration

from lab.plane import Plane, start_operator
from slipway_operator.cluster.cached import CachedCluster
from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, Where
from slipway_operator.cluster.store import Store
from slipway_operator.cluster.watching import Watches
from slipway_operator.controllers.freshness import Freshness, keep_comparing, listed_versions
from slipway_operator.controllers.handlers import SILENCE_SECONDS, WATCH_SECONDS
from slipway_operator.controllers.metrics import Metrics
from slipway_operator.controllers.reconcile import Reconciler, Room
from slipway_operator.controllers.workers import Workers
from slipway_operator.domain.errors import SlipwayError
from slipway_operator.domain.keys import Key
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest


@contextlib.contextmanager
def traced() -> Iterator[list[str]]:
    """Keep what the operator logs as a bug, and print nothing of the rest."""
    found: list[str] = []

    def keep(_logger: object, method: str, event: MutableMapping[str, Any]) -> Manifest:
        if method in {"error", "exception", "critical"} or event.get("exc_info"):
            found.append(f"{event.get('event')}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    try:
        yield found
    finally:
        structlog.configure(**before)


class Life:
    """The operator from its start until it is killed."""

    def __init__(self, url: str, token: str, settings: Settings) -> None:
        configuration = Configuration(host=url)
        configuration.api_key["BearerToken"] = f"Bearer {token}"
        self._api = ApiClient(configuration)
        (self._namespace,) = settings.namespaces
        self._cluster = KubernetesCluster(self._api)
        store = Store()
        watches = Watches(self._cluster, store, settings.namespaces, self._ring)
        room = Room(
            cluster=CachedCluster(self._cluster, store, watches),
            settings=settings,
            now=lambda: datetime.now(UTC),
            image_volumes=_image_volumes,
            ask_pods=_no_figures,
        )
        self._metrics = Metrics()
        self._workers: Workers[Key] = Workers(Reconciler(room).model_deployment, self._metrics, kind="ModelDeployment")
        self._nothing_there = False
        self._freshness = Freshness()
        self._tasks = [
            asyncio.create_task(watches.keep()),
            asyncio.create_task(self._keep_ringing()),
            asyncio.create_task(keep_comparing(self._freshness, self._versions, self._ring)),
        ]

    async def looked(self) -> None:
        """Wait until it has looked at something, or found nothing to look at."""
        while not (self._metrics.last_reconcile or self._nothing_there):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """End at once: nothing more is sent."""
        self._workers._closed = True  # noqa: SLF001 - a process that is gone starts no worker
        for task in (*self._tasks, *self._workers._tasks.values()):  # noqa: SLF001 - nor finishes one
            task.cancel()

    async def close(self) -> None:
        """Free what the process would have left to the kernel."""
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._workers.close(grace=0.01)
        await self._api.close()  # type: ignore[no-untyped-call]  # the client has no types

    def _ring(self, key: Key) -> None:
        self._workers.ring(key)

    async def _versions(self) -> Mapping[Key, str]:
        return await listed_versions(self._cluster, (self._namespace,))

    async def _keep_ringing(self) -> None:
        """What kopf does: ring at each event of the resource."""
        where = Where(*MODEL_DEPLOYMENT, self._namespace)
        while True:
            with contextlib.suppress(SlipwayError):
                items, version = await self._cluster.list_at(where)
                self._nothing_there = not items
                for item in items:
                    self._seen(item)
                watch = self._cluster.watch(
                    where, selector="", version=version, seconds=WATCH_SECONDS, silence=SILENCE_SECONDS
                )
                async for line in watch:
                    event = json.loads(line) if line else {}
                    if event.get("type") in {"ADDED", "MODIFIED", "DELETED"}:
                        self._seen(event["object"])
            await asyncio.sleep(0.2)

    def _seen(self, item: Manifest) -> None:
        key = Key(self._namespace, item["metadata"]["name"])
        self._freshness.seen(key, item["metadata"]["resourceVersion"])
        self._ring(key)


async def _image_volumes() -> bool | None:
    return True


async def _no_figures(_pods: Sequence[Manifest]) -> Mapping[str, Any]:
    return {}


class Process:
    """The operator as it is installed, as a process of its own."""

    def __init__(self, plane: Plane, url: str, settings: Settings) -> None:
        (namespace,) = settings.namespaces
        path = plane.folder / f"{namespace}.yaml"
        path.write_text(json.dumps(settings.model_dump(mode="json", by_alias=True)))
        self._operator = start_operator(replace(plane, settings=path), server=url, name=namespace)

    def kill(self) -> None:
        """End at once, as a node that fails does."""
        self._operator.process.kill()

    async def close(self) -> None:
        """Collect what ended; what it logged as a bug is a failure.

        Raises:
            AssertionError: it logged a trace or an error.
        """
        self.kill()
        await asyncio.to_thread(self._operator.process.wait)
        complaints = self._operator.complaints()
        if complaints:
            raise AssertionError(f"the operator's log: {complaints[:3]}")
