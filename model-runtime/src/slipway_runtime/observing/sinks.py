"""Where records go: files in a folder, a service that takes them over HTTP, or a bucket (`bucket`).

Each piece is an Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html) of its own.
A folder holds a bounded number of bytes for each process that writes: the oldest pieces go first, its own and
those that nobody else looks after any more.
"""

from __future__ import annotations

import contextlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from slipway_runtime.observing.bucket import BucketOptions

_PIECE = re.compile(r"\.?[a-z]+-\d{8}T\d{6}Z-(?P<who>.+)-\d{6,}\.arrows")
"""Names of pieces in a folder; with a dot before it, of one that is not whole."""
_SILENT_SECONDS = 3600.0
"""Who has written nothing for so long has ended, or can spare its oldest pieces."""

MEDIA_TYPE = "application/vnd.apache.arrow.stream"


class Sink(Protocol):
    """Takes pieces; only ever from one thread."""

    def write(self, kind: str, piece: bytes) -> None:
        """Keep a piece.

        Args:
            kind: ``predictions`` or ``feedback``.
            piece: An Arrow IPC stream.

        Raises:
            OSError: If it cannot be kept.
        """
        ...


class Folder:
    """Keeps pieces as files, named by time."""

    def __init__(self, path: Path, *, who: str, most: int) -> None:
        """Prepare.

        Args:
            path: The folder; made where it is not there.
            who: Part of every name, so that pods can share a folder.
            most: Bytes that this process keeps, with what was left by those that are no more.
        """
        self._path = path
        self._who = who
        self._most = most
        self._kept: deque[tuple[Path, int]] = deque()
        self._bytes = 0
        self._number = 0
        self._look_at = 0.0
        """When to look again at what is there."""

    def write(self, kind: str, piece: bytes) -> None:
        """As `Sink`."""
        self._path.mkdir(parents=True, exist_ok=True)
        if time.monotonic() >= self._look_at:
            self._look()
        while self._kept and self._bytes + len(piece) > self._most:
            oldest, size = self._kept.popleft()
            oldest.unlink(missing_ok=True)
            self._bytes -= size
        self._number += 1
        name = f"{kind}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{self._who}-{self._number:06}.arrows"
        target, unready = self._path / name, self._path / f".{name}"
        # Whoever reads the folder sees whole pieces only.
        try:
            unready.write_bytes(piece)
            unready.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                unready.unlink(missing_ok=True)  # half a piece takes room, and is of use to nobody
            raise
        self._kept.append((target, len(piece)))
        self._bytes += len(piece)

    def _look(self) -> None:
        """Take over this process's pieces (as of one of its name before it), and those of who writes no more."""
        self._look_at = time.monotonic() + _SILENT_SECONDS
        found: dict[str, list[tuple[float, int, Path]]] = {}
        for path in self._path.iterdir():
            if (match := _PIECE.fullmatch(path.name)) is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                status = path.stat()
                found.setdefault(match["who"], []).append((status.st_mtime, status.st_size, path))
        long_ago = time.time() - _SILENT_SECONDS
        mine = [pieces for who, pieces in found.items() if who == self._who or max(pieces)[0] < long_ago]
        self._kept = deque((path, size) for _, size, path in sorted(chain.from_iterable(mine)))
        self._bytes = sum(size for _, size in self._kept)


class HttpService:
    """Posts pieces; tries again twice."""

    def __init__(self, url: str, *, who: str) -> None:
        self._url = url
        self._who = who

    def write(self, kind: str, piece: bytes) -> None:
        """As `Sink`."""
        headers = {"Content-Type": MEDIA_TYPE, "X-Slipway-Kind": kind, "X-Slipway-From": self._who}
        request = urllib.request.Request(self._url, piece, headers)  # noqa: S310 -- http and https only, see `sink_for`
        for wait in (0.5, 2.0, None):
            try:
                with urllib.request.urlopen(request, timeout=10):  # noqa: S310 -- as above
                    return
            except urllib.error.HTTPError as error:
                error.close()
                if wait is None or (error.code < 500 and error.code != 429):
                    raise OSError(f"the service answered {error.code}") from None
            except OSError:
                if wait is None:
                    raise
            time.sleep(wait)


def sink_for(target: str, *, model: str, who: str, most: int, bucket: BucketOptions | None = None) -> Sink:
    """Make a sink from its address.

    Args:
        target: ``s3://…``, ``http://…``, ``https://…``, or the path of a folder.
        model: The model's name.
        who: What writes: the pod's name.
        most: Bytes that a folder keeps.
        bucket: How a bucket is reached.

    Raises:
        ValueError: If it is none of them.
    """
    parts = urllib.parse.urlsplit(target)
    if parts.scheme == "s3":
        from slipway_runtime.observing.bucket import Bucket, BucketOptions  # noqa: PLC0415 -- 15 MB, where asked for

        return Bucket(target, model=model, who=who, options=bucket or BucketOptions())
    if parts.scheme in ("http", "https") and parts.hostname:
        return HttpService(target, who=who)
    if parts.scheme or not target:
        raise ValueError(f"{target} is neither a bucket (s3://…) nor an http(s) address nor a folder")
    return Folder(Path(target), who=who, most=most)
