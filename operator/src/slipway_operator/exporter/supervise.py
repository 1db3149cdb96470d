"""Running a project's command: in a process group of its own, with a clock, its output passed through and kept."""

from __future__ import annotations

import collections
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .failure import Failure

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL; a pod has 10 s in all."""

KEPT_START = 1 << 20
KEPT_END = 3 << 20
_CHUNK = 1 << 16
_LAST_CHUNKS = 64
"""More than a pipe holds: only what has left the command's group can go on writing."""


@dataclass
class Journal:
    """A bounded copy of a command's output: its first and its last mebibytes."""

    start: list[bytes] = field(default_factory=list)
    end: collections.deque[bytes] = field(default_factory=collections.deque)
    dropped: int = 0
    _start_size: int = 0
    _end_size: int = 0

    def add(self, chunk: bytes) -> None:
        """Keep a piece of output, and let go of the oldest of the end."""
        if self._start_size < KEPT_START:
            self.start.append(chunk)
            self._start_size += len(chunk)
            return
        self.end.append(chunk)
        self._end_size += len(chunk)
        while self._end_size > KEPT_END:
            oldest = self.end.popleft()
            self._end_size -= len(oldest)
            self.dropped += len(oldest)

    def write(self, path: Path) -> None:
        """Write what was kept."""
        gap = f"\n[{self.dropped} bytes left out]\n".encode() if self.dropped else b""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(self.start) + gap + b"".join(self.end))

    def last_lines(self, most: int = 12) -> str:
        """Give the last lines, without empty ones, as text."""
        pieces: list[bytes] = []
        size = 0
        for chunk in [*self.start[-64:], *self.end][::-1]:
            pieces.append(chunk)
            size += len(chunk)
            if size > _CHUNK:
                break
        text = b"".join(reversed(pieces)).decode("utf-8", "replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-most:])[-900:]


@dataclass(frozen=True)
class Outcome:
    """How a command ended. A negative ``returncode`` is the signal that killed it."""

    returncode: int
    seconds: float
    timed_out: bool
    interrupted: bool


class _Stop:
    """Remembers SIGTERM (or SIGINT) while a command runs, and puts the handlers back after."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def __enter__(self) -> _Stop:  # noqa: PYI034 - typing.Self is newer than Python 3.9
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        with suppress(OSError):
            os.write(self._wake_write, b".")

    @property
    def wake(self) -> int:
        """Readable once a signal came, so that waiting ends at once."""
        return self._wake_read


def kill_group(process: subprocess.Popen[bytes], *, grace: float = GRACE_SECONDS) -> None:
    """End a process and everything that it started: TERM first, KILL after the grace."""
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _start(command: tuple[str, ...], cwd: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(command),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        message = (
            f"{command[0]!r} is not in the project's environment ({error.filename}: no such file). "
            "Images have Python and the locked packages, and no shell: use [python, -m, your.module]."
        )
        raise Failure("CommandNotFound", message) from error
    except OSError as error:
        message = f"{command[0]!r} cannot be run: {error.strerror}. Use [python, -m, your.module]."
        raise Failure("CommandNotFound", message) from error


@dataclass(frozen=True)
class Run:
    """What to run, where, and for how long."""

    command: tuple[str, ...]
    cwd: Path
    env: dict[str, str]
    timeout_seconds: float


def supervise(run: Run, journal: Journal) -> Outcome:
    """Run a command to its end, or to its time limit, or until this process is told to stop.

    Raises:
        Failure: ``CommandNotFound``.
    """
    began = time.monotonic()
    deadline = began + run.timeout_seconds
    timed_out = False
    with _Stop() as stop, selectors.DefaultSelector() as selector:
        process = _start(run.command, run.cwd, run.env)
        stream = process.stdout
        if stream is None:
            raise RuntimeError("a pipe was asked for")
        os.set_blocking(stream.fileno(), False)
        selector.register(stream, selectors.EVENT_READ)
        selector.register(stop.wake, selectors.EVENT_READ)
        while process.poll() is None and not stop.asked:
            left = deadline - time.monotonic()
            if left <= 0:
                timed_out = True
                break
            # A second at most: a child that closes its output and lives on is seen by poll() alone.
            for key, _ in selector.select(min(left, 1.0)):
                if key.fileobj is stream and not _pass_on(stream.fileno(), journal):
                    selector.unregister(stream)
        if process.poll() is None:
            kill_group(process)
        # What the command left running in its group would outlive its pod's step, and may write without end.
        _signal_group(process.pid, signal.SIGKILL)
        for _ in range(_LAST_CHUNKS):
            if not _pass_on(stream.fileno(), journal):
                break
        stream.close()
        returncode = process.wait()
    return Outcome(returncode, time.monotonic() - began, timed_out, stop.asked)


def _pass_on(descriptor: int, journal: Journal) -> bool:
    """Copy what is there to our own output; False when there is no more now, or ever."""
    try:
        chunk = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return False
    if not chunk:
        return False
    journal.add(chunk)
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    return True
