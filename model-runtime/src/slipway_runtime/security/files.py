"""Noticing that mounted files have changed: a Secret's volume swaps links, and keeps the names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class Watched:
    """Some files, and what they were when they were last read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._seen = self._now()

    def _now(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in self._paths:
            try:
                status = os.stat(path)  # noqa: PTH116 -- follows the links
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def changed(self) -> bool:
        """Whether one has changed since this was asked last."""
        before, self._seen = self._seen, self._now()
        return before != self._seen
