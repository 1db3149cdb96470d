"""What people ask for beside the spec, compared with the log: what is done, what is due, what cannot be.

A request is done once an entry of the log carries its id, so that whatever becomes of its
annotation, it happens once. That entry may be pruned while the request still stands:
status tells of it then, and so do later entries. What is refused is remembered in status,
and is not tried again later, when it might suddenly be possible. What is on its way is
remembered there too, with its target and author: an annotation that a GitOps tool removes
meanwhile takes nothing back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.conditions import clipped
from slipway_operator.domain.contents import Content
from slipway_operator.domain.directives import FIELD, NOW, PREVIOUS, Directive, Verb, directives_of
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.holds import active_holds, other_good
from slipway_operator.plan.observed import Manifest, Observed

State = Literal["Pending", "Done", "Refused"]
_FORMS = {
    Verb.ROLLBACK: "previous or a revision's number",
    Verb.RESUME: "now",
    Verb.PROMOTE: "now or the new content's short digest",
    Verb.ABORT: "now or the new content's short digest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one request stands."""

    directive: Directive
    state: State
    message: str
    at: str

    def to_wire(self) -> Manifest:
        """As status shows it; of what is on its way, all that it takes to go on without the annotation."""
        asked = self.directive
        row = {"verb": asked.door, "id": asked.id, "state": self.state, "message": self.message, "at": self.at}
        if self.state != "Pending" or asked.door == FIELD:
            return row
        more = {"target": asked.target, "why": asked.why, "who": clipped(asked.who), "whoBy": asked.who_by}
        return row | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """A rollback that is due."""

    to: LoggedEntry
    directive: Directive | None
    """None: a limit was passed, and nobody asked."""
    why: str
    since: str
    """Since when it is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What is due now, at most one of each kind."""

    answers: tuple[Answer, ...] = ()
    rollback: Return | None = None
    resume: Directive | None = None
    promote: Directive | None = None
    abort: Directive | None = None
    refuses: bool = False
    """One of the answers is a refusal that nobody was told yet."""

    @property
    def answered(self) -> tuple[str, ...]:
        """The requests that are done and still stand, as the next entry remembers them."""
        return tuple(_mark(a.directive) for a in self.answers if a.state == "Done")


class _Refused(Exception):  # noqa: N818 - an answer, not an error
    """Why a request cannot be done."""


def decide(
    seen: Observed,
    spec: ModelDeploymentSpec,
    entries: Sequence[LoggedEntry],
    *,
    candidate: Content | None,
    gone: Mapping[str, str] | None = None,
) -> Decisions:
    """Compare what is asked for with what there is.

    Args:
        seen: What was observed.
        spec: The spec.
        entries: The log.
        candidate: A new content that is complete and neither live nor held.
        gone: Sentences on contents (by digest) that are known not to be there any more.
    """
    wanted = spec.rollback_to
    by_spec = (wanted.revision, wanted.id) if wanted is not None else None
    answers: list[Answer] = []
    due: dict[Verb, Answer] = {}
    target: LoggedEntry | None = None
    refuses = False
    for directive in _asked(seen, entries, by_spec):
        known = _known(seen, entries, directive)
        if known is not None and known.state != "Pending":
            answers.append(known)
            continue
        if directive.verb in due:
            continue
        at = known.at if known is not None else format_time(seen.now)
        try:
            if directive.verb is Verb.ROLLBACK:
                target = _target(entries, directive, gone or {})
                words, meant = f"going back to revision {target.number}", str(target.number)
            else:
                words, meant = _possible(entries, directive, candidate)
        except _Refused as refusal:
            answers.append(Answer(directive=directive, state="Refused", message=str(refusal), at=at))
            refuses = True
            continue
        due[directive.verb] = Answer(directive=replace(directive, target=meant), state="Pending", message=words, at=at)
        answers.append(due[directive.verb])
    rollback = due.get(Verb.ROLLBACK)
    return Decisions(
        answers=tuple(answers),
        rollback=Return(
            to=target,
            directive=rollback.directive,
            why=rollback.directive.why or "asked for",
            since=rollback.at,
        )
        if rollback is not None and target is not None
        else None,
        resume=due[Verb.RESUME].directive if Verb.RESUME in due else None,
        promote=due[Verb.PROMOTE].directive if Verb.PROMOTE in due else None,
        abort=due[Verb.ABORT].directive if Verb.ABORT in due else None,
        refuses=refuses,
    )


def wait_for_spec(seen: Observed, entries: Sequence[LoggedEntry], why: str) -> Decisions:
    """What is asked for while the spec cannot be read: nothing is done or refused, and each request is told why."""
    answers = []
    for directive in _asked(seen, entries, None):
        known = _known(seen, entries, directive)
        if known is None or known.state == "Pending":
            at = known.at if known is not None else format_time(seen.now)
            known = Answer(directive=directive, state="Pending", message=f"waits for the spec: {why}", at=at)
        answers.append(known)
    return Decisions(answers=tuple(answers))


def _asked(
    seen: Observed, entries: Sequence[LoggedEntry], by_spec: tuple[int, str | None] | None
) -> tuple[Directive, ...]:
    """What stands now, then what is on its way though its annotation is gone or says again what was answered before."""
    stands = directives_of(seen.resource["metadata"], by_spec, seen.settings.stamps)
    known = {d.door: _known(seen, entries, d) for d in stands}
    newer = {door for door, answer in known.items() if answer is None or answer.state == "Pending"}
    rows = (r for r in seen.status.get("requests") or () if r.get("state") == "Pending" and "target" in r)
    return (*stands, *(_remembered(r) for r in rows if r["verb"] not in newer))


def _remembered(row: Mapping[str, str]) -> Directive:
    return Directive(
        verb=Verb(row["verb"]),
        id=row["id"],
        target=row["target"],
        why=row.get("why"),
        who=row["who"],
        who_by=row["whoBy"],
        door=row["verb"],
    )


def rows_of(seen: Observed, answers: Sequence[Answer]) -> list[Manifest]:
    """The newest request at each door, for status; one that was taken away stays told."""
    rows = {str(r["verb"]): dict(r) for r in seen.status.get("requests") or () if r.get("state") != "Pending"}
    rows |= {a.directive.door: a.to_wire() for a in answers}
    return [rows[door] for door in (*Verb, FIELD) if door in rows]


def _known(seen: Observed, entries: Sequence[LoggedEntry], directive: Directive) -> Answer | None:
    """What became of a request so far: the log's word, else what status says, else what later entries remember."""
    for logged in reversed(entries):
        entry = logged.entry
        if entry.request_id == directive.id and entry.cause in directive.verb.causes:
            return Answer(
                directive=directive, state="Done", message=f"revision {entry.number}: {entry.why}", at=entry.at
            )
    for row in seen.status.get("requests") or ():
        if (row.get("verb"), row.get("id")) != (directive.door, directive.id):
            continue
        if row.get("state") == "Done" and _is_cut(seen, entries):
            continue
        return Answer(
            directive=directive,
            state=row.get("state", "Pending"),
            message=str(row.get("message", "")),
            at=str(row.get("at") or format_time(seen.now)),
        )
    remembers = next((e.entry for e in entries if _mark(directive) in e.entry.answered), None)
    if remembers is not None:
        return Answer(directive=directive, state="Done", message="by a revision that is pruned", at=remembers.at)
    return None


def _mark(directive: Directive) -> str:
    return f"{directive.door}/{directive.id}"


def _is_cut(seen: Observed, entries: Sequence[LoggedEntry]) -> bool:
    """Whether status tells of a newer entry than there is: what was done may have gone with it."""
    told = int((seen.status.get("live") or {}).get("revision") or 0)
    return told > (entries[-1].number if entries else 0)


def _target(entries: Sequence[LoggedEntry], directive: Directive, gone: Mapping[str, str]) -> LoggedEntry:
    """The entry to go back to."""
    if directive.target != PREVIOUS and not directive.target.isdecimal():
        raise _Refused(_misspelt(directive))
    if not entries:
        raise _Refused("nothing is live yet, so there is nothing to go back to")
    if directive.target == PREVIOUS:
        found = other_good(entries)
        if found is None:
            raise _Refused("the log has no other content that was healthy and is not held")
    else:
        number = int(directive.target)
        found = next((e for e in entries if e.number == number), None)
        if found is None:
            raise _Refused(f"the log has no revision {number}: it has {entries[0].number} to {entries[-1].number}")
    if found.entry.content == entries[-1].entry.content:
        raise _Refused(f"the content of revision {found.number} is live already")
    if found.entry.content in gone:
        raise _Refused(f"revision {found.number} cannot take over: {gone[found.entry.content]}")
    return found


def _possible(entries: Sequence[LoggedEntry], directive: Directive, candidate: Content | None) -> tuple[str, str]:
    """Say what a request other than a rollback is about to do, and to what."""
    if directive.verb is Verb.RESUME:
        if directive.target != NOW:
            raise _Refused(_misspelt(directive))
        if not active_holds(entries):
            raise _Refused("nothing is held")
        return "releasing what is held", NOW
    if candidate is None:
        raise _Refused("no new content is on its way to traffic")
    if directive.target not in {NOW, candidate.short}:
        raise _Refused(f"{_misspelt(directive)}; on its way is {candidate.short}")
    if not entries:
        raise _Refused("nothing is live yet: the first content goes live as soon as its pods answer")
    promotes = directive.verb is Verb.PROMOTE
    return f"content {candidate.short} goes live without waiting" if promotes else "giving it up", candidate.short


def _misspelt(directive: Directive) -> str:
    form = _FORMS[directive.verb]
    return f"{directive.verb.annotation} must be {form}, optionally with @<id> and words why, not {directive.target!r}"
