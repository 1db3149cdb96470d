"""What is held after a rollback or an abort, and whether it is what the spec wants now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway_operator.domain.digests import sha256_of
from slipway_operator.domain.revisions import Cause, Hold, LoggedEntry, holds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A hold that keeps what the spec wants from going live."""

    by: LoggedEntry
    """The entry that holds it."""
    hold: Hold


def active_holds(entries: Sequence[LoggedEntry]) -> tuple[tuple[LoggedEntry, Hold], ...]:
    """What is held now; a content that somebody made live again by its number is not."""
    live = entries[-1].entry.content if entries else None
    return tuple((by, hold) for by, hold in holds_of(entries) if hold.content != live)


def held(entries: Sequence[LoggedEntry], deciding: dict[str, Any], commit: str | None) -> Held | None:
    """The newest hold on a spec at a commit.

    Args:
        entries: The log.
        deciding: The part of the spec that decides on a content.
        commit: What the source names; None where it was resolved once and is not remembered.
    """
    spec = sha256_of(deciding)
    for by, hold in reversed(active_holds(entries)):
        if hold.spec == spec and commit in {None, hold.commit}:
            return Held(by=by, hold=hold)
    return None


def hold_on_live(entries: Sequence[LoggedEntry]) -> Hold:
    """What to hold when the live content is left: its model after a promotion, else its spec at its commit."""
    live = entries[-1].entry
    brought = next(
        (
            e.entry.cause
            for e in reversed(entries)
            if e.entry.content == live.content and e.entry.cause in {Cause.SPEC_CHANGE, Cause.PROMOTION}
        ),
        Cause.SPEC_CHANGE,
    )
    if brought is Cause.PROMOTION:
        return Hold(content=live.content, model=live.digests.model)
    return hold_on(live.content, live.spec, live.digests.commit)


def hold_on(content: str, deciding: dict[str, Any], commit: str) -> Hold:
    """A hold on a spec at a commit."""
    return Hold(content=content, spec=sha256_of(deciding), commit=commit)


def other_good(entries: Sequence[LoggedEntry]) -> LoggedEntry | None:
    """The newest entry of another content than the live one that is not held: ``previous``, and the standby."""
    if not entries:
        return None
    off = {entries[-1].entry.content, *(hold.content for _, hold in active_holds(entries))}
    return next((e for e in reversed(entries) if e.entry.content not in off), None)
