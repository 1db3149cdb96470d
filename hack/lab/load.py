"""A steady caller: asks one question over and over and keeps count of what came back."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class Caller:
    """Asks on a fresh connection each time, in a thread, until the block ends."""

    def __init__(self, url: str, body: Mapping[str, Any], *, every: float = 0.02) -> None:
        self._request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - http to the lab's own address
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._done.wait(self._every):
            try:
                with urllib.request.urlopen(self._request, timeout=10) as answer:  # noqa: S310
                    self.versions[json.loads(answer.read()).get("model_version", "")] += 1
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                self.failures.append(repr(error))
