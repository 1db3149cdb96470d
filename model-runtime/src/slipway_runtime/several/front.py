"""HTTP for several models: whose path it is, and everything that belongs to none of them."""

from __future__ import annotations

from collections.abc import Sequence

from slipway_runtime.errors import UnknownModel
from slipway_runtime.http.answers import Answer, failure, ok
from slipway_runtime.http.common import names_of, server_routes, unknown
from slipway_runtime.http.exchange import Carrier, Exchange
from slipway_runtime.http.routes import Router
from slipway_runtime.http.routing import Handler, Route, Routing, getting, path_of
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model


class Named:
    """Stands between an exchange and its connection: the answer names the model that made it."""

    __slots__ = ("_carrier", "_exchange", "_makers")

    def __init__(self, exchange: Exchange, makers: bytes) -> None:
        self._exchange = exchange
        self._carrier: Carrier = exchange.carrier
        self._makers = makers

    def deliver(self) -> None:
        """As `Carrier`."""
        exchange = self._exchange
        exchange.carrier = self._carrier  # and is gone: only the collector could free the two
        if exchange.answer is not None:
            exchange.answer = exchange.answer._replace(headers=self._makers + exchange.answer.headers)
        self._carrier.deliver()

    def deliver_alone(self, exchange: Exchange, body: bytes, ended: float) -> bool:  # noqa: ARG002 -- as `Carrier`
        """As `Carrier`: never, as its head is not that of every answer."""
        return False


class Front(Routing):
    """Gives each request to its model's router."""

    def __init__(self, models: Sequence[Model], routers: Sequence[Router], metrics: Metrics) -> None:
        """Prepare.

        Args:
            models: All of them.
            routers: Theirs, in the same order.
            metrics: Of the server.
        """
        super().__init__(metrics)
        self._models = models
        named = [(router, model.makers_in_http) for router, model in zip(routers, models, strict=True)]
        self._by_target = {target: (router, makers) for router, makers in named for target in router.targets}
        self._by_name = {model.name.encode(): one for model, one in zip(models, named, strict=True)}
        self._routes = server_routes(metrics, models, self._readiness)
        self._routes[b"/"] = getting("page", self._listed)
        self._routes[b"/predict"] = Route("other", {b"POST": self._which("predict")})
        self._routes[b"/feedback"] = Route("other", {b"POST": self._which("feedback")})

    def handle(self, exchange: Exchange) -> None:
        """As `Routing`."""
        found = self._by_target.get(exchange.target) or self._by_path(exchange.target)
        if found is None:
            super().handle(exchange)
            return
        router, makers = found
        exchange.carrier = Named(exchange, makers)
        router.handle(exchange)

    def _by_path(self, target: bytes) -> tuple[Router, bytes] | None:
        """Find the model of a target that is not written exactly as its paths are."""
        parts = path_of(target).split(b"/")[1:]
        if parts[:1] == [b"v2"]:
            parts = parts[1:]
        return self._by_name.get(parts[1]) if parts[:1] == [b"models"] and len(parts) > 1 else None

    def _unknown(self, parts: list[bytes]) -> UnknownModel:
        return unknown(self._models, parts)

    def _readiness(self, _: Exchange) -> Answer:
        away = [model for model in self._models if not model.plane.is_ready]
        if self.ready and not away:
            return ok({"ready": True})
        why = f"the worker of {names_of(away)} is away" if away else "this pod is not ready, or stopping"
        return failure(503, why, b"retry-after: 1\r\n")

    def _which(self, what: str) -> Handler:
        def answer(_: Exchange) -> None:
            raise UnknownModel(
                f"this server has several models; POST /models/<name>/{what} with one of {names_of(self._models)}"
            )

        return answer

    def _listed(self, _: Exchange) -> Answer:
        # Made when somebody asks: most pods are never looked at.
        from slipway_runtime.http.page.listing import CONTENT_TYPE, listing  # noqa: PLC0415 -- as above

        page, headers = listing(self._models)
        return Answer(200, page, CONTENT_TYPE, headers)
