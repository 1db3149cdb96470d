"""Errors that rooms raise to say who must act: time, or a person. Anything else is a bug."""

from __future__ import annotations


class SlipwayError(Exception):
    """Something that status should say.

    Attributes:
        reason: CamelCase, for conditions and events.
        message: One or two sentences that say what to change.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Waiting(SlipwayError):  # noqa: N818 - reads as what it is: not an error of anybody
    """It will pass by itself.

    Attributes:
        retry_after: Seconds until the next look; None: the caller's back-off decides.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Blocked(SlipwayError):  # noqa: N818 - as above
    """A person must change something."""
