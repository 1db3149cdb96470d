"""The API server's refusals in Slipway's words: who must act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slipway_operator.domain.errors import Blocked, SlipwayError, Waiting
from slipway_operator.domain.reasons import Reason
from slipway_operator.plan.troubles import refusal_of


class GoneError(Exception):
    """The namespace is being deleted: there is nothing left to do."""


class ExpiredError(Waiting):
    """410: the API server does not remember the version, or the page, that was asked for. Ask from the start."""


def error_of(status: int, message: str, answer: Mapping[str, Any]) -> SlipwayError | GoneError:  # noqa: PLR0911 - a table, one row a status
    """The error for an HTTP status that is not a success.

    Args:
        status: HTTP status.
        message: The API server's sentence.
        answer: Its whole answer (a ``Status`` object), if it sent one.
    """
    details = answer.get("details") or {}
    causes = {c.get("reason") for c in details.get("causes") or ()}
    if status == 403 and ("NamespaceTerminating" in causes or "because it is being terminated" in message):
        return GoneError(message)
    if status == 403 and "exceeded quota" in message:
        reason, words = refusal_of(message)
        return Waiting(reason, words, retry_after=30)
    if status == 403:
        return Waiting("Forbidden", f"the API server refuses: {message}", retry_after=60)
    if status == 401:
        return Waiting("Unauthorized", f"the API server does not know the operator: {message}", retry_after=30)
    if status == 429:
        return Waiting("TooManyRequests", message, retry_after=float(details.get("retryAfterSeconds") or 5))
    if status >= 500:
        return Waiting("ApiServerUnavailable", f"the API server fails: {message}")
    if status == 422:
        return Blocked(Reason.POD_REFUSED, f"the API server takes the object as invalid: {message}")
    return Blocked(Reason.POD_REFUSED, f"the API server refuses ({status}): {message}")
