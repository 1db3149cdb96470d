"""A thread that reads large requests and writes large answers, so that small requests need not wait for them.

Python runs one thread at a time, so nothing becomes faster by it; but the loop gets its turn in between. What
is one call of C (to parse JSON) still keeps it: 5 ms for each MiB.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from slipway_runtime.dataplane import Work
from slipway_runtime.errors import Overloaded

T = TypeVar("T")

READ_APART = 1 << 17
"""Bytes of a request from which on it is read apart: some milliseconds of work."""
WRITE_APART = 1 << 12
"""Rows of an answer from which on it is written apart."""
_MOST_BYTES = 1 << 26
_SWITCH_SECONDS = 0.0005
"""How long the loop waits at most for its turn; Python's own 5 ms would be felt by every small request."""


class Apart:
    """The thread, which starts when it is first needed."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._bytes = 0

    def read(
        self,
        size: int,
        read: Callable[[], T],
        then: Callable[[T], None],
        guarded: Callable[[Callable[[], None]], None],
    ) -> Work | None:
        """Read a request and go on: a small one at once, a large one in the thread, and then on the loop.

        Args:
            size: Bytes of the request.
            read: Reads it; what it raises when it is called at once is the caller's to handle.
            then: Goes on with what was read.
            guarded: Runs on the loop what may raise, and gives the client the error.

        Returns:
            What stands for the large one meanwhile: once it is cancelled nothing goes on. None: it went on.
        """
        if size < READ_APART:
            then(read())
            return None
        waiting = Work({}, 0, lambda _: None)

        def go_on(result: Callable[[], T]) -> None:
            if waiting.is_wanted:
                guarded(lambda: then(result()))

        self.run(size, read, go_on)
        return waiting

    def run(self, size: int, act: Callable[[], T], then: Callable[[Callable[[], T]], None]) -> None:
        """Run something in the thread.

        Args:
            size: Bytes that are kept in memory until it has run.
            act: What to run.
            then: Is called on the loop with what gives the result, or raises what ``act`` raised.

        Raises:
            Overloaded: If too much is waiting for the thread.
        """
        if self._bytes and self._bytes + size > _MOST_BYTES:
            raise Overloaded("too many large requests are waiting; try again in a moment")
        if self._thread is None:
            sys.setswitchinterval(_SWITCH_SECONDS)
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slipway-apart")
        self._bytes += size
        loop = asyncio.get_running_loop()

        def ended(future: Future[T]) -> None:
            self._bytes -= size
            then(future.result)

        self._thread.submit(act).add_done_callback(lambda future: _tell(loop, ended, future))


def _tell(loop: asyncio.AbstractEventLoop, ended: Callable[[Future[T]], None], future: Future[T]) -> None:
    try:
        loop.call_soon_threadsafe(ended, future)
    except RuntimeError:
        if not loop.is_closed():
            raise
