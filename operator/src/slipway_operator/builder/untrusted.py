"""Taking files from a volume on which code of a project was at work before.

Whatever lies there may have been made to mislead: a link to our own credentials, a pipe
that never ends, a file larger than memory. So every step of a path is opened without
following links, only regular files are read, and what is used is a copy of our own.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.progress import readable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20


class NotThere(Exception):  # noqa: N818  # a fact, not always an error
    """There is no regular file of this name."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Our own copy of a file.

    Attributes:
        path: Where the copy is.
        sha256: Digest of its bytes, hex.
        size: Bytes.
    """

    path: Path
    sha256: str
    size: int

    @property
    def digest(self) -> str:
        """As registries write it."""
        return f"sha256:{self.sha256}"


def take(root: Path, name: str, target: Path, *, most: int) -> Taken:
    """Copy a regular file out of an untrusted volume.

    Args:
        root: The volume.
        name: Relative path in it.
        target: The copy, which must not exist yet.
        most: Bytes that are accepted.

    Raises:
        NotThere: It is missing, or something else than a regular file.
        StepFailed: ``FileTooLarge``.
    """
    with ExitStack() as opened:
        try:
            descriptor = _descend(root, PurePosixPath(name), opened)
        except OSError:
            raise NotThere(name) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotThere(name)
        digest = hashlib.sha256()
        size = 0
        with target.open("xb") as out:
            while chunk := os.read(descriptor, _CHUNK):
                size += len(chunk)
                if size > most:
                    raise StepFailed("FileTooLarge", f"{name[:200]!a} is larger than {readable(most)}: make it smaller")
                digest.update(chunk)
                out.write(chunk)
    return Taken(path=target, sha256=digest.hexdigest(), size=size)


def folder(root: Path, name: str) -> Path:
    """A folder of an untrusted volume, none of whose parents is a link.

    Raises:
        NotThere: It is missing, or something else.
    """
    path = root
    for part in PurePosixPath(name).parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except OSError:
            raise NotThere(name) from None
        if not stat.S_ISDIR(mode):
            raise NotThere(name)
    return path


def _descend(root: Path, path: PurePosixPath, opened: ExitStack) -> int:
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise FileNotFoundError(path)
    here = os.open(root, _DIRECTORY)
    opened.callback(os.close, here)
    for part in path.parts[:-1]:
        here = os.open(part, _DIRECTORY, dir_fd=here)
        opened.callback(os.close, here)
    descriptor = os.open(path.parts[-1], _FILE, dir_fd=here)
    opened.callback(os.close, descriptor)
    return descriptor
