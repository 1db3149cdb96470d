"""The first process: forks workers, replaces those that die, and ends with the last of them."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from time import monotonic

_log = logging.getLogger(__name__)

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1
_QUICK_SECONDS = 5.0
_QUICK_DEATHS = 5
"""A worker that dies so often so soon would do so for ever: the pod should be seen to fail."""


class Supervisor:
    """Looks after so many workers."""

    def __init__(
        self, workers: int, work: Callable[[int], int], lost: Callable[[int], None], stopping: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            workers: Their number.
            work: What a worker does, given its place; returns its exit status.
            lost: Told of the place of a worker that died, before there is another.
            stopping: Told when no worker will be replaced any more.
        """
        self._workers = workers
        self._work = work
        self._lost = lost
        self._when_stopping = stopping
        self._places: dict[int, int] = {}
        self._begun: dict[int, float] = {}
        self._quick_deaths = 0
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Run until told to stop and all workers have ended; 1 if they cannot live, or one failed to stop well."""
        # Waited for one by one, so that none is missed between two looks.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for place in range(self._workers):
            self._fork(place)
        while self._places:
            number = signal.sigwait(_SIGNALS)
            if number == signal.SIGCHLD:
                self._reap()
            else:
                self._stop()
        return self._status

    def _fork(self, place: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _end_with_parent()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
                status = self._work(place)
            except BaseException:  # noqa: BLE001 -- a worker that failed in any way ends, and is replaced
                _log.exception("worker %d failed", place)
            finally:
                sys.stderr.flush()
                os._exit(status)  # nothing of the first process's is to be ended here
        self._places[pid] = place
        self._begun[pid] = monotonic()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)  # as process 1 it has orphans to bury, too
            except ChildProcessError:
                return
            if pid == 0:
                return
            place = self._places.pop(pid, None)
            if place is not None:
                self._ended(place, os.waitstatus_to_exitcode(status), monotonic() - self._begun.pop(pid))

    def _ended(self, place: int, code: int, lived: float) -> None:
        self._lost(place)
        if self._stopping:
            # Told to end before it had begun to listen for signals, it ends by the signal itself.
            if code not in (0, -signal.SIGTERM):
                self._status = 1
            return
        how = f"signal {-code}" if code < 0 else f"status {code}"
        self._quick_deaths = self._quick_deaths + 1 if lived < _QUICK_SECONDS else 0
        if self._quick_deaths >= _QUICK_DEATHS:
            _log.error("workers keep ending at once (%s): giving up", how)
            self._status = 1
            self._stop()
            return
        _log.error("worker %d ended with %s after %.1f s; another takes its place", place, how, lived)
        self._fork(place)

    def _stop(self) -> None:
        """Have all workers end; told twice, they end at once."""
        if not self._stopping:
            self._stopping = True
            self._when_stopping()
        for pid in self._places:
            os.kill(pid, signal.SIGTERM)


def _end_with_parent() -> None:
    """Have the kernel end this worker when the first process is gone: nobody would look after it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
