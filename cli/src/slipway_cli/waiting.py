"""Waiting for a deployment to get somewhere: look, say what changed, sleep until the bell rings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from slipway_cli.observe import changes
from slipway_cli.problem import Code, Problem
from slipway_cli.session import Session, will_pass
from slipway_cli.views.words import seconds_of

T = TypeVar("T")
_LOOK_SECONDS = 5.0


def seconds(text: str, option: str) -> float:
    """A duration of the command line.

    Raises:
        Problem: It is none.
    """
    try:
        return seconds_of(text)
    except ValueError:
        raise Problem(f"{option} {text!r} is no duration: write 90s, 10m or 1h30m", code=Code.USAGE) from None


def until(
    session: Session,
    name: str,
    look: Callable[[], tuple[T | None, str]],
    *,
    timeout: float,
    say: Callable[[str], None],
) -> T:
    """Look at every change of a deployment until there is a result.

    Args:
        session: The cluster.
        name: The deployment.
        look: Gives the result, or None and a sentence on where it stands.
        timeout: Seconds.
        say: Called with each new sentence.

    Raises:
        Problem: With `Code.TIMED_OUT` and the last sentence.
    """
    deadline = time.monotonic() + timeout
    told = ""
    with changes(session, name=name) as bell:
        while True:
            try:
                result, sentence = look()
            except Problem as problem:
                if not will_pass(problem):
                    raise
                result, sentence = None, problem.message
            if result is not None:
                return result
            if sentence != told:
                say(sentence)
                told = sentence
            left = deadline - time.monotonic()
            if left <= 0:
                raise Problem(f"not done after {timeout:.0f} s: {told}", code=Code.TIMED_OUT)
            bell.wait(min(left, _LOOK_SECONDS))
