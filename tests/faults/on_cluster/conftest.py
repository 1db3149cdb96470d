"""The cluster that `make cluster-up` started, without the operator that `make install` put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.install import Lab, lab_of_its_own
from lab.installed import installed_plane
from lab.plane import Plane

TOLD: list[str] = []


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """The cluster, and a Git server of this test's own."""
    with lab_of_its_own(tmp_path / "git") as found:
        yield found


@pytest.fixture
def installed(lab: Lab, tmp_path: Path) -> Iterator[Plane]:
    with installed_plane(lab.kube, tmp_path) as plane:
        yield plane


@pytest.fixture(scope="session")
def tell() -> list[str]:
    """Lines to end the run with."""
    return TOLD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in TOLD:
        terminalreporter.write_line(line)
