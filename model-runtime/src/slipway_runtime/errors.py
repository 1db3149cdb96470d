"""What can go wrong, in the runtime's own words.

None of these knows HTTP; `slipway_runtime.http.answers` maps them. A message is meant for
the caller: it names the field and what would be right, and holds nothing of the inside.
"""

from __future__ import annotations


class SlipwayRuntimeError(Exception):
    """Base of every error that a caller, or the person who starts the runtime, may see."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The request is malformed, or does not fit the model's signature."""


class TooLarge(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The request has more rows or bytes than the runtime takes at once."""


class UnknownModel(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """No model of that name, or not in that version."""


class Refused(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The request fits the signature, but the model cannot compute an answer for its values."""


class Overloaded(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The queue is full; the same request may succeed a moment later."""


class Unavailable(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """What computes is away for the moment; the same request may succeed soon."""


class TooLate(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """What computes took longer than it may, or than a patient caller waits."""


class Impatient(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The request's own deadline passed, and was shorter than this model can be expected to need."""


class EngineFailed(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The engine broke for a reason that is not the caller's."""


class CannotServe(SlipwayRuntimeError):  # noqa: N818 -- named after the violation
    """The model must not be served: its files are not what was proven, or cannot be read."""
