"""A control plane for the whole run, and a count of the cases for the last line."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterator

import pytest

from lab.plane import Plane, slipway_plane

COUNT: collections.Counter[str] = collections.Counter()


@pytest.fixture(scope="session")
def plane() -> Iterator[Plane]:
    with slipway_plane() as started:
        yield started


@pytest.fixture(scope="session")
def everything() -> bool:
    """Every write of every flow, and not a sample of them."""
    return os.environ.get("SLIPWAY_FAULTS") == "all"


@pytest.fixture(scope="session")
def count() -> collections.Counter[str]:
    """Cases by what was done to them."""
    return COUNT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNT:
        terminalreporter.write_line(f"fault cases run: {sum(COUNT.values())} ({', '.join(_words())})")


def _words() -> list[str]:
    return [f"{number} {what}" for what, number in sorted(COUNT.items())]
