"""How calls end: gRPC's status codes, and the runtime's errors in their terms."""

from __future__ import annotations

from enum import IntEnum

from slipway_runtime.errors import (
    EngineFailed,
    Impatient,
    InvalidRequest,
    Overloaded,
    Refused,
    SlipwayRuntimeError,
    TooLarge,
    TooLate,
    Unavailable,
    UnknownModel,
)
from slipway_runtime.http.answers import LEFT


class Code(IntEnum):
    """Those codes of https://grpc.io/docs/guides/status-codes/ that are used here."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_CODES: dict[type[SlipwayRuntimeError], Code] = {
    InvalidRequest: Code.INVALID_ARGUMENT,
    UnknownModel: Code.NOT_FOUND,
    TooLarge: Code.RESOURCE_EXHAUSTED,
    Refused: Code.INVALID_ARGUMENT,
    EngineFailed: Code.INTERNAL,
    Overloaded: Code.UNAVAILABLE,
    Unavailable: Code.UNAVAILABLE,
    TooLate: Code.DEADLINE_EXCEEDED,
    Impatient: Code.DEADLINE_EXCEEDED,
}

HTTP = {
    Code.OK: 200,
    Code.CANCELLED: LEFT,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 413,
    Code.UNIMPLEMENTED: 404,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
"""What the same outcome is called over HTTP: one set of codes in the metrics, whichever door was taken."""


class CallFailed(SlipwayRuntimeError):  # noqa: N818 -- named after what happened
    """A call ends with a code of gRPC's own."""

    def __init__(self, code: Code, message: str, counted: int | None = None) -> None:
        """Describe it.

        Args:
            code: What the client gets.
            message: As of any error.
            counted: Its status in the metrics, where that is not `HTTP`'s: gRPC has one code for faults of either side.
        """
        super().__init__(message)
        self.code = code
        self.counted = HTTP[code] if counted is None else counted


def code_of(error: SlipwayRuntimeError) -> Code:
    """Map one of the runtime's errors."""
    return error.code if isinstance(error, CallFailed) else _CODES.get(type(error), Code.INTERNAL)


def counted_as(error: SlipwayRuntimeError) -> int:
    """Give an error's status in the metrics."""
    if isinstance(error, CallFailed):
        return error.counted
    return LEFT if isinstance(error, Impatient) else HTTP[code_of(error)]
