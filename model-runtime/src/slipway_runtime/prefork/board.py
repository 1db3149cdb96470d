"""Where the workers of a pod tell each other their numbers: memory that all of them share.

Each worker writes its own place twice a second, and reads all others' when somebody asks it for
``/metrics``: whichever worker answers, it answers for the pod. One more place holds what workers
had counted that are no more, so that counters never go back.

A place is written by one process only. Its first eight bytes are a version, odd while it is being
written; a reader that meets one twice or an odd one reads again (a seqlock: nobody ever waits).
"""

from __future__ import annotations

import contextlib
import mmap
import struct

import orjson

from slipway_runtime.metrics import FAMILIES
from slipway_runtime.observing.families import State, added

_HEAD = struct.Struct("<QQ")
_PLACE_BYTES = 4 << 20  # untouched pages cost nothing
_GAUGES = frozenset(family.name for family in FAMILIES if family.kind == "gauge")


class Board:
    """States of so many workers."""

    def __init__(self, workers: int) -> None:
        self._places = [mmap.mmap(-1, _PLACE_BYTES) for _ in range(workers + 1)]
        self._gone = workers

    def write(self, place: int, state: State) -> None:
        """Tell one worker's numbers; a state that is too large is left out."""
        raw = orjson.dumps(state)
        memory = self._places[place]
        if len(raw) > _PLACE_BYTES - _HEAD.size:
            return
        version, _ = _HEAD.unpack_from(memory)
        version |= 1  # also where a writer died in the middle
        _HEAD.pack_into(memory, 0, version, len(raw))
        memory[_HEAD.size : _HEAD.size + len(raw)] = raw
        _HEAD.pack_into(memory, 0, version + 1, len(raw))

    def read(self, place: int) -> State:
        """Give one worker's numbers as it told them last; nothing if it told none."""
        memory = self._places[place]
        for _ in range(100):
            version, size = _HEAD.unpack_from(memory)
            raw = memory[_HEAD.size : _HEAD.size + size]
            if version % 2 == 0 and _HEAD.unpack_from(memory)[0] == version:
                with contextlib.suppress(orjson.JSONDecodeError):
                    state: State = orjson.loads(raw) if raw else {}
                    return state
        return {}

    def others(self, place: int) -> list[State]:
        """Give the numbers of all workers but one, and of those that are no more."""
        return [self.read(other) for other in range(len(self._places)) if other != place]

    def retire(self, place: int) -> None:
        """Keep what a worker counted that is no more: its counters, not its gauges. Only the first process may."""
        last = {name: series for name, series in self.read(place).items() if name not in _GAUGES}
        self.write(self._gone, added((self.read(self._gone), last), FAMILIES))
        self.write(place, {})
