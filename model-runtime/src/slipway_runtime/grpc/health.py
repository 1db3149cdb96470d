"""The ``grpc.health.v1`` service, as probes and load balancers ask it."""

from __future__ import annotations

from collections.abc import Iterator

from slipway_runtime.grpc.calls import Call, Method
from slipway_runtime.grpc.messages import HEALTH, INFERENCE, decoded, message_class
from slipway_runtime.grpc.status import CallFailed, Code

_Request = message_class("grpc.health.v1.HealthCheckRequest")
_Answer = message_class("grpc.health.v1.HealthCheckResponse")
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_SERVICES = frozenset({"", INFERENCE, HEALTH})


class Health:
    """Says whether this pod wants requests, and tells those who watch when that changes."""

    def __init__(self, watchers: int) -> None:
        self._limit = watchers
        self._serving = False
        self._watchers: list[tuple[Call, str]] = []

    def methods(self) -> Iterator[tuple[str, Method]]:
        """Give what it answers, by path."""
        yield f"{HEALTH}/Check", Method("health", self._check)
        yield f"{HEALTH}/Watch", Method("health", self._watch, lasts=True)

    def say(self, *, serving: bool) -> None:
        """Change what is said."""
        if serving == self._serving:
            return
        self._serving = serving
        self._watchers = [(call, service) for call, service in self._watchers if not call.closed]
        for call, service in self._watchers:
            call.send(self._status(service))

    def _status(self, service: str) -> bytes:
        status = (_SERVING if self._serving else _NOT_SERVING) if service in _SERVICES else _SERVICE_UNKNOWN
        written: bytes = _Answer(status=status).SerializeToString()
        return written

    def _check(self, call: Call, message: bytes) -> None:
        service = decoded(_Request, message).service
        if service not in _SERVICES:
            raise CallFailed(Code.NOT_FOUND, f'there is no service of that name here; ask about "{INFERENCE}" or ""')
        call.answer(self._status(service))

    def _watch(self, call: Call, message: bytes) -> None:
        service = decoded(_Request, message).service
        self._watchers = [(other, name) for other, name in self._watchers if not other.closed]
        if len(self._watchers) >= self._limit:
            raise CallFailed(Code.RESOURCE_EXHAUSTED, "too many streams watch this server's health")
        self._watchers.append((call, service))
        call.send(self._status(service))
