"""Which file names and links a project may have.

A project's tree ends up in zip files, image layers and on other operating systems. A name
that one of them reads differently is refused at the door, whoever wrote it: path tricks
are attacks, the rest are accidents that would surface in production.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping

from slipway_operator.builder.errors import StepFailed

_LONGEST_NAME = 255
LONGEST_PATH = 1024
_LINK_HOPS = 40
_GIT_ALIASES = frozenset({".git", "git~1"})
# Characters that show one name and mean another (https://trojansource.codes).
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Invisible characters that HFS+ ignores, so that ".g\u200cit" is ".git" there (CVE-2014-9390).
_IGNORED = frozenset("\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u206a\u206b\u206c\u206d\u206e\u206f\ufeff")


def decoded(raw: bytes) -> str:
    """Text of a path that came as bytes.

    Raises:
        StepFailed: ``FileNameNotUtf8``.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        shown = raw.decode("utf-8", "backslashreplace")[:200]
        raise StepFailed(
            "FileNameNotUtf8", f"the file name {shown!r} is not UTF-8: rename the file and commit it again"
        ) from None


def checked(path: str) -> str:
    """A relative path without tricks, unchanged.

    Raises:
        StepFailed: ``UnsafePath`` or ``FileNameNotUtf8``.
    """
    fault = fault_of(path)
    if fault is not None:
        shown = ascii(path[:200])
        reason = "FileNameNotUtf8" if fault == _NOT_TEXT else "UnsafePath"
        raise StepFailed(reason, f"the path {shown} {fault}: rename the file and commit it again")
    return path


_NOT_TEXT = "holds bytes that are not UTF-8"


def fault_of(path: str) -> str | None:
    """What is wrong with a path, None when nothing is."""
    if any("\ud800" <= character <= "\udfff" for character in path):
        return _NOT_TEXT
    for is_so, fault in _FAULTS:
        if is_so(path):
            return fault
    return next((found for part in path.split("/") if (found := _fault_of_part(part)) is not None), None)


_FAULTS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda path: not path, "is empty"),
    (lambda path: len(path.encode()) > LONGEST_PATH, f"is longer than {LONGEST_PATH} bytes"),
    (lambda path: path.startswith("/"), "is absolute"),
    (lambda path: "\\" in path, "holds a backslash, which is a folder on Windows"),
    (
        lambda path: any(unicodedata.category(character) == "Cc" or character in _DIRECTION for character in path),
        "holds a control character",
    ),
)


def _fault_of_part(part: str) -> str | None:
    if part in {"", ".", ".."}:
        return "is not in its shortest form, or leaves the project"
    if len(part.encode()) > _LONGEST_NAME:
        return f"has a name longer than {_LONGEST_NAME} bytes"
    plain = "".join(character for character in part if character not in _IGNORED)
    if plain.casefold().rstrip(" .") in _GIT_ALIASES or plain.casefold().startswith(".git:"):
        return "is Git's own folder"
    return None


def refuse_collisions(paths: Iterable[str]) -> None:
    """Refuse two names that are one on another file system, and a file that is a folder too.

    Raises:
        StepFailed: ``FileNamesCollide``.
    """
    seen: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            other = seen.setdefault(_folded(here), here)
            if other != here:
                raise StepFailed(
                    "FileNamesCollide",
                    f"{other[:200]!a} and {here[:200]!a} are one name where case does not count: rename one",
                )
        if path in files:
            raise StepFailed("FileNamesCollide", f"{path[:200]!a} is there twice: remove one")
        files.add(path)
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in files:
                raise StepFailed("FileNamesCollide", f"{path[:200]!a} lies in what is a file or link: rename one")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def refuse_escapes(links: Mapping[str, str]) -> None:
    """Refuse symbolic links that lead out of the project, also by way of other links.

    Args:
        links: Target texts by path.

    Raises:
        StepFailed: ``SymlinkOutsideProject``.
    """
    for path, target in links.items():
        fault = _link_fault(path, links)
        if fault is not None:
            raise StepFailed(
                "SymlinkOutsideProject",
                f"the symbolic link {path[:200]!a} to {target[:200]!a} {fault}: "
                "make it point to a file of the project, or commit the file itself",
            )


def _link_fault(path: str, links: Mapping[str, str]) -> str | None:
    target = links[path]
    if not target or "\x00" in target or "\\" in target or target.startswith("/"):
        return "is not relative"
    # Walked as a kernel would, as "a/.." is not here where a is a link.
    here: list[str] = path.split("/")[:-1]
    ahead = list(reversed(target.split("/")))
    hops = 1
    while ahead:
        part = ahead.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not here:
                return "leads out of the project"
            here.pop()
            continue
        here.append(part)
        inner = links.get("/".join(here))
        if inner is not None:
            hops += 1
            if hops > _LINK_HOPS:
                return "goes in a circle"
            if inner.startswith("/"):
                return "leads out of the project"
            here.pop()
            ahead += reversed(inner.split("/"))
    if here and here[0].casefold() in _GIT_ALIASES:
        return "leads to Git's own folder"
    return None
