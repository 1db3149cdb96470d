"""How a step of a Job says that it failed: a reason, a sentence, and whether waiting helps.

Everything in this room raises `StepFailed`; the command's entry point turns it into the
termination message (`domain.requests.Failed`). Anything else that is raised is a bug.
"""

from __future__ import annotations

from enum import StrEnum


class RegistryReason(StrEnum):
    """Why a call to the registry failed; each doubles as a condition's reason."""

    UNAVAILABLE = "RegistryUnavailable"
    """It did not answer, or answered that it is overloaded. Passes by itself."""
    ACCESS_DENIED = "RegistryAccessDenied"
    """It refused the credentials, or there were none."""
    NOT_FOUND = "ImageNotFound"
    """No such repository, tag, digest or blob."""
    NOT_TRUSTED = "RegistryNotTrusted"
    """Its certificate is signed by nobody we trust, or it speaks plain HTTP where TLS is expected."""
    UNSUPPORTED = "RegistryUnsupported"
    """It does not offer what was asked, such as deleting."""
    REFUSED = "RegistryRefused"
    """It understood and said no (quota, size, format)."""


class StepFailed(Exception):  # noqa: N818  # reads as what happened, as Blocked and Waiting do
    """A step ended without a result.

    Args:
        reason: CamelCase word that becomes the condition's reason.
        message: One sentence that says what to change.
        retry: True when it passes by itself.
    """

    def __init__(self, reason: str, message: str, *, retry: bool = False) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = str(reason)
        self.message = message
        self.retry = retry
