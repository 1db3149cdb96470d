"""Where the time of a request goes: steps for the metrics, spans for a trace, a line for the access log.

A timeline is made for as many requests a second as cost nothing; with the access log on, for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

from slipway_runtime.metrics import Metrics
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.tensors import Array

_TIMED = 500
"""Requests that are timed in their steps between two ticks (half a second)."""


class Timeline:
    """When one request began, was understood, ran, and was answered; seconds of `perf_counter`, 0 where it was not."""

    __slots__ = ("begun", "feeds", "offset", "outputs", "queued", "rows", "run_began", "run_ended")

    def __init__(self) -> None:
        self.begun = perf_counter()
        self.queued = self.run_began = self.run_ended = 0.0
        self.rows = self.offset = 0
        self.feeds: Feeds | None = None
        self.outputs: Sequence[Array] = ()

    def parsed(self, rows: int) -> None:
        """Its body is understood; it waits."""
        self.queued = perf_counter()
        self.rows = rows

    def ran(self, began: float, ended: float, feeds: Feeds, outputs: Sequence[Array], offset: int) -> None:
        """It ran, alone or with others; its rows begin at ``offset``."""
        self.run_began, self.run_ended = began, ended
        self.feeds, self.outputs, self.offset = feeds, outputs, offset


class Watched(Protocol):
    """What is to be known of a request, whatever it came by."""

    request_id: str
    started: float
    timeline: Timeline | None

    @property
    def endpoint(self) -> str:
        """What was asked, as the metrics name it."""

    @property
    def method(self) -> bytes:
        """The HTTP method."""

    @property
    def target(self) -> bytes:
        """The path, as it came."""

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Header lines, or a call's metadata."""


class Finished(NamedTuple):
    """A request that was answered."""

    request: Watched
    timeline: Timeline
    status: int
    """The answer's, as HTTP has it."""
    size: int
    """Bytes of the answer's body."""
    ended: float
    """When it was written; seconds of `perf_counter`."""


Listener = Callable[[Finished], None]
"""Takes finished requests: the access log, traces, records."""


class Watch:
    """Times requests."""

    def __init__(self, metrics: Metrics, listeners: tuple[Listener, ...] = ()) -> None:
        self._metrics = metrics
        self._listeners = listeners
        self._left = _TIMED
        self.is_on = True
        """Whether the next request gets a timeline."""

    def begin(self) -> Timeline:
        """Begin a request."""
        self._left -= 1
        if self._left <= 0 and not self._listeners:
            self.is_on = False
        return Timeline()

    def finished(self, request: Watched, status: int, size: int, ended: float) -> None:
        """Take note of a request that was answered."""
        timeline = request.timeline
        if timeline is None:
            return
        if timeline.run_ended and status == 200 and self._left > -_TIMED:
            took = self._metrics.of(request.endpoint).took
            took("parse", timeline.queued - timeline.begun)
            took("queue", timeline.run_began - timeline.queued)
            took("run", timeline.run_ended - timeline.run_began)
            took("encode", ended - timeline.run_ended)
        if self._listeners:
            told = Finished(request, timeline, status, size, ended)
            for listener in self._listeners:
                listener(told)

    def tick(self) -> None:
        """Time further requests; called twice a second."""
        self._left = _TIMED
        self.is_on = True
