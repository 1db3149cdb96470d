"""What all connections of a server have in common."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from slipway_runtime.http.answers import HeadWriter
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.guard import Guard
from slipway_runtime.http.known import KnownHeads, Shortcut
from slipway_runtime.http.limits import HttpLimits
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.watching import Watch
from slipway_runtime.security.keys import ApiKeys


class AnyConnection(Protocol):
    """What the server asks of each connection, whichever protocol it speaks."""

    def sweep(self, now: float) -> None:
        """Close what has stayed as it is for too long."""

    def touch(self, now: float) -> None:
        """Count time from now."""

    def close_if_idle(self, now: float, settled: float) -> None:
        """Close if nothing has been asked for a moment (while draining)."""

    def abort(self) -> None:
        """End at once."""


class Shared:
    """One server's state, seen by each of its connections."""

    def __init__(
        self, handle: Callable[[Exchange], None], head: HeadWriter, metrics: Metrics, new_id: Callable[[], str]
    ) -> None:
        self.handle = handle
        self.head = head
        self.metrics = metrics
        self.new_id = new_id
        self.watch = Watch(metrics)
        self.guard: Guard | None = None
        self.keys: ApiKeys | None = None
        self.limits = HttpLimits()
        self.connections: set[AnyConnection] = set()
        self.known_heads = KnownHeads()
        self.shortcut: Callable[[Exchange], Shortcut | None] = lambda _: None
        """Gives what answers requests with the head of this one, where less needs to be done than for others."""
        self.buffered = 0
        """Bytes of bodies that are still arriving."""
        self.now = perf_counter()
        """The time of the last sweep: exact enough for timeouts."""
        self.draining = False
