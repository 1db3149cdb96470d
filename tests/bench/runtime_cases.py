"""What `bench_runtime.py` asks: the core cases, which prove the targets, and the whole matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from tests.bench.runtime_peers import PEER_LIST

RATE = 650
"""Requests a second of the open loop."""

EVERYBODY = tuple(peer.name for peer in PEER_LIST)
OURS, BASE, HELLO = "Slipway", "MLServer, no workers", "uvloop, hello"
MODELS_SERVED = tuple(name for name in EVERYBODY if name != HELLO)
SOME = (OURS, BASE, "FastAPI, joblib", "uvicorn, raw ASGI")
BINARY = (OURS, BASE, "MLServer, ONNX Runtime", "KServe")
GRPC = (OURS, BASE, "MLServer, as installed", "MLServer, ONNX Runtime", "KServe")


@dataclass(frozen=True)
class Case:
    """One way to ask."""

    name: str
    part: str
    """With which cases it is measured in one go."""
    model: str
    rows: int
    connections: int
    peers: tuple[str, ...]
    form: str = "json"
    """json, binary, grpc, or open (JSON at a fixed rate)."""
    streams: int = 1
    """Calls at once on each connection of gRPC."""


CORE = (
    Case("JSON, 1 row, 64 connections", "one-row", "logistic", 1, 64, EVERYBODY),
    Case("JSON, 1 row, 16 connections", "few-connections", "logistic", 1, 16, EVERYBODY),
    Case("JSON, 1 row, 1 connection", "few-connections", "logistic", 1, 1, EVERYBODY),
    Case("JSON, 100 rows, 16 connections", "hundred-rows", "logistic", 100, 16, MODELS_SERVED),
    Case("binary, 100 rows, 16 connections", "hundred-rows", "logistic", 100, 16, BINARY, "binary"),
    Case(f"JSON, 1 row, open loop of {RATE}/s", "steady", "logistic", 1, 64, SOME, "open"),
    Case("gRPC, 1 row, 4 connections of 16 streams", "grpc", "logistic", 1, 4, GRPC, "grpc", 16),
    Case("gRPC, 1 row, 1 connection of 1 stream", "grpc", "logistic", 1, 1, GRPC, "grpc"),
    Case("boosting, JSON, 1 row, 64 connections", "models", "boosting", 1, 64, SOME),
    Case("forest, JSON, 1 row, 64 connections", "models", "forest", 1, 64, SOME),
    Case("flights, JSON, 1 row, 64 connections", "models", "flights", 1, 64, (OURS, "FastAPI, joblib")),
)

PARTS = (*dict.fromkeys(case.part for case in CORE), "facts")
"""What can be measured by itself; the last one is starts, memory and sizes."""


def matrix() -> tuple[Case, ...]:
    """Give every model with one and 100 rows, each form, and 1, 16 and 64 connections; and what else the core has.

    A part is a model, so that each server begins once for each. What the core asks, too, keeps its name.
    """
    core = {_way(case): case for case in CORE}
    cases = []
    for model, rows, connections in product(("logistic", "boosting", "forest", "flights"), (1, 100), (1, 16, 64)):
        plain = f"{model}, {{}}, {rows} row{'s' if rows > 1 else ''}, {connections} connection{'s'[: connections > 1]}"
        is_table = model == "flights"
        peers = (OURS, "FastAPI, joblib") if is_table else MODELS_SERVED
        some = [Case(plain.format("JSON"), model, model, rows, connections, peers)]
        if not is_table:
            some.append(Case(plain.format("binary"), model, model, rows, connections, BINARY, "binary"))
            some.append(Case(plain.format("gRPC"), model, model, rows, connections, GRPC, "grpc"))
        for case in some:
            known = core.pop(_way(case), case)
            both = tuple(name for name in EVERYBODY if name in {*case.peers, *known.peers})
            cases.append(replace(case, name=known.name, peers=both))
    return (*cases, *(replace(case, part=case.model) for case in core.values()))


def _way(case: Case) -> tuple[object, ...]:
    return case.model, case.rows, case.connections, case.form, case.streams
