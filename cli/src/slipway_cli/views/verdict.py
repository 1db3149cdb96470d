"""Where a deployment stands, as a word, a sentence and an exit code; and what became of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from slipway_cli.problem import Code
from slipway_cli.views.overview import short_content
from slipway_cli.views.words import condition, is_paused
from slipway_operator.domain.directives import Verb

State = Literal["Pending", "Done", "Refused"]


@dataclass(frozen=True)
class Verdict:
    """Where it stands.

    Attributes:
        code: `Code.OK` when Ready; `Code.UNDER_WAY` when waiting helps; all others stay until somebody acts.
        sentence: For a person.
    """

    code: Code
    sentence: str


def verdict(resource: Mapping[str, Any]) -> Verdict:
    """Read the conditions as kstatus does: only those of the object's own generation count."""
    status = resource.get("status") or {}
    if status.get("observedGeneration") != resource["metadata"].get("generation"):
        return Verdict(Code.UNDER_WAY, "the operator has not looked at the newest spec yet")
    ready, stalled = condition(resource, "Ready"), condition(resource, "Stalled")
    if ready.get("status") == "True":
        return Verdict(Code.OK, str(ready.get("message") or "it is ready"))
    said = f"{ready.get('reason', 'Unknown')}: {ready.get('message', '')}".rstrip(": ")
    if stalled.get("status") == "True":
        said = f"{stalled.get('reason', 'Stalled')}: {stalled.get('message', '')}".rstrip(": ")
        held = stalled.get("reason") in {"RolledBack", "Aborted"}
        return Verdict(Code.HELD if held else Code.FAILED, said)
    return Verdict(Code.PAUSED if is_paused(resource) else Code.UNDER_WAY, said)


@dataclass(frozen=True)
class Outcome:
    """What became of a request so far.

    Attributes:
        state: As in ``status.requests``.
        sentence: For a person.
    """

    state: State
    sentence: str


def outcome(resource: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], verb: Verb, request_id: str) -> Outcome:
    """What became of a request: the log decides, ``status.requests`` says the rest."""
    answers = [e for e in entries if e.get("requestId") == request_id and e.get("cause") in verb.causes]
    entry = next(iter(answers), None)
    if entry is not None:
        return _logged(entry, (resource.get("status") or {}).get("live") or {})
    requests: Sequence[Mapping[str, Any]] = (resource.get("status") or {}).get("requests") or ()
    request = next((r for r in requests if (r.get("verb"), r.get("id")) == (verb, request_id)), None)
    if request is None:
        return Outcome("Pending", "the operator has not seen it yet")
    message = str(request.get("message") or "")
    if request.get("state") == "Done":
        return Outcome("Done", message or "done")
    if request.get("state") == "Refused":
        return Outcome("Refused", message or "the operator refused it")
    return Outcome("Pending", message or "the operator is at it")


def _logged(entry: Mapping[str, Any], live: Mapping[str, Any]) -> Outcome:
    """The entry is the decision; status is written after the Service has turned to it."""
    number, newest = int(entry["number"]), int(live.get("revision") or 0)
    if newest < number:
        return Outcome("Pending", f"revision {number} is written, and the Service turns to it")
    if newest > number and entry.get("cause") not in {"Abort", "Resume"}:
        return Outcome("Done", f"revision {number} went live, and revision {newest} has followed it")
    return Outcome("Done", _done(entry))


def _done(entry: Mapping[str, Any]) -> str:
    number, content = entry["number"], short_content(entry)
    if entry.get("cause") == "Abort":
        return f"the new content is given up and held, {content} stays live (entry {number} of the log)"
    if entry.get("cause") == "Resume":
        return f"what was held may go live again (entry {number} of the log)"
    restored = f", that of revision {entry['restores']}" if entry.get("restores") else ""
    return f"revision {number} is live: content {content}{restored}"
