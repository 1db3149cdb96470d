"""Work that may wait, in a thread of its own: what comes too fast is left out, never waited for."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

_WAKE_SECONDS = 0.5


class Background(Generic[Item]):
    """Hands items to a function, many at a time."""

    def __init__(
        self, handle: Callable[[list[Item]], None], *, most: int, name: str, keeps: Callable[[], int] = lambda: 0
    ) -> None:
        """Prepare; the thread begins with the first item.

        Args:
            handle: Takes what has gathered, also nothing after half a second; only ever in the one thread.
            most: Weight of the items that may wait, and of those that the function has and keeps.
            name: Of the thread.
            keeps: Gives the weight of what the function keeps after it has returned.
        """
        self._handle = handle
        self._most = most
        self._name = name
        self._items: deque[tuple[Item, int]] = deque()
        self._keeps = keeps
        self._weight = self._taken = 0
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def put(self, item: Item, weight: int = 1) -> bool:
        """Give an item; False: there is no room for it."""
        with self._lock:
            held = self._weight + self._taken
            if self._ending or (held and held + weight > self._most):
                return False
            self._items.append((item, weight))
            self._weight += weight
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        if self._weight * 2 > self._most:
            self._due.set()
        return True

    def _take(self) -> list[Item]:
        with self._lock:
            items = [item for item, _ in self._items]
            self._items.clear()
            self._taken += self._weight
            self._weight = 0
            return items

    def _run(self) -> None:
        while not self._ending:
            self._due.wait(_WAKE_SECONDS)
            self._due.clear()
            self._give(self._take())
        self._give(self._take())

    def _give(self, items: list[Item]) -> None:
        try:
            self._handle(items)
        except Exception:  # noqa: BLE001 -- what is noticed must never end what is done
            _log.exception("%s: %d items are lost", self._name, len(items))
        self._taken = self._keeps()

    def close(self, seconds: float = 5.0) -> None:
        """Handle what waits, and end."""
        self._ending = True
        self._due.set()
        if self._thread is not None:
            self._thread.join(seconds)
