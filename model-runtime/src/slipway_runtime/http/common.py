"""Paths of a server as a whole, the same for one model and for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slipway_runtime import __version__
from slipway_runtime.errors import InvalidRequest, UnknownModel
from slipway_runtime.http.answers import Answer, ok
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.routing import Route, getting
from slipway_runtime.metrics import CONTENT_TYPE, Metrics
from slipway_runtime.model import Model
from slipway_runtime.protocol.answers import server_metadata
from slipway_runtime.protocol.requests import json_of


def server_routes(
    metrics: Metrics, models: Sequence[Model], readiness: Callable[[Exchange], Answer]
) -> dict[bytes, Route]:
    """Give what is under no model's name."""

    def described(_: Exchange) -> Answer:
        # Made when somebody asks: most pods are never looked at.
        from slipway_runtime.protocol.openapi import Served, openapi  # noqa: PLC0415 -- as above

        return ok(openapi([Served(one.signature, one.name, one.version, one.example) for one in models]))

    def indexed(exchange: Exchange) -> None:
        exchange.finish(ok(index_of(models, only_ready=_wants_ready(exchange.body))))

    return {
        b"/v2": getting("metadata", lambda _: ok(server_metadata(__version__))),
        b"/v2/health/live": getting("health", lambda _: ok({"live": True})),
        b"/v2/health/ready": getting("health", readiness),
        b"/v2/repository/index": Route("metadata", {b"GET": indexed, b"POST": indexed}),
        b"/metrics": getting("metrics", lambda _: Answer(200, metrics.render(), CONTENT_TYPE)),
        b"/openapi.json": getting("metadata", described),
    }


def index_of(models: Sequence[Model], *, only_ready: bool = False) -> list[dict[str, str]]:
    """List the models, as the protocol's extension for repositories has it."""
    found = []
    for model in models:
        ready = model.plane.is_ready
        if ready or not only_ready:
            state, reason = ("READY", "") if ready else ("UNAVAILABLE", "the model's worker is away")
            found.append({"name": model.name, "version": model.version, "state": state, "reason": reason})
    return found


def _wants_ready(body: bytes) -> bool:
    if not body:
        return False
    document: dict[str, Any] = json_of(body, '{"ready": true}')
    wanted = document.get("ready", False)
    if not isinstance(wanted, bool):
        raise InvalidRequest('"ready" must be true or false')
    return wanted


def names_of(models: Sequence[Model]) -> str:
    """Write the names of models for a sentence."""
    shown = [f'"{model.name}"' for model in models[:20]]
    return ", ".join(shown) + (f" and {len(models) - 20} more" if len(models) > 20 else "")


def not_here(models: Sequence[Model]) -> UnknownModel:
    """Say that there is no model of the name that was asked for, and which ones there are."""
    has = f"this is {names_of(models)}" if len(models) == 1 else f"here are {names_of(models)}"
    return UnknownModel(f"there is no model of that name here; {has}")


def other_version(model: Model) -> UnknownModel:
    """Say which version of a model is here."""
    return UnknownModel(f'this model is not here in that version; this is "{model.version}"')


def unknown(models: Sequence[Model], parts: list[bytes]) -> UnknownModel:
    """Say what is not there at a path, of which ``parts`` are the parts."""
    if parts[:3] == [b"", b"v2", b"models"] and len(parts) > 3:
        model = next((one for one in models if one.name.encode() == parts[3]), None)
        if model is None:
            return not_here(models)
        if parts[4:5] == [b"versions"] and parts[5:6] != [model.version.encode()]:
            return other_version(model)
    if parts[:2] == [b"", b"models"] and len(parts) > 2 and all(one.name.encode() != parts[2] for one in models):
        return not_here(models)
    return UnknownModel("there is nothing at this path; GET /v2 or POST /predict are a beginning")
