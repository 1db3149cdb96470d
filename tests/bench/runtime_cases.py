"""What `bench_runtime.py` asks: the core cases, which prove the targets, and the whole matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from tests.bench.runtime_peers import PEER_LIST

EVERYBODY = tuple(peer.name for peer in PEER_LIST)
OURS, ALL_ON, BASE, HELLO = "Slipway", "Slipway, all on", "MLServer, no workers", "uvloop, hello"
ANSWERING = tuple(name for name in EVERYBODY if name != HELLO)
MODELS_SERVED = tuple(name for name in ANSWERING if name != ALL_ON)
SOME = (OURS, ALL_ON, BASE, "FastAPI, joblib", "uvicorn, raw ASGI")
BINARY = (OURS, BASE, "MLServer, ONNX Runtime", "KServe")
GRPC = (OURS, BASE, "MLServer, as installed", "MLServer, ONNX Runtime", "KServe")
WATCHED_BINARY, WATCHED_GRPC = (OURS, ALL_ON, *BINARY[1:]), (OURS, ALL_ON, *GRPC[1:])
FAST = (OURS, ALL_ON, BASE, "MLServer, ONNX Runtime", "FastAPI, joblib", "uvicorn, raw ASGI")
"""Of whom one or another may keep up with 2,000 requests a second."""
WITH_LIVE = (OURS, ALL_ON, BASE)


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
    """json, binary, grpc or health."""
    streams: int = 1
    """Calls at once on each connection of gRPC."""
    rate: int = 0
    """Requests a second of an open loop; 0: a closed one."""
    beside: str = ""
    """What one client more sends meanwhile, as large as it may be: csv, objects or json; empty: there is none."""


def _large(name: str, peers: tuple[str, ...], form: str = "json", beside: str = "") -> Case:
    return Case(name, "large", "logistic", 1, 64, peers, form, rate=200, beside=beside)


CORE = (
    Case("JSON, 1 row, 64 connections", "one-row", "logistic", 1, 64, EVERYBODY),
    Case("JSON, 1 row, 16 connections", "few-connections", "logistic", 1, 16, EVERYBODY),
    Case("JSON, 1 row, 1 connection", "few-connections", "logistic", 1, 1, EVERYBODY),
    Case("JSON, 100 rows, 16 connections", "hundred-rows", "logistic", 100, 16, ANSWERING),
    Case("binary, 100 rows, 16 connections", "hundred-rows", "logistic", 100, 16, WATCHED_BINARY, "binary"),
    *(
        Case(f"JSON, 1 row, open loop of {rate:,}/s", "steady", "logistic", 1, 64, peers, rate=rate)
        for rate, peers in ((200, ANSWERING), (650, ANSWERING), (2000, FAST))
    ),
    Case("gRPC, 1 row, 4 connections of 16 streams", "grpc", "logistic", 1, 4, WATCHED_GRPC, "grpc", 16),
    Case("gRPC, 1 row, 1 connection of 1 stream", "grpc", "logistic", 1, 1, WATCHED_GRPC, "grpc"),
    Case("boosting, JSON, 1 row, 64 connections", "models", "boosting", 1, 64, SOME),
    Case("forest, JSON, 1 row, 64 connections", "models", "forest", 1, 64, SOME),
    Case("flights, JSON, 1 row, 64 connections", "models", "flights", 1, 64, SOME),
    _large("1 row at 200/s", (OURS, ALL_ON, BASE, "FastAPI, joblib")),
    _large("1 row at 200/s beside a large request (JSON)", (BASE, "FastAPI, joblib"), beside="json"),
    _large("1 row at 200/s beside a large request (CSV)", (OURS, ALL_ON), beside="csv"),
    _large("1 row at 200/s beside a large request (objects)", (OURS, ALL_ON), beside="objects"),
    _large("live at 200/s", WITH_LIVE, "health"),
    _large("live at 200/s beside a large request (JSON)", (BASE,), "health", "json"),
    _large("live at 200/s beside a large request (CSV)", (OURS, ALL_ON), "health", "csv"),
    _large("live at 200/s beside a large request (objects)", (OURS, ALL_ON), "health", "objects"),
)

CORE_PARTS = (*dict.fromkeys(case.part for case in CORE), "facts")
"""What can be measured by itself; the last one is starts, memory and sizes."""
MODELS = ("logistic", "boosting", "forest", "flights")
FULL_PARTS = (*MODELS, "steady", "large", "facts")
"""The same of the whole matrix."""


def matrix() -> tuple[Case, ...]:
    """Give every model with one and 100 rows, each form, and 1, 16 and 64 connections; and what else the core has.

    A part is a model, so that each server begins once for each. What the core asks, too, keeps its name.
    """
    core = {_way(case): case for case in CORE}
    cases = []
    for model, rows, connections in product(MODELS, (1, 100), (1, 16, 64)):
        plain = f"{model}, {{}}, {rows} row{'s' if rows > 1 else ''}, {connections} connection{'s'[: connections > 1]}"
        some = (
            Case(plain.format("JSON"), model, model, rows, connections, MODELS_SERVED),
            Case(plain.format("binary"), model, model, rows, connections, BINARY, "binary"),
            Case(plain.format("gRPC"), model, model, rows, connections, GRPC, "grpc"),
        )
        for case in some:
            known = core.pop(_way(case), case)
            both = tuple(name for name in EVERYBODY if name in {*case.peers, *known.peers})
            cases.append(replace(case, name=known.name, peers=both))
    rest = (case if case.part in FULL_PARTS else replace(case, part=case.model) for case in core.values())
    return (*cases, *rest)


def _way(case: Case) -> tuple[object, ...]:
    # The same at a fixed rate, alone, is asked again as what a large request is compared with.
    part = case.part if case.rate else ""
    return case.model, case.rows, case.connections, case.form, case.streams, case.rate, case.beside, part
