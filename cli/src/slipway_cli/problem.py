"""What a person is told when a command cannot do what was asked, and the exit codes that programs go by."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Exit codes; docs/cli.md lists them."""

    OK = 0
    PROBLEM = 1
    """The command could not do it: no such deployment, no cluster, no right."""
    USAGE = 2
    """The command line is wrong."""
    UNDER_WAY = 3
    """Not ready yet, and nothing is wrong."""
    FAILED = 4
    """A person must change something, or the operator refused the request."""
    TIMED_OUT = 5
    """Still under way when the time was over."""
    HELD = 6
    """Rolled back or aborted: something answers, and it is not what the spec asks for."""
    PAUSED = 7
    """A rollout waits for somebody to go on with it."""
    INTERRUPTED = 130


class Problem(Exception):  # noqa: N818 - reads as what it is; many are nobody's error
    """Ends a command with a sentence.

    Args:
        message: What is wrong and what to change, in a sentence or two.
        code: The exit code.
    """

    def __init__(self, message: str, *, code: Code = Code.PROBLEM) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
