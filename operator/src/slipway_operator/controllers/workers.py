"""One task for each key: rung awake, never two at once, backing off when something fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

from slipway_operator.controllers.metrics import Metrics
from slipway_operator.domain.errors import Waiting

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
PARALLEL = 16
"""Reconciles that run at the same time: more only queue in the API server."""
SETTLE_SECONDS = 0.02
"""Between the bell and the look: one write of ours rings several times."""

K = TypeVar("K", bound=Hashable)
log = structlog.get_logger()


class Workers(Generic[K]):
    """Wakes and runs the worker of a key."""

    def __init__(self, reconcile: Callable[[K], Awaitable[float | None]], metrics: Metrics, *, kind: str) -> None:
        self._reconcile = reconcile
        self._metrics = metrics
        self._kind = kind
        self._bells: dict[K, asyncio.Event] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._closed = False

    def ring(self, key: K) -> None:
        """Say that something of a key changed, never what."""
        if self._closed:
            return
        bell = self._bells.get(key)
        if bell is None:
            bell = self._bells[key] = asyncio.Event()
            task = asyncio.create_task(self._work(key, bell), name=f"{self._kind} {key}")
            self._tasks[key] = task
        bell.set()

    def known(self) -> frozenset[K]:
        """Keys that have a worker."""
        return frozenset(self._bells)

    async def close(self, *, grace: float = 5.0) -> None:
        """Let what is being written be written, then end."""
        self._closed = True
        tasks = list(self._tasks.values())
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(PARALLEL):
                try:
                    await asyncio.wait_for(self._slots.acquire(), timeout=grace)
                except TimeoutError:
                    break
                stack.callback(self._slots.release)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, key: K, bell: asyncio.Event) -> None:
        backoff = FIRST_BACKOFF
        try:
            while True:
                async with self._slots:
                    # Before reading, so that a change during the run rings again; after the wait for a slot, as what
                    # rang meanwhile is seen by this look.
                    bell.clear()
                    again, backoff = await self._look(key, backoff)
                if again is None and not bell.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), timeout=again or 0)
                    await asyncio.sleep(SETTLE_SECONDS)
        finally:
            self._bells.pop(key, None)
            self._tasks.pop(key, None)

    async def _look(self, key: K, backoff: float) -> tuple[float | None, float]:
        """One reconcile: the wait until the next, and the back-off after it."""
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        with structlog.contextvars.bound_contextvars(
            kind=self._kind, namespace=getattr(key, "namespace", ""), name=getattr(key, "name", str(key))
        ):
            try:
                with self._metrics.reconcile(self._kind):
                    again = await self._reconcile(key)
            except Waiting as waiting:
                wait = waiting.retry_after if waiting.retry_after is not None else backoff
                log.info("waits", reason=waiting.reason, seconds=round(wait, 1))
                return wait * jitter, min(backoff * 2, LONGEST_BACKOFF)
            except Exception:
                log.exception("reconcile failed")
                return backoff * jitter, min(backoff * 2, LONGEST_BACKOFF)
        return again, FIRST_BACKOFF
