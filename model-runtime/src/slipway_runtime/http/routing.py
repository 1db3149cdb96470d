"""From a request's target to its handler, and from an error to its answer: what every router does."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from slipway_runtime.errors import InvalidRequest, SlipwayRuntimeError, UnknownModel
from slipway_runtime.http.answers import Answer, answer_to, failure
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.known import Shortcut
from slipway_runtime.metrics import Metrics

_log = logging.getLogger(__name__)

Handler = Callable[[Exchange], None]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a target, and to which methods."""

    endpoint: str
    methods: dict[bytes, Handler]

    @property
    def allow(self) -> bytes:
        """The methods as an ``Allow`` header line."""
        names = list(self.methods) + ([b"HEAD"] if b"GET" in self.methods else [])
        return b"allow: " + b", ".join(names) + b"\r\n"


class Routing:
    """A table of routes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._routes: dict[bytes, Route] = {}
        self.ready = False
        """Whether this pod wants requests; the server says so."""

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later; errors become answers."""
        self._guarded(exchange, self._handle)

    def _handle(self, exchange: Exchange) -> None:
        route = self._routes.get(exchange.target) or self._find(exchange.target)
        exchange.endpoint = route.endpoint
        handler = route.methods.get(exchange.method)
        if handler is None and exchange.method == b"HEAD":
            handler = route.methods.get(b"GET")
        if handler is not None:
            if b"x-request-timeout" in exchange.headers:
                exchange.deadline = exchange.started + _timeout(exchange.headers[b"x-request-timeout"])
            handler(exchange)
            return
        allowed = ", ".join(name.decode() for name in route.methods)
        exchange.finish(failure(405, f"this path takes {allowed}", route.allow))

    def _guarded(self, exchange: Exchange, handler: Handler) -> None:
        try:
            handler(exchange)
        except SlipwayRuntimeError as error:
            self._metrics.failed(type(error).__name__)
            exchange.finish(answer_to(error))
        except Exception:  # noqa: BLE001 -- a bug must cost one request, not the connection
            _log.exception("a request could not be answered")
            exchange.finish(failure(500, "the runtime failed on this request"))

    def shortcut(self, exchange: Exchange) -> Shortcut | None:  # noqa: ARG002 -- a router of one model looks at it
        """Give what answers requests with the head of this one, where less needs to be done than `handle` does."""
        return None

    def _find(self, target: bytes) -> Route:
        """Find a route for a target that is not written exactly as the route is."""
        path = path_of(target)
        route = self._routes.get(path) or self._routes.get(path.rstrip(b"/"))
        if route is None:
            raise self._unknown(path.split(b"/"))
        return route

    def _unknown(self, parts: list[bytes]) -> UnknownModel:
        """Say what is not there; ``parts`` are those of the path."""
        raise NotImplementedError


def getting(endpoint: str, answer: Callable[[Exchange], Answer]) -> Route:
    """Make a route that answers GET at once."""

    def handler(exchange: Exchange) -> None:
        exchange.finish(answer(exchange))

    return Route(endpoint, {b"GET": handler})


def path_of(target: bytes) -> bytes:
    """Give the path that a target means, without its query."""
    if target[:7].lower() == b"http://":  # as a client writes it to a proxy
        target = b"/" + target[7:].partition(b"/")[2]
    return unquote_to_bytes(target.partition(b"?")[0])


_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,9})?")


def _timeout(value: bytes) -> float:
    """Read how long the caller waits."""
    if _SECONDS.fullmatch(value) is None:
        raise InvalidRequest("X-Request-Timeout must be a number of seconds such as 0.25")
    return float(value)
