"""Which entry the log gets next, if any: the moment at which a decision becomes the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.contents import Content
from slipway_operator.domain.directives import Directive, spec_author
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.revisions import Cause, Entry, Hold, LoggedEntry, entry_manifest, next_number
from slipway_operator.plan.chain import Chain, records_of
from slipway_operator.plan.decisions import Decisions, Return
from slipway_operator.plan.holds import active_holds, hold_on, hold_on_live
from slipway_operator.plan.observed import Manifest, Observed
from slipway_operator.plan.rollout import Rollout
from slipway_operator.plan.serving import repository_for
from slipway_operator.plan.wishes import ref_of_source

OPERATOR = ("slipway", "Operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the next entry is decided on."""

    seen: Observed
    spec: ModelDeploymentSpec
    entries: Sequence[LoggedEntry]
    chain: Chain | None
    """The way to what the spec wants; None: not known, or held."""
    logged: LoggedEntry | None
    """The entry that has what the spec wants already."""
    candidate: Content | None
    """What the spec wants, where it is complete and not live."""
    decisions: Decisions
    rollout: Rollout
    returned: bool
    """The spec asks for the live content again, and that is known for sure."""
    rolled_back: Return | None = None
    """A rollback whose target answers now."""
    given_up: tuple[str, Directive | None] | None = None
    """Why the candidate is given up, and who asked."""
    deciding: dict[str, Any] = field(default_factory=dict)


def next_entry(now: Situation) -> Manifest | None:
    """The next entry as an object to create; None: the log stays as it is."""
    entry = _rollback(now) or _abort(now) or _resume(now) or _spec_change(now)
    if entry is None:
        return None
    return entry_manifest(
        entry.model_copy(update={"answered": now.decisions.answered}),
        owner_name=now.seen.key.name,
        namespace=now.seen.key.namespace,
        owner_reference=None if now.seen.settings.log.keep_after_deletion else now.seen.owner_reference,
    )


def _rollback(now: Situation) -> Entry | None:
    back = now.rolled_back
    if back is None:
        return None
    last, target = now.entries[-1], back.to.entry
    who, who_by = (back.directive.who, back.directive.who_by) if back.directive is not None else OPERATOR
    # A new content that was on its way is part of what was wrong: it must not follow by itself.
    return _like(
        now,
        back.to,
        cause=Cause.ROLLBACK,
        request_id=back.directive.id if back.directive is not None else None,
        who=who,
        who_by=who_by,
        why=back.why,
        undoes=last.number,
        restores=target.number,
        holds=(hold_on_live(now.entries), *_hold_on_candidate(now)),
    )


def _abort(now: Situation) -> Entry | None:
    if now.given_up is None or not now.entries:
        return None
    why, directive = now.given_up
    who, who_by = (directive.who, directive.who_by) if directive is not None else OPERATOR
    return _like(
        now,
        now.entries[-1],
        cause=Cause.ABORT,
        request_id=directive.id if directive is not None else None,
        who=who,
        who_by=who_by,
        why=why,
        holds=_hold_on_candidate(now),
    )


def _resume(now: Situation) -> Entry | None:
    asked = now.decisions.resume
    if asked is not None:
        why = asked.why or "asked for"
        return _like(
            now, now.entries[-1], cause=Cause.RESUME, request_id=asked.id, who=asked.who, who_by=asked.who_by, why=why
        )
    if now.returned and any(hold.spec is not None for _, hold in active_holds(now.entries)):
        who, who_by = spec_author(now.seen.resource["metadata"], now.seen.settings.stamps)
        why = "the spec asks for the live content again"
        return _like(now, now.entries[-1], cause=Cause.RESUME, who=who, who_by=who_by, why=why)
    return None


def _spec_change(now: Situation) -> Entry | None:
    """An entry once what the spec wants answers and is not what the newest entry says."""
    chain, rollout = now.chain, now.rollout
    if chain is None or chain.content is None or not rollout.may_go_live:
        return None
    last = now.entries[-1] if now.entries else None
    if last is not None and rollout.candidate is None and last.entry.spec == now.deciding:
        return None
    followed = last is not None and last.entry.spec == now.deciding
    who, who_by = OPERATOR if followed else spec_author(now.seen.resource["metadata"], now.seen.settings.stamps)
    promote = now.decisions.promote if rollout.candidate is not None else None
    why = _why(now.spec, last, chain.content.commit, deciding=now.deciding, generation=now.seen.generation)
    logged = now.logged.entry if now.logged is not None else None
    return Entry(
        number=next_number(now.seen.entries),
        previous=last.digest if last is not None else None,
        cause=Cause.SPEC_CHANGE,
        request_id=promote.id if promote is not None else None,
        who=who,
        who_by=who_by,
        why=why if promote is None else f"{why}; promoted by {promote.who}: {promote.why or 'asked for'}",
        at=format_time(now.seen.now),
        content=chain.content.digest,
        digests=chain.content,
        spec=now.deciding,
        repository=(logged.repository if logged is not None else None) or repository_for(now.seen),
        steps=logged.steps if logged is not None else records_of(chain),
    )


def _like(now: Situation, model: LoggedEntry, **fields: Any) -> Entry:
    """An entry with the content of another."""
    fields.setdefault("holds", ())
    return Entry(
        number=next_number(now.seen.entries),
        previous=now.entries[-1].digest,
        at=format_time(now.seen.now),
        content=model.entry.content,
        digests=model.entry.digests,
        spec=model.entry.spec,
        repository=model.entry.repository,
        steps=model.entry.steps,
        **fields,
    )


def _hold_on_candidate(now: Situation) -> tuple[Hold, ...]:
    if now.candidate is None:
        return ()
    return (hold_on(now.candidate.digest, now.deciding, now.candidate.commit),)


def _why(
    spec: ModelDeploymentSpec, last: LoggedEntry | None, commit: str, *, deciding: dict[str, Any], generation: int
) -> str:
    short = commit.removeprefix("sha256:")[:12]
    ref = ref_of_source(spec)
    # A ref that is the commit itself is not said twice.
    where = f"commit {short}" if ref.removeprefix("sha256:").startswith(short) else f"{ref} at {short}"
    if last is None:
        return f"first content, from {where}"
    if last.entry.spec == deciding:
        return f"{ref} moved to {short}"
    return f"the spec changed (generation {generation}), from {where}"
