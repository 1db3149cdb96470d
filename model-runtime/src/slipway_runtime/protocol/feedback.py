"""Truths that became known later: which request, and what was right for each of its rows.

``{"id": "01a2…", "truth": 1}``, or a list with a value for each row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from slipway_runtime.errors import InvalidRequest, TooLarge
from slipway_runtime.identifiers import is_acceptable
from slipway_runtime.protocol.requests import json_of

EXAMPLE = '{"id": "01a205d7-31a8-7000-aa9e-c74632c14003", "truth": 1}'


class Feedback(NamedTuple):
    """What turned out to be true."""

    request_id: str
    truths: list[Any]


def read_feedback(body: bytes, *, max_rows: int) -> Feedback:
    """Read a body.

    Raises:
        InvalidRequest: If it is not as above.
        TooLarge: If there are more truths than a request has rows.
    """
    document = json_of(body, EXAMPLE)
    if unknown := document.keys() - {"id", "truth"}:
        raise InvalidRequest(f'"{min(unknown)[:100]}" is unknown; send {EXAMPLE}')
    identifier, truth = document.get("id"), document.get("truth")
    if not isinstance(identifier, str) or not is_acceptable(identifier.encode()):
        raise InvalidRequest(f'"id" must be the x-request-id of a prediction: {EXAMPLE}')
    truths = truth if isinstance(truth, list) else [truth]
    if "truth" not in document or not truths:
        raise InvalidRequest(f'"truth" must be what was right, or a list with a value for each row: {EXAMPLE}')
    if len(truths) > max_rows:
        raise TooLarge(f"there are {len(truths)} truths; a request has at most {max_rows} rows")
    for index, value in enumerate(truths):
        if isinstance(value, (dict, list)) or (isinstance(value, str) and len(value) > 1000):
            raise InvalidRequest(
                f"truth[{index}] must be a number, a string of at most 1000 letters, true, false or null"
            )
    return Feedback(identifier, truths)
