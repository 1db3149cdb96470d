"""The command ``slipway-builder``: one verb for each container of a Job.

It reads its request from ``SLIPWAY_REQUEST`` and leaves its answer, or why there is none,
as its termination message. Exit code 0 means a result, 1 a failure that is explained, 2 a
bug, whose trace is in the log.

What is imported here is small: SIGTERM is heard before the rest is loaded (the first
process of a container ignores it until then), and ``run``, which mostly has nothing to
do, ends without it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = signal.signal(signal.SIGTERM, _end_at_once)
    try:
        if words == ["run"] and not Path(os.environ.get("SLIPWAY_WORK", "/workspace"), "build", "plan.json").exists():
            print("nothing to build from source", flush=True)
            return 0
        from slipway_operator.builder import command  # noqa: PLC0415  # see above

        def terminate(_number: int, _frame: FrameType | None) -> None:
            raise command.Terminated

        signal.signal(signal.SIGTERM, terminate)
        return command.run(words, os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
