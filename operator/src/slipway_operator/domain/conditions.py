"""Conditions as kstatus reads them: Ready, Reconciling, Stalled, and our own beside them.

kstatus (Helm's ``--wait``, Argo CD, kpt) takes ``Stalled=True`` for a failure,
``Reconciling=True`` for progress, and ``Ready`` for the outcome, each only with the
``observedGeneration`` of the object's own generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from slipway_operator.domain.durations import format_time

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
AVAILABLE = "Available"
ROLLBACK_READY = "RollbackReady"
LOG_INTACT = "LogIntact"
SERVED_NATIVELY = "ServedNatively"
ORDER = (READY, RECONCILING, STALLED, AVAILABLE, ROLLBACK_READY, LOG_INTACT, SERVED_NATIVELY)
MESSAGE_LIMIT = 1024
"""Characters; longer texts belong into a Job's log."""

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition without its times, which `with_condition` adds."""

    type: str
    status: Status
    reason: str
    message: str


def clipped(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Text that fits, with a mark where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def with_condition(
    conditions: Sequence[Mapping[str, Any]], new: Condition, *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Replace or add one condition; ``lastTransitionTime`` moves only when ``status`` flips.

    Returns:
        A new list in a stable order: the known types first, others by name.
    """
    old = next((c for c in conditions if c.get("type") == new.type), None)
    kept = old is not None and old.get("status") == new.status and old.get("lastTransitionTime")
    entry = {
        "type": new.type,
        "status": new.status,
        "reason": str(new.reason),
        "message": clipped(new.message),
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and kept else format_time(now),
    }
    others = [dict(c) for c in conditions if c.get("type") != new.type]
    return sorted([*others, entry], key=_position)


def find_condition(conditions: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """The condition of a type, if there is one."""
    return next((c for c in conditions if c.get("type") == kind), None)


def is_true(conditions: Sequence[Mapping[str, Any]], kind: str) -> bool:
    """Whether a condition is there and True."""
    found = find_condition(conditions, kind)
    return found is not None and found.get("status") == "True"


def _position(condition: Mapping[str, Any]) -> tuple[int, str]:
    kind = str(condition["type"])
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)
