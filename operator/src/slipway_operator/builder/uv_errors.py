"""What uv says when it cannot install, as reasons and sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Said
from slipway_operator.builder.requirements import LockReason
from slipway_operator.builder.sources import last_words


class InstallReason(StrEnum):
    """Why packages could not be installed; each doubles as a condition's reason."""

    NOT_AVAILABLE = "PackageNotAvailable"
    HASH_MISMATCH = "HashMismatch"
    NO_SOLUTION = "NoSolution"
    INDEX_UNAVAILABLE = "IndexUnavailable"
    """It did not answer. Passes by itself."""
    INDEX_HOST_UNKNOWN = "IndexHostUnknown"
    INDEX_ACCESS_DENIED = "IndexAccessDenied"
    INDEX_NOT_TRUSTED = "IndexNotTrusted"
    VOLUME_FULL = "WorkVolumeFull"
    FAILED = "InstallFailed"
    INTERPRETER = "InterpreterUnavailable"


@dataclass(frozen=True, kw_only=True)
class _Row:
    pattern: re.Pattern[str]
    reason: str
    sentence: str
    """With ``{package}``, ``{cause}`` and ``{url}``."""
    retry: bool = False


def _row(pattern: str, reason: str, sentence: str, *, retry: bool = False) -> _Row:
    return _Row(pattern=re.compile(pattern), reason=reason, sentence=sentence, retry=retry)


# The first that fits counts, so the rows go from the particular to the general.
_TABLE: tuple[_Row, ...] = (
    _row(
        r"hash mismatch",
        InstallReason.HASH_MISMATCH,
        "{package} has other bytes than the lock file says: find out who changed it, then lock again",
    ),
    _row(
        r"dns error|failed to lookup address",
        InstallReason.INDEX_HOST_UNKNOWN,
        "the package index has no such host: {url}; correct the index's url, or let the cluster's DNS know it",
    ),
    _row(
        r"certificate|unknownissuer",
        InstallReason.INDEX_NOT_TRUSTED,
        "the certificate of {url} is signed by nobody we trust: add its authority to the platform's caBundle",
    ),
    _row(
        r"\b40[13] (?:unauthorized|forbidden)|status client error \(40[13]|unauthorized|forbidden|missing credentials",
        InstallReason.INDEX_ACCESS_DENIED,
        "{url} refuses the credentials: correct the Secret of the package index",
    ),
    _row(
        r"no space left|disk quota",
        InstallReason.VOLUME_FULL,
        "the packages do not fit on the Job's volume: raise jobs.workVolumeLimit of the platform",
    ),
    _row(
        r"(?:python version|python>|python<|python=|requires-python|requires python).*does not satisfy"
        r"|does not satisfy.*python",
        LockReason.PYTHON_VERSION,
        "{cause}: choose another environment.python, or lock for this one",
    ),
    _row(
        r"there (?:is|are) no versions? of|not found in the package registry|no usable wheels|"
        r"no wheels with a matching|yanked|no source distribution|status client error \(404",
        InstallReason.NOT_AVAILABLE,
        "{cause}: choose a version of {package} that is there for this platform, and lock again",
    ),
    _row(r"no solution found", InstallReason.NO_SOLUTION, "{cause}: change the versions and lock again"),
    _row(
        r"connection refused|connect error|timed out|timeout|\(5\d\d |\(429 |connection reset|error sending request|"
        r"failed to (?:fetch|download)|request failed|error decoding response",
        InstallReason.INDEX_UNAVAILABLE,
        "{url} does not answer; it is tried again by itself",
        retry=True,
    ),
)

_PACKAGE = re.compile(
    r"`(?P<quoted>[A-Za-z0-9._-]+)(?:==(?P<version>[^`]+))?`"
    r"|[Bb]ecause (?P<lacking>[a-z0-9._-]+(?:==\S+)?) has"
    r"|versions? of (?P<absent>[a-z0-9._=-]+)"
    r"|[Bb]ecause (?P<unknown>[a-z0-9._-]+) was not"
)
_NO_WHEEL = re.compile(r"\b([a-z0-9._-]+)(?:==\S+| ?@ \S+)? has no (?:usable wheels|wheels with a matching)")
_DISABLED = re.compile(
    r"wheels are required for `([a-z0-9._-]+)`"
    r"|building source distributions for `?([a-z0-9._-]+)`? is disabled"
    r"|building `?([a-z0-9._-]+)(?:==[^`\s]*|\s@[^`]*)?`? is disabled"
)


def failure(said: Said) -> StepFailed:
    """The failure that uv's words stand for."""
    if said.timed_out:
        return StepFailed(
            InstallReason.INDEX_UNAVAILABLE, "installing took too long; it is tried again by itself", retry=True
        )
    words = " ".join(without_passwords(said.errors).split())
    for row in _TABLE:
        if row.pattern.search(words.lower()):
            sentence = row.sentence.format(package=_package(words), cause=_cause(words), url=_url(words))
            return StepFailed(row.reason, sentence, retry=row.retry)
    return StepFailed(
        InstallReason.FAILED, f"uv could not install the packages: {last_words(without_passwords(said.errors))}"
    )


def only_source(errors: str) -> str | None:
    """Name of a package that uv would have had to build, None where that was not the trouble."""
    words = " ".join(errors.lower().split())
    found = _DISABLED.search(words) or _NO_WHEEL.search(words)
    return next((name for name in found.groups() if name), None) if found else None


def without_passwords(text: str) -> str:
    """A text whose URLs hold no user, password or query."""

    def bare(found: re.Match[str]) -> str:
        try:
            parts = urlsplit(found[0])
            where = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        except ValueError:
            return "(a url)"
        return urlunsplit(parts._replace(netloc=where, query=""))

    return re.sub(r"https?://[^\s)`'\"]+", bare, text)


def _package(words: str) -> str:
    found = _PACKAGE.search(words)
    if found is None:
        return "a package"
    name = next(found[group] for group in ("quoted", "lacking", "absent", "unknown") if found[group])
    return f"{name} {found['version']}" if found["version"] else name.replace("==", " ")


def _cause(words: str) -> str:
    found = re.search(r"cause: (?:Because )?(.*?)(?:, we can conclude| and you require|hint:|$)", words)
    return (found[1] if found else words)[:250].strip()


def _url(words: str) -> str:
    found = re.search(r"https?://[^\s)`'\"]+", words)
    return found[0][:200] if found else "the package index"
