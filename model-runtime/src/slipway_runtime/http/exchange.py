"""One request and the place of its answer."""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from slipway_runtime.dataplane import Work
from slipway_runtime.http.answers import Answer
from slipway_runtime.observing.watching import Timeline


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    def deliver(self) -> None:
        """Write those answers that are due, in the order of their requests."""
        ...


class Exchange:
    """A request with its answer, which may come later than that of the request after it."""

    __slots__ = (
        "answer",
        "body",
        "carrier",
        "endpoint",
        "headers",
        "keep_alive",
        "method",
        "old",
        "request_id",
        "started",
        "target",
        "timeline",
        "work",
    )

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.started = perf_counter()
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True
        self.old = False
        """Whether the client speaks HTTP/1.0."""
        self.request_id = ""
        self.endpoint = "other"
        self.answer: Answer | None = None
        self.work: Work | None = None
        self.timeline: Timeline | None = None

    def finish(self, answer: Answer) -> None:
        """Give the answer; it is written when those before it are."""
        self.answer = answer
        self.work = None  # it refers back to this exchange: only the collector could free the two
        self.carrier.deliver()
