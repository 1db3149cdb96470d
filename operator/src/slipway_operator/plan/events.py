"""What changed since the last status, in words, for ``kubectl describe``: transitions only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slipway_operator.domain.conditions import LOG_INTACT, READY, ROLLBACK_READY, STALLED, find_condition
from slipway_operator.domain.labels import CONTENT
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.revisions import Cause
from slipway_operator.plan.observed import Event, Observed

_REASONS = {
    Cause.SPEC_CHANGE: "WentLive",
    Cause.PROMOTION: "WentLive",
    Cause.ROLLBACK: Reason.ROLLED_BACK.value,
    Cause.ABORT: Reason.ABORTED.value,
    Cause.RESUME: Reason.RESUMED.value,
}


def events_for(seen: Observed, status: Mapping[str, Any], created: Mapping[str, Any] | None) -> tuple[Event, ...]:
    """What changed since the last status, in words."""
    events: list[Event] = []
    old_steps = {s["name"]: s.get("state") for s in seen.status.get("steps") or ()}
    for step in status.get("steps") or ():
        before = old_steps.get(step["name"])
        if step.get("state") == "Succeeded" and before not in {None, "Succeeded"} and step["name"] != "Rollout":
            events.append(Event("Normal", f"{step['name']}Succeeded", step.get("message") or f"{step['name']} is done"))
    if created is not None:
        events.append(_entry_event(created["data"], str(created["metadata"]["labels"][CONTENT])))
    events.extend(_refusals(seen, status))
    events.extend(_flips(seen, status))
    old, new = (
        find_condition(seen.status.get("conditions") or (), STALLED),
        find_condition(status.get("conditions") or (), STALLED),
    )
    if new is not None and new["status"] == "True":
        if old is None or _of(old) != _of(new):
            events.append(Event("Warning", str(new["reason"]), str(new["message"])))
    elif old is not None and old.get("status") == "True":
        ready = find_condition(status.get("conditions") or (), READY) or {}
        events.append(Event("Normal", "GoesOn", f"goes on: {ready.get('message', '')}"))
    return tuple(events)


def _entry_event(data: Mapping[str, Any], short: str) -> Event:
    cause, number, who = Cause(data["cause"]), data["number"], data["who"]
    match cause:
        case Cause.ROLLBACK:
            words = (
                f"revision {number}: rolled back from {data['undoes']} to {data['restores']} (content {short}) by {who}"
            )
        case Cause.ABORT:
            words = f"revision {number}: the new content was given up by {who}; content {short} stays live"
        case Cause.RESUME:
            words = f"revision {number}: what was held is released by {who}"
        case _:
            words = f"revision {number} is live: content {short}"
    kind = "Warning" if cause in {Cause.ROLLBACK, Cause.ABORT} and data["whoBy"] == "Operator" else "Normal"
    return Event(kind, _REASONS[cause], f"{words}, {data['why']}")  # type: ignore[arg-type]


def _refusals(seen: Observed, status: Mapping[str, Any]) -> Iterator[Event]:
    known = {(r.get("id"), r.get("state")) for r in seen.status.get("requests") or ()}
    for row in status.get("requests") or ():
        if row["state"] == "Refused" and (row["id"], "Refused") not in known:
            yield Event("Warning", Reason.REQUEST_REFUSED.value, f"{row['verb']} {row['id']}: {row['message']}")


def _of(condition: Mapping[str, Any]) -> tuple[Any, Any]:
    return condition.get("status"), condition.get("reason")


def _flips(seen: Observed, status: Mapping[str, Any]) -> Iterator[Event]:
    """Conditions beside kstatus' own that have turned to False, or are so for another reason."""
    for kind in (ROLLBACK_READY, LOG_INTACT):
        old = find_condition(seen.status.get("conditions") or (), kind)
        new = find_condition(status.get("conditions") or (), kind)
        if new is None or (old is not None and _of(old) == _of(new)):
            continue
        if new["status"] == "False" and (old is not None or kind == LOG_INTACT):
            yield Event("Warning", str(new["reason"]), str(new["message"]))
