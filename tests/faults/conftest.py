"""A control plane for the whole run, and a table of the cases as its last lines."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator

import pytest

from lab.plane import Plane, slipway_plane

CASES: collections.Counter[tuple[str, str]] = collections.Counter()


@pytest.fixture(scope="session")
def plane() -> Iterator[Plane]:
    with slipway_plane() as started:
        yield started


@pytest.fixture(scope="session")
def everything() -> bool:
    """Every fault at every write of every flow, and not a sample of them."""
    return os.environ.get("SLIPWAY_FAULTS") == "all"


@pytest.fixture(scope="session")
def count() -> Callable[[str, Iterable[str]], None]:
    """Counts cases of a flow, by the fault."""

    def add(flow: str, faults: Iterable[str]) -> None:
        CASES.update((flow, fault) for fault in faults)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _table() if CASES else ():
        terminalreporter.write_line(line)


def _table() -> Iterator[str]:
    flows = list(dict.fromkeys(flow for flow, _ in CASES))
    faults = list(dict.fromkeys(fault for _, fault in CASES))
    yield f"fault cases run: {sum(CASES.values())}"
    rows = [["fault", *flows, "all"]]
    rows += [[f, *(str(CASES[w, f] or "") for w in flows), str(sum(CASES[w, f] for w in flows))] for f in faults]
    rows.append(["all", *(str(sum(CASES[w, f] for f in faults)) for w in flows), str(sum(CASES.values()))])
    for row in rows:
        yield f"| {' | '.join(row)} |"
        if row is rows[0]:
            yield f"|{' --- |' * len(row)}"
