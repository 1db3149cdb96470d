"""Entry point of ``kubectl slipway`` and ``slipway``: errors become sentences and exit codes, never a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cyclopts

from slipway_cli import screen
from slipway_cli.app import app
from slipway_cli.problem import Code, Problem
from slipway_operator.builder.errors import StepFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    screen.lenient()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except Problem as problem:
        return _end(problem.message, problem.code)
    except StepFailed as failed:
        return _end(f"{failed.reason}: {failed.message}")
    except BrokenPipeError:
        # `… | head`: nobody reads on. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.OK
    except OSError as error:
        # A full disk, a folder that may not be written to: the machine's, not a bug of ours.
        return _end(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except KeyboardInterrupt:
        return Code.INTERRUPTED


def _run(words: list[str]) -> int:
    try:
        ended = app(words, exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        # It has been printed, with what could have been meant.
        return Code.USAGE
    return ended if isinstance(ended, int) else Code.OK


def _end(message: str, code: Code = Code.PROBLEM) -> int:
    print(f"slipway: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
