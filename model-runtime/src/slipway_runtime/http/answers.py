"""Answers as HTTP has them: status lines, headers, and errors in the protocol's form."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

import orjson

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

JSON = b"application/json"

_STATUS: dict[type[SlipwayRuntimeError], int] = {
    InvalidRequest: 400,
    UnknownModel: 404,
    TooLarge: 413,
    Refused: 422,
    EngineFailed: 500,
    Overloaded: 503,
    Unavailable: 503,
    TooLate: 504,
    Impatient: 504,
}


class Answer(NamedTuple):
    """One answer, without what every answer has."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""
    """Further header lines, each ended by CRLF."""
    counted: int = 0
    """Its status in the metrics, where that is another one."""


LEFT = 499
"""What a caller who left before its answer is counted as: no fault of the server's, as a 5xx would be."""


def ok(document: object) -> Answer:
    """Answer with a JSON document."""
    return Answer(200, orjson.dumps(document))


def failure(status: int, message: str, headers: bytes = b"") -> Answer:
    """Answer with an error in the protocol's form."""
    return Answer(status, orjson.dumps({"error": message}), headers=headers)


def answer_to(error: SlipwayRuntimeError) -> Answer:
    """Map one of the runtime's errors."""
    status = _STATUS.get(type(error), 500)
    answer = failure(status, error.message, b"retry-after: 1\r\n" if status == 503 else b"")
    return answer._replace(counted=LEFT) if isinstance(error, Impatient) else answer


class HeadWriter:
    """Writes the part of an answer before its body; what is the same in all of them only once a second."""

    def __init__(self, identity: bytes) -> None:
        """Prepare.

        Args:
            identity: Header lines that name what answers, each ended by CRLF.
        """
        self._identity = identity
        self._status = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
        self._starts: dict[int, bytes] = {}
        """Of answers in JSON, by their status."""
        self._ok_json = b""
        self._date = b""
        self.tick()

    def tick(self) -> None:
        """Take over the present time; call it once a second."""
        self._date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        self._starts.clear()
        start = self._start(200, JSON)
        self._ok_json = (start + b"x-request-id: ").replace(b"%", b"%%") + b"%b\r\ncontent-length: %d\r\n\r\n%b"

    def _start(self, status: int, content_type: bytes) -> bytes:
        """Write what is the same in all answers of a status and a type."""
        return b"%b%b%bcontent-type: %b\r\n" % (self._status[status], self._date, self._identity, content_type)

    def write_json(self, body: bytes, request_id: str) -> bytes:
        """Write head and body of an answer of status 200 in JSON on a connection that stays."""
        return self._ok_json % (request_id.encode(), len(body), body)

    def write(self, answer: Answer, request_id: str, connection: bytes) -> bytes:
        """Write a head; ``connection`` is a whole header line or nothing."""
        if answer.content_type is not JSON:
            start = self._start(answer.status, answer.content_type)
        elif (known := self._starts.get(answer.status)) is not None:
            start = known
        else:
            start = self._starts[answer.status] = self._start(answer.status, JSON)
        return b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            start,
            answer.headers,
            request_id.encode(),
            len(answer.body),
            connection,
        )
