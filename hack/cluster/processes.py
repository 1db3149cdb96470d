"""Starts and finds the cluster's processes, and never mistakes another's for one of ours.

A process is ours when its process id, its start time since boot and its whole command line are those of the
record that we wrote; or, where a start was interrupted before the record was, when its environment carries
our mark and its command line is the one that we would start.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "SLIPWAY_CLUSTER_COMPONENT"
LOG_LIMIT = 20_000_000
PROC = Path("/proc")
_CHILDREN: list[subprocess.Popen[bytes]] = []
"""What this very process started: it is also the one to collect them if they end before it does."""


@dataclass(frozen=True)
class Running:
    """A process as /proc shows it."""

    pid: int
    started: int
    """Clock ticks since boot: with the id it names one process for as long as the machine runs."""
    arguments: tuple[str, ...]


def observe(pid: int, proc: Path = PROC) -> Running | None:
    """Return a process as it is now, or None where it is gone or only waits to be reaped."""
    try:
        status = (proc / str(pid) / "stat").read_text(errors="replace")
        command = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    state, started = parse_stat(status)
    if state in "ZX":
        return None
    return Running(pid, started, tuple(command.decode(errors="replace").rstrip("\0").split("\0")))


def parse_stat(line: str) -> tuple[str, int]:
    """Read state and start time from ``/proc/<pid>/stat``; a name may hold blanks and parentheses.

    >>> parse_stat("7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0")
    ('S', 4242)
    """
    after = line.rpartition(")")[2].split()
    return after[0], int(after[19])


@dataclass(frozen=True)
class Records:
    """The folder with one record for each process that we started."""

    folder: Path
    owner: str
    """Tells two clusters of one machine apart: the state folder of this one."""

    def find(self, name: str) -> Running | None:
        """Return the process of a component if it runs, whatever was interrupted before."""
        recorded = self._read(name)
        if recorded is not None:
            now = observe(recorded.pid)
            if now == recorded:
                return now
        for each in marked(f"{self.owner}:{name}"):
            self._write(name, each)
            return each
        return None

    def start(
        self, name: str, arguments: Sequence[str], *, log: Path, environment: dict[str, str], cwd: Path
    ) -> Running:
        """Start a component in a session of its own; it outlives us."""
        rotate(log)
        with log.open("ab") as out:
            child = subprocess.Popen(
                list(arguments),
                cwd=cwd,
                env={**environment, MARK: f"{self.owner}:{name}"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # whatever ours is: containerd makes the pods' root folders by it
            )
        _CHILDREN.append(child)
        running = observe(child.pid) or Running(child.pid, -1, tuple(arguments))
        self._write(name, running)
        return running

    def forget(self, name: str) -> None:
        """Drop the record of a component that has ended."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Running | None:
        try:
            found = json.loads(self._path(name).read_text())
            return Running(int(found["pid"]), int(found["started"]), tuple(found["arguments"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no record, or one that a full disk or a power cut has cut short

    def _write(self, name: str, running: Running) -> None:
        fresh = self._path(name).with_suffix(".new")
        fresh.write_text(
            json.dumps({"pid": running.pid, "started": running.started, "arguments": list(running.arguments)})
        )
        fresh.rename(self._path(name))


def marked(value: str, proc: Path = PROC) -> list[Running]:
    """Return the processes that were started as the component ``value``, not those that they started."""
    found = []
    wanted = f"{MARK}={value}".encode()
    for pid in pids(proc):
        try:
            environment = (proc / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted not in environment.split(b"\0"):
            continue
        running = observe(pid, proc)
        # A component leads its session; what it started carries the mark too, but does not.
        if running is not None and _leads_session(pid, proc):
            found.append(running)
    return found


def pids(proc: Path = PROC) -> list[int]:
    """Return the id of every process."""
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def stop(running: Iterable[Running], *, patience: float = 10.0) -> None:
    """End processes and wait until they are gone: politely, then by force."""
    left = [each for each in running if observe(each.pid) == each]
    for sent, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
        for each in left:
            _send(each, sent)
        left = _wait_gone(left, wait)
        if not left:
            return


def _send(running: Running, sent: signal.Signals) -> None:
    # The handle is taken first and the identity checked after: what it names can no longer change.
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(running.pid)
        try:
            if observe(running.pid) == running:
                signal.pidfd_send_signal(handle, sent)
        finally:
            os.close(handle)


def _wait_gone(left: list[Running], seconds: float) -> list[Running]:
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        _reap()
        left = [each for each in left if _lingers(each)]
        if left:
            time.sleep(0.05)
    return left


def _lingers(running: Running) -> bool:
    """Tell whether a process is still there; one that is ending has lost its command line, not yet its ports."""
    now = observe(running.pid)
    return now is not None and now.started == running.started


def _reap() -> None:
    """Collect children of ours that have ended, as nobody else would while we run."""
    for child in _CHILDREN:
        child.poll()


def _leads_session(pid: int, proc: Path) -> bool:
    try:
        line = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    return int(line.rpartition(")")[2].split()[3]) == pid


def rotate(log: Path, limit: int = LOG_LIMIT) -> None:
    """Keep one old log, so that a cluster of many weeks fills no disk."""
    if log.exists() and log.stat().st_size > limit:
        log.rename(log.with_suffix(".log.1"))
