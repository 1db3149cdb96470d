"""What all kinds of sources share: which addresses are allowed, and how failures are named."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Said


class SourceReason(StrEnum):
    """Why a source could not be had; each doubles as a condition's reason."""

    INVALID = "InvalidSource"
    HOST_UNKNOWN = "SourceHostUnknown"
    UNAVAILABLE = "SourceUnavailable"
    """It did not answer, or not in time. Passes by itself."""
    NOT_TRUSTED = "SourceNotTrusted"
    HOST_KEY_MISSING = "HostKeyMissing"
    ACCESS_DENIED = "SourceAccessDenied"
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    REF_NOT_FOUND = "RefNotFound"
    PATH_NOT_FOUND = "PathNotFound"
    TOO_LARGE = "RepositoryTooLarge"
    REFUSED = "SourceRefused"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of a table that turns a program's words into a reason.

    Attributes:
        pattern: Found in standard error, lower case.
        reason: What it means.
        advice: What to change.
        retry: True when it passes by itself.
    """

    pattern: re.Pattern[str]
    reason: SourceReason
    advice: str
    retry: bool = False


def named(table: Sequence[Fault], said: Said, about: str) -> StepFailed:
    """The failure that a program's last words stand for, by the first row that fits."""
    if said.timed_out:
        return StepFailed(
            SourceReason.UNAVAILABLE, f"{about} did not finish in time; it is tried again by itself", retry=True
        )
    words = said.errors.lower()
    for fault in table:
        if fault.pattern.search(words):
            return StepFailed(fault.reason, f"{about}: {fault.advice}", retry=fault.retry)
    return StepFailed(SourceReason.REFUSED, f"{about}: {last_words(said.errors)}")


def last_words(errors: str) -> str:
    """The line of standard error that says most, printable and short."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(("fatal:", "error:", "svn: e"))] or lines
    text = told[0] if told else "it failed without a word"
    return "".join(character if character.isprintable() else " " for character in text)[:300]


_SCP = re.compile(
    r"^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):(?!/?/)(?P<path>\S+)$"
)
_HOST = re.compile(r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$|^[0-9a-fA-F:.]+$")


@dataclass(frozen=True, kw_only=True)
class Address:
    """A repository's address that is fit to be given to a program.

    Attributes:
        url: As it was written.
        scheme: Lower case; ``ssh`` for ``git@host:path``.
        host: Lower case, without port.
        location: ``scheme://host[:port]``, as programs show it in prompts.
    """

    url: str
    scheme: str
    host: str
    location: str


def address(url: str, schemes: frozenset[str]) -> Address:
    """Check an address and take it apart.

    Raises:
        StepFailed: ``InvalidSource``.
    """
    if not url or url.startswith("-") or len(url) > 2048 or not url.isprintable() or any(c.isspace() for c in url):
        raise StepFailed(SourceReason.INVALID, "the source's url is empty, too long, starts with '-' or holds a space")
    scp = _SCP.match(url)
    if scp is not None and "://" not in url and "ssh" in schemes:
        host = scp["host"].lower()
        return Address(url=url, scheme="ssh", host=host, location=f"ssh://{host}")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise StepFailed(SourceReason.INVALID, "the source's url cannot be read: correct it") from None
    scheme = parts.scheme.lower()
    if scheme not in schemes or "://" not in url or "::" in url.split("//", 1)[0]:
        allowed = ", ".join(f"{name}://" for name in sorted(schemes))
        raise StepFailed(SourceReason.INVALID, f"the source's url starts with none of {allowed}: use one of these")
    if not _HOST.match(host):
        raise StepFailed(SourceReason.INVALID, "the source's url names no host: correct it")
    if parts.password is not None:
        raise StepFailed(
            SourceReason.INVALID, "the source's url holds a password: put it into a Secret and name that in secretName"
        )
    where = f"[{host}]" if ":" in host else host
    return Address(url=url, scheme=scheme, host=host, location=f"{scheme}://{where}{f':{port}' if port else ''}")


def folder_in_repository(path: str) -> str:
    """The project's folder in its shortest form: ``.`` or ``a/b``.

    Raises:
        StepFailed: ``UnsafePath``.
    """
    parts = path.rstrip("/").split("/") if path != "." else []
    parts = [part for part in parts if part != "."]
    if path.startswith(("/", "-")) or "\\" in path or any(p in {"", ".."} for p in parts) or not path.isprintable():
        raise StepFailed("UnsafePath", "the source's path must be relative, without '..', '\\' or control characters")
    return "/".join(parts) or "."


def size_below(folder: Path) -> int:
    """Bytes of all files below a folder that another program is writing: what vanishes does not count."""
    size = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118  # as walk gives it
    return size
