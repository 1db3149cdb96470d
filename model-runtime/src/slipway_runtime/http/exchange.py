"""One request and the place of its answer."""

from __future__ import annotations

import math
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

    def deliver_alone(self, exchange: Exchange, body: bytes, ended: float) -> bool:
        """Write an answer of status 200 in JSON, if nothing else is due on the connection.

        Its duration is left for the caller to count, who knows those of a whole batch.
        """
        ...


class Exchange:
    """A request with its answer, which may come later than that of the request after it."""

    __slots__ = (
        "answer",
        "answer_id",
        "body",
        "carrier",
        "deadline",
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

    def __init__(
        self,
        carrier: Carrier,
        method: bytes = b"",
        target: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
    ) -> None:
        self.carrier = carrier
        self.started = perf_counter()
        self.method = method
        self.target = target
        self.headers = {} if headers is None else headers
        self.body = body
        self.keep_alive = True
        self.old = False
        """Whether the client speaks HTTP/1.0."""
        self.request_id = ""
        self.endpoint = "other"
        self.answer: Answer | None = None
        self.answer_id: str | None = None
        """The caller's own ``id`` for the answer's body."""
        self.work: Work | None = None
        self.timeline: Timeline | None = None
        self.deadline = math.inf
        """When the caller no longer waits, on `perf_counter`'s clock."""

    def finish(self, answer: Answer) -> None:
        """Give the answer; it is written when those before it are."""
        self.answer = answer
        self.work = None  # it refers back to this exchange: only the collector could free the two
        self.carrier.deliver()
