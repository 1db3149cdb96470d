"""Request ids: the caller's own, or a new one that sorts by time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

_ACCEPTABLE = re.compile(rb"[\x21-\x7e]{1,128}\Z")


def is_acceptable(identifier: bytes) -> bool:
    """Whether a caller's id can be echoed: short, and nothing but visible ASCII."""
    return _ACCEPTABLE.match(identifier) is not None


def sequence(clock: Callable[[], int] = time.time_ns) -> Callable[[], str]:
    """Make a source of new ids in UUID version 7 form: milliseconds, a counter, and what is random to this process.

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7; the counter keeps the ids of
    one millisecond in order, and only the first 4,096 of a millisecond are told apart by it.
    """
    seed = int.from_bytes(os.urandom(8), "big")
    counter = 0
    last = 0

    def new() -> str:
        nonlocal counter, last, seed
        now = clock() // 1_000_000
        if now > last:
            last, counter = now, 0
        else:
            # Within one millisecond, or after the clock was set back.
            counter += 1
            if counter > 0xFFF:
                last, counter = last + 1, 0
        seed = (seed + 1) & 0xFFFF_FFFF_FFFF_FFFF
        head = f"{last:012x}"
        tail = f"{0x8000_0000_0000_0000 | seed & 0x3FFF_FFFF_FFFF_FFFF:016x}"
        return f"{head[:8]}-{head[8:]}-7{counter:03x}-{tail[:4]}-{tail[4:]}"

    return new
