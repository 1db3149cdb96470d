"""Words for a person who watches: steps with elapsed time, and errors that say what to do."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

_START = time.monotonic()


def step(text: str) -> None:
    """Print a heading with the time since the start."""
    print(f"\n\033[1m[{_elapsed()}] {text}\033[0m", flush=True)


def line(text: str) -> None:
    """Print one line below the current heading."""
    print(f"[{_elapsed()}]   {text}", flush=True)


def command(text: str) -> None:
    """Show a command that runs now or that a person could type."""
    print(f"          \033[36m$ {text}\033[0m", flush=True)


def fail(text: str) -> NoReturn:
    """End with a sentence that says what to do next."""
    print(f"\n\033[31m{text}\033[0m", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _elapsed() -> str:
    seconds = int(time.monotonic() - _START)
    return f"{seconds // 60:2d}:{seconds % 60:02d}"
