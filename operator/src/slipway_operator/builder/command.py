"""Runs one verb and says how it ended: exit code, log and termination message."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway_operator.builder.answers import write_answer
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.verbs import USAGE, call
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Failed


class Terminated(BaseException):
    """The Job is being deleted, or its time is over."""


def run(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run one verb; returns the exit code.

    Args:
        words: The command line without the program.
        variables: The environment.
    """
    if list(words) in ([], ["--help"], ["-h"]):
        sys.stdout.write(f"{USAGE}\n")
        return 0 if words else 64
    target = Path(variables.get("SLIPWAY_TERMINATION_LOG", "/dev/termination-log"))
    try:
        answer = call(words, Workplace.from_environment(variables))
    except StepFailed as failed:
        answer = Failed(reason=failed.reason, message=failed.message, retry=failed.retry)
    except Terminated:
        answer = Failed(reason="Terminated", message="the container was told to end before it was done", retry=True)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            return _bug(target, error)
        answer = Failed(
            reason="WorkVolumeFull",
            message="the Job's volume is full: commit less, or raise jobs.workVolumeLimit of the platform",
        )
    except Exception as error:  # noqa: BLE001  # the last place that can explain it to the operator
        return _bug(target, error)
    if answer is not None:
        write_answer(target, answer)
    if isinstance(answer, Failed):
        sys.stdout.write(f"failed: {answer.reason}: {answer.message}\n")
        return 1
    return 0


def _bug(target: Path, error: Exception) -> int:
    traceback.print_exc()
    message = f"a bug of Slipway: {type(error).__name__}: {error}"
    write_answer(target, Failed(reason="InternalError", message=message))
    return 2
