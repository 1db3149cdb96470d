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

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """
    hexadecimal = [f"{number:02x}" for number in range(256)]  # to format a number takes longer
    random = f"{0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8), 'big') >> 2:016x}"
    tail = f"-{random[:4]}-{random[4:]}"
    counter = 0
    last = 0
    head = ""

    def new() -> str:
        nonlocal counter, head, last
        now = clock() // 1_000_000
        if now <= last and counter < 0xFFF:
            counter += 1  # within one millisecond, or after the clock was set back
        else:
            # More than 4,096 in a millisecond borrow from the next one.
            last, counter = max(now, last + 1), 0
            stamp = f"{last:012x}"
            head = f"{stamp[:8]}-{stamp[8:]}-7"
        return f"{head}{counter >> 8:x}{hexadecimal[counter & 0xFF]}{tail}"

    return new
