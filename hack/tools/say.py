"""Progress for people: one line when a step starts, one when it ends, and a sign of life in between."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

SIGN_OF_LIFE_SECONDS = 15.0


def line(text: str) -> None:
    """Print one line at once, to standard error: standard output is for answers."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str, hint: str = "") -> Iterator[None]:
    """Announce a step that may take long, repeat the elapsed time while it runs, and say how long it took.

    Args:
        what: The step, as "building helm 4.3.1".
        hint: How long to expect, as "about 2 minutes".
    """
    started = time.monotonic()
    over = threading.Event()
    line(f"• {what}{f' ({hint})' if hint else ''}")

    def repeat() -> None:
        while not over.wait(SIGN_OF_LIFE_SECONDS):
            line(f"  … {what}: {elapsed(time.monotonic() - started)}")

    ticker = threading.Thread(target=repeat, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
    line(f"✓ {what}: {elapsed(time.monotonic() - started)}")


def elapsed(seconds: float) -> str:
    """Write a duration the way people say it.

    >>> elapsed(3.21), elapsed(75), elapsed(3700)
    ('3.2 s', '1 min 15 s', '1 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(count: float) -> str:
    """Write a number of bytes the way people say it.

    >>> size(900), size(12_600_000), size(3_400_000_000)
    ('900 B', '13 MB', '3.4 GB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} GB"
