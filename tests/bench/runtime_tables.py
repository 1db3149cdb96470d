"""The tables of docs/benchmarks.md, written from a run's JSON; the words around them are written by people."""

from __future__ import annotations

import statistics
from typing import Any

from tests.bench.runtime_cases import ANSWERING, CORE, EVERYBODY, MODELS, OURS, Case, matrix
from tests.bench.runtime_models import ROOT
from tests.bench.runtime_report import Numbers, targets

PAGE = ROOT / "docs" / "benchmarks.md"
KEEPS_UP = 0.95
"""Share of a fixed rate below which a server is said not to keep up."""
BEGIN, END = "<!-- by make bench-runtime-docs: begin -->", "<!-- by make bench-runtime-docs: end -->"


def into_docs(found: dict[str, Any]) -> None:
    """Put the tables between the page's two marks, and print them.

    Raises:
        SystemExit: If the page has no such marks.
    """
    text = PAGE.read_text(encoding="utf-8")
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise SystemExit(f"{PAGE} has no {BEGIN} and {END}")
    tables = markdown(found)
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
    print(tables)


def markdown(found: dict[str, Any]) -> str:
    """Write all tables: targets, rates, latencies, starts and memory, and why something could not be measured."""
    reasons = _Reasons(found["failed"])
    every = {case.name: case for case in matrix()}
    core = [case.name for case in CORE]
    closed = [name for name in core if not every[name].rate]
    steady = [name for name in core if "open loop" in name]
    large = [name for name in core if every[name].part == "large"]
    blocks = [_run(found), "", *_targets(found), ""]
    blocks += _block("Requests a second", closed, every, found, reasons, _rate)
    blocks += _block(f"{_LATENCIES}, closed loops", closed, every, found, reasons, _latencies)
    blocks += _block(f"{_LATENCIES}, at fixed rates", steady, every, found, reasons, _latencies)
    blocks += _block(f"{_LATENCIES}, beside a large request in a closed loop", large, every, found, reasons, _latencies)
    blocks += _large(large, found)
    blocks += _facts(found)
    for model in MODELS:
        rest = [case.name for case in matrix() if case.part == model and case.name not in core]
        blocks += _block(f"{model}, requests a second", rest, every, found, reasons, _rate)
        blocks += _block(f"{model}, {_LATENCIES.lower()}", rest, every, found, reasons, _latencies)
    blocks += reasons.lines()
    return "\n".join([*blocks, "![Slipway beside its peers](benchmarks-runtime.svg)"])


_LATENCIES = "Milliseconds, p50 / p99 / p99.9"


class _Reasons:
    """Numbers the reasons why cells are empty."""

    def __init__(self, failed: dict[str, str]) -> None:
        self._failed = failed
        self._numbers: dict[str, int] = {}

    def cell(self, who: str, case: Case) -> str:
        """Give what stands instead of a number: nothing where nobody asked."""
        if who not in case.peers:
            return ""
        why = next(
            (self._failed[key] for key in (f"{who}: {case.name}", f"{who}: {case.model}") if key in self._failed), ""
        )
        if not why:
            return ""
        return f"cannot ({self._numbers.setdefault(_line(why), len(self._numbers) + 1)})"

    def lines(self) -> list[str]:
        """Give the reasons."""
        return [*(f"- ({number}) {why}" for why, number in self._numbers.items()), ""] if self._numbers else []


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")[:200]


def _block(
    title: str, names: list[str], every: dict[str, Case], found: dict[str, Any], reasons: _Reasons, write: Any
) -> list[str]:
    """Write a table of cases, one a line, with a column for each server that one of them has."""
    rows = {name: found["medians"].get(name, {}) for name in names}
    cells = {
        name: {
            who: write(by_peer[who], every[name]) if who in by_peer else reasons.cell(who, every[name])
            for who in EVERYBODY
        }
        for name, by_peer in rows.items()
    }
    peers = [who for who in EVERYBODY if any(one[who] for one in cells.values())]
    if not peers:
        return []
    lines = [f"{title}:", "", _row(["", *peers]), _row(["---"] * (len(peers) + 1))]
    lines += [_row([name, *(one[who] for who in peers)]) for name, one in cells.items() if any(one.values())]
    return [*lines, ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rate(numbers: Numbers, _: Case) -> str:
    return f"{numbers['per_second']:,.0f}"


def _latencies(numbers: Numbers, case: Case) -> str:
    if numbers["per_second"] < case.rate * KEEPS_UP and case.part != "large":
        return f"only {numbers['per_second']:,.0f}/s"  # what waits grows, and with it what waiting takes
    return " / ".join(_short(numbers[key]) for key in ("p50", "p99", "p999"))


def _short(milliseconds: float) -> str:
    """Give two digits, or all that are before the point."""
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.{1 if milliseconds >= 1 else 2}f}"


def _run(found: dict[str, Any]) -> str:
    """Say what was run, of each part its last time."""
    parts = {one["part"]: one for one in found["parts"]}
    told = [f"{name} ({one['rounds']} rounds, {one['seconds'] / 60:.0f} min)" for name, one in parts.items()]
    return f"{found['at'][:10]}, {found['machine']}: {', '.join(told)}."


def _targets(found: dict[str, Any]) -> list[str]:
    lines = [_row(["", "reached", "with everything on", "target", "stretch"]), _row(["---"] * 5)]
    for name, reached, watched, target, stretch in targets(found):
        cells = [_number(one) for one in (reached, watched, target, stretch)]
        lines.append(_row([name, *cells]))
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _large(names: list[str], found: dict[str, Any]) -> list[str]:
    """Say how large the large requests were, and how long they took."""
    told = [
        f"- {name}, {who}: {one['large_rows']:,.0f} rows, {one['large_bytes'] / (1 << 20):.1f} MiB, "
        f"answered in {one['large_seconds']:.2f} s."
        for name in names
        for who, one in found["medians"].get(name, {}).items()
        if "large_rows" in one
    ]
    return [*told, ""] if told else []


def _facts(found: dict[str, Any]) -> list[str]:
    head = ["", "first right answer", "memory (PSS)", "processes", "installed packages"]
    lines = [_row(head), _row(["---"] * 5)]
    for who in (*ANSWERING, *EVERYBODY[len(ANSWERING) :]):
        if fact := found["facts"].get(who):
            seconds, megabytes = (statistics.median(fact[key]) for key in ("seconds", "megabytes"))
            cells = [f"{seconds:.2f} s", f"{megabytes:.0f} MB", str(fact["processes"])]
            lines.append(
                _row([who, *cells, f"{fact['installed_megabytes']:.0f} MB" if fact["installed_megabytes"] else ""])
            )
    held = found["facts"].get(OURS, {}).get("megabytes_by_workers", {})
    more = [f"{workers} workers {number:.0f} MB" for workers, number in held.items() if workers != "1"]
    if grpc := found["facts"].get(OURS, {}).get("megabytes_with_grpc"):
        more.append(f"one worker that was called by gRPC as well {grpc:.0f} MB")
    return [*lines, "", *([f"{OURS}: {', '.join(more)}."] if more else []), ""] if len(lines) > 2 else []
