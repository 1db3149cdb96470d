"""The command ``slipway-builder``: one verb for each container of a Job.

It reads its request from ``SLIPWAY_REQUEST`` and leaves its answer, or why there is none,
as its termination message. Exit code 0 means a result, 1 a failure that is explained, 2 a
bug, whose trace is in the log.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from slipway_operator.builder.answers import write_answer
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.verbs import USAGE, call
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Failed


class Terminated(BaseException):
    """The Job is being deleted, or its time is over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    target = Path(os.environ.get("SLIPWAY_TERMINATION_LOG", "/dev/termination-log"))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        answer = call(words, Workplace.from_environment(os.environ))
    except StepFailed as failed:
        answer = Failed(reason=failed.reason, message=failed.message, retry=failed.retry)
    except Terminated:
        answer = Failed(reason="Terminated", message="the container was told to end before it was done", retry=True)
    except Exception as error:  # noqa: BLE001  # the last place that can explain it to the operator
        traceback.print_exc()
        write_answer(
            target, Failed(reason="InternalError", message=f"a bug of Slipway: {type(error).__name__}: {error}")
        )
        return 2
    if answer is not None:
        write_answer(target, answer)
    if isinstance(answer, Failed):
        print(f"failed: {answer.reason}: {answer.message}", flush=True)
        return 1
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    if sys.argv[1:] in (["--help"], ["-h"], []):
        print(USAGE)
        sys.exit(0 if sys.argv[1:] else 64)
    sys.exit(main())
