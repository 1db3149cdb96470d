"""Starting other programs: no shell, a time limit, a bounded memory of what they said."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02
_WATCH_SECONDS = 0.5
_KEPT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a program ended.

    Attributes:
        code: Exit code; negative: ended by that signal.
        out: Standard output, at most the first 64 MiB.
        errors: Standard error, at most the last MiB.
        timed_out: True when its time limit ended it.
    """

    code: int
    out: bytes
    errors: str
    timed_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to start and within which bounds.

    Attributes:
        command: Program and arguments.
        variables: Its whole environment.
        folder: Its working directory.
        seconds: After so long it is killed, with all that it started.
        given: Its standard input.
        watch: Called twice a second while it runs; what it raises ends the program.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    folder: Path | None = None
    seconds: float = 600
    given: bytes = b""
    watch: Callable[[], None] | None = None

    def run(self) -> Said:
        """Start it and wait for its end."""
        # Files rather than pipes: nothing blocks, and what is kept is bounded when it is read.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            given.write(self.given)
            given.seek(0)
            process = subprocess.Popen(
                list(self.command),
                env=dict(self.variables),
                cwd=self.folder,
                stdin=given,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
            try:
                timed_out = self._wait(process)
            finally:
                end(process)
            out.seek(0)
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _KEPT_BYTES))
            return Said(
                code=process.returncode,
                out=out.read(64 * _KEPT_BYTES),
                errors=errors.read().decode("utf-8", "replace"),
                timed_out=timed_out,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + self.seconds
        looked = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS if self.watch is None else min(_POLL_SECONDS * 5, _WATCH_SECONDS))
                return False
            now = time.monotonic()
            if now > deadline:
                return True
            if self.watch is not None and now - looked >= _WATCH_SECONDS:
                looked = now
                self.watch()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that was started in its own session, with its children, unless it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
