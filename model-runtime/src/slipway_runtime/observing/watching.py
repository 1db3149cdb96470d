"""Where the time of a request goes: steps for the metrics, spans for a trace, a line for the access log.

A timeline is made for as many requests a second as cost nothing; with the access log on, for all.
"""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from slipway_runtime.metrics import Metrics

_TIMED = 500
"""Requests that are timed in their steps between two ticks (half a second)."""


class Timeline:
    """When one request began, was understood, ran, and was answered; seconds of `perf_counter`, 0 where it was not."""

    __slots__ = ("begun", "queued", "rows", "run_began", "run_ended")

    def __init__(self) -> None:
        self.begun = perf_counter()
        self.queued = self.run_began = self.run_ended = 0.0
        self.rows = 0

    def parsed(self, rows: int) -> None:
        """Its body is understood; it waits."""
        self.queued = perf_counter()
        self.rows = rows

    def ran(self, began: float, ended: float) -> None:
        """It ran, alone or with others."""
        self.run_began, self.run_ended = began, ended


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


class Listener(Protocol):
    """Takes finished requests: a trace's exporter, the access log."""

    def __call__(self, request: Watched, timeline: Timeline, status: int, size: int, ended: float) -> None:
        """Take one request.

        Args:
            request: What was asked.
            timeline: When.
            status: The answer's HTTP status.
            size: Bytes of the answer's body.
            ended: When it was written; seconds of `perf_counter`.
        """
        ...


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
            took = self._metrics.took
            took("parse", timeline.queued - timeline.begun)
            took("queue", timeline.run_began - timeline.queued)
            took("run", timeline.run_ended - timeline.run_began)
            took("encode", ended - timeline.run_ended)
        for listener in self._listeners:
            listener(request, timeline, status, size, ended)

    def tick(self) -> None:
        """Time further requests; called twice a second."""
        self._left = _TIMED
        self.is_on = True
