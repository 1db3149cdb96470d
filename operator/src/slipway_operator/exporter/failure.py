"""How a container says why it ended: one JSON object of at most 1 kB in the termination message."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

LIMIT = 1024
"""Bytes of a message, as ``TERMINATION_MESSAGE_LIMIT`` of the operator's wire."""

ENVIRONMENT = "SLIPWAY_TERMINATION_LOG"
DEFAULT = "/dev/termination-log"


class Failure(Exception):  # noqa: N818 - the wire's word; it is an outcome before it is an error
    """An end without a result, for a reason that a person can act on."""

    def __init__(self, reason: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry


def encode(failure: Failure) -> str:
    """Write a failure as the wire's ``Failed``, shortened to what the kubelet keeps."""
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in failure.message)
    while True:
        wire = {"ok": False, "reason": failure.reason, "message": text, "retry": failure.retry}
        line = json.dumps(wire, ensure_ascii=False)
        excess = len(line.encode("utf-8", "replace")) - LIMIT
        if excess <= 0:
            return line
        # The start says what happened and the end holds the last line of output: the middle goes.
        # A character has at most four bytes, so this shortens by no more than is needed plus a step.
        cut = max(excess // 4, 8) + 1
        middle = len(text) * 2 // 5
        text = text[:middle].rstrip("… ") + " … " + text[middle + cut + 2 :].lstrip("… ")


def of_system(error: OSError) -> Failure:
    """Give the failure of a volume: full, or broken."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Failure("WorkVolumeFull", "The Job's volume is full. Write less, or raise jobs.workVolumeLimit.")
    return Failure("VolumeFailed", f"The Job's volume cannot be used: {error}.", retry=True)


def report(failure: Failure) -> None:
    """Leave the failure where the kubelet reads it; a laptop has no such file."""
    target = Path(os.environ.get(ENVIRONMENT, DEFAULT))
    if target.parent.is_dir():
        try:
            target.write_text(encode(failure), encoding="utf-8", errors="replace")
        except OSError as error:
            print(f"cannot write {target}: {error}", flush=True)  # noqa: T201 - the log is all that is left
    print(f"{failure.reason}: {failure.message}", flush=True)  # noqa: T201 - for who reads the container's log
