"""Giving memory back after a burst.

The C library keeps what large requests were held in, for the next one; in a pod that is memory
which the node does not have for others. Twice a second this compares the resident memory with the
least that was seen, and, at most every few seconds, hands back what is free.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

_log = logging.getLogger(__name__)

_KEPT_BYTES = 24 << 20
"""So much above the least is not worth the milliseconds that giving it back takes."""
_PAUSE_SECONDS = 3.0
_LONGEST_PAUSE_SECONDS = 60.0
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


_ARENA_MAX = -8
"""``M_ARENA_MAX`` of the C library's ``malloc.h``."""


def share_one_heap() -> None:
    """Let all threads allocate from one heap, where the C library can; call it before the second thread starts.

    One for each thread spares them a lock that Python's own makes superfluous, and each keeps what a burst left.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_ARENA_MAX, 1)


def resident() -> int:
    """Give this process's resident bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def _trim() -> None:
    """Collect cycles, and hand free memory back to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Thrift:
    """Notices when there is something to give back."""

    def __init__(
        self,
        held: Callable[[], int] = resident,
        give_back: Callable[[], None] = _trim,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._held = held
        self._give_back = give_back
        self._clock = clock
        self._least = self._last = held()
        self._pause = _PAUSE_SECONDS
        self._next = 0.0

    def tick(self) -> None:
        """Give back what is worth it; call it twice a second."""
        held, now = self._held(), self._clock()
        if held > self._last + _KEPT_BYTES:
            self._pause = _PAUSE_SECONDS
            self._next = min(self._next, now + self._pause)
        if held < self._least + _KEPT_BYTES or now < self._next:
            return
        self._give_back()
        self._last = self._held()
        self._least = min(self._least, self._last)
        # What is in use now may be free soon: ask again, but ever less often while nothing grows.
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        _log.info("gave %d MB back", max(0, held - self._last) >> 20)
