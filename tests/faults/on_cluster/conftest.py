"""The cluster that `make cluster-up` started, without the operator that `make install` put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.git import GitServer, free_port
from lab.install import open_lab
from lab.installed import installed_plane
from lab.kube import Kube
from lab.plane import Plane

TOLD: list[str] = []


@pytest.fixture(scope="session")
def kube() -> Kube:
    return open_lab().kube


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    """A Git server of this test's own."""
    address = open_lab().git.address
    server = GitServer(tmp_path / "git", address, free_port(address))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def installed(kube: Kube, tmp_path: Path) -> Iterator[Plane]:
    with installed_plane(kube, tmp_path) as plane:
        yield plane


@pytest.fixture(scope="session")
def tell() -> list[str]:
    """Lines to end the run with."""
    return TOLD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in TOLD:
        terminalreporter.write_line(line)
