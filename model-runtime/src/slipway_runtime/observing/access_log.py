"""A line of JSON for each request, on standard output, when asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from slipway_runtime.observing.background import Background
from slipway_runtime.observing.watching import Finished
from slipway_runtime.several.endpoint import model_of

_LINES = 20_000
_FORM = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class AccessLog:
    """Writes lines in a thread of its own: a reader that is slow costs lines, not requests."""

    def __init__(self, dropped: Callable[[], None], write: Callable[[bytes], Any] | None = None) -> None:
        """Prepare.

        Args:
            dropped: Called for each line that there was no room for.
            write: Takes whole lines; None: standard output.
        """
        self._dropped = dropped
        self._write = write or (lambda lines: _written(1, lines))
        self._background: Background[dict[str, Any]] = Background(self._lines, most=_LINES, name="slipway-access-log")
        self.close = self._background.close

    def __call__(self, finished: Finished) -> None:
        """Take one request."""
        request, timeline, status, size, ended = finished
        line = {
            "time": time.time(),
            "event": "request",
            "id": request.request_id,
            "method": request.method,
            "path": request.target,
            "endpoint": request.endpoint,
            "status": status,
            "bytes": size,
            "milliseconds": 1000 * (ended - request.started),
            "rows": timeline.rows,
        }
        if model := model_of(request.endpoint):
            line["model"] = model
        if not self._background.put(line):
            self._dropped()

    def _lines(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line["time"] = datetime.fromtimestamp(line["time"], UTC)
            line["method"] = line["method"].decode("latin-1")
            line["path"] = line["path"][:500].decode("latin-1")
            line["milliseconds"] = round(line["milliseconds"], 3)
        if lines:
            self._write(b"".join(orjson.dumps(line, option=_FORM) for line in lines))


def _written(handle: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(handle, view) :]
