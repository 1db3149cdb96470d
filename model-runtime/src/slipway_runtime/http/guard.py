"""Who is let in: callers that show a key; and, on the port for probes, anybody, to health and metrics alone."""

from __future__ import annotations

from slipway_runtime.http.answers import Answer, failure
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.security.keys import ApiKeys

_HEALTH = (b"/v2/health/live", b"/v2/health/ready")
_PROBES = (*_HEALTH, b"/metrics")


class Guard:
    """Looks at the head of each request before its body is read."""

    def __init__(self, keys: ApiKeys | None) -> None:
        self._keys = keys

    def refusal_of(self, exchange: Exchange, *, is_probe: bool) -> Answer | None:
        """Refuse a request, or let it in (None)."""
        if is_probe:
            return None if exchange.target in _PROBES else failure(404, "this port has health and metrics alone")
        if self._keys is None or exchange.target in _HEALTH or self._keys.allow(exchange.headers):
            return None
        return failure(
            401, "show a key: Authorization: Bearer <key>, or X-Api-Key: <key>", b"www-authenticate: Bearer\r\n"
        )
