"""Projects in a plain folder: what ``svn export`` wrote, or what lies on a laptop without Git."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from slipway_operator.builder import names
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Found

LEFT_OUT = frozenset(
    {
        ".git", ".svn", ".hg", ".venv", "venv", ".tox", ".nox", ".eggs", "node_modules",
        "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Folders that are never part of a project outside version control."""

_LITTER_NAMES = frozenset({".git", ".DS_Store", "Thumbs.db"})
_LITTER_SUFFIXES = (".pyc", ".pyo")

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CHUNK = 1 << 20


def files(root: Path, *, left_out: frozenset[str] = frozenset()) -> list[Found]:
    """Everything below a folder; links are not followed.

    Args:
        root: The folder.
        left_out: Names of folders that are skipped; where there are any, the files that tools
            leave behind are skipped too.

    Raises:
        StepFailed: A name that is not UTF-8, or a device, socket or pipe.
    """
    return list(_below(os.fsencode(root), b"", left_out))


def _is_litter(name: str) -> bool:
    return name in _LITTER_NAMES or name.endswith(_LITTER_SUFFIXES)


def _below(folder: bytes, prefix: bytes, left_out: frozenset[str]) -> Iterator[Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if os.fsdecode(entry.name) not in left_out:
                    yield from _below(entry.path, path + b"/", left_out)
                continue
            if left_out and _is_litter(os.fsdecode(entry.name)):
                continue
            yield found(folder + b"/" + entry.name, path)


def found(where: bytes, path: bytes) -> Found:
    """Describe one file.

    Args:
        where: Its path on this machine.
        path: Its path in the project.

    Raises:
        StepFailed: As `files`.
    """
    name = names.decoded(path)
    status = os.lstat(where)
    if stat.S_ISLNK(status.st_mode):
        return Found(path=name, kind="link", size=len(os.readlink(where)))  # noqa: PTH115  # bytes, as the name may not be text
    if not stat.S_ISREG(status.st_mode):
        raise StepFailed("UnsafePath", f"{name[:200]!a} is neither a file nor a link: remove it")
    return Found(path=name, kind="executable" if status.st_mode & stat.S_IXUSR else "file", size=status.st_size)


def reader(root: Path) -> Callable[[Found], Iterator[bytes]]:
    """A function that gives the bytes of what `files` found below a folder."""

    def read(file: Found) -> Iterator[bytes]:
        path = os.fsencode(root) + b"/" + file.path.encode()
        if file.kind == "link":
            yield os.readlink(path)  # noqa: PTH115  # bytes, as above
            return
        with open(os.open(path, _OPEN_FLAGS), "rb") as content:  # noqa: PTH123  # a descriptor, not a path
            while chunk := content.read(_CHUNK):
                yield chunk

    return read
