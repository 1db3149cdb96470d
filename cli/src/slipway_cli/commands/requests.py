"""``rollback``, ``resume``, ``promote``, ``pause``, ``abort``: requests by annotation, and what becomes of them.

The operator decides; an annotation asks. Each request has an id of its own, so that it is
acted upon once, whatever else writes the object, and its fate can be told apart from others'.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.observe import read_log
from slipway_cli.options import HERE, Flag, Where
from slipway_cli.problem import Code, Problem
from slipway_cli.session import MODEL_DEPLOYMENTS, ApiError, Session
from slipway_cli.views.verdict import Outcome, outcome
from slipway_cli.waiting import seconds, until
from slipway_operator.domain.directives import NOW, STAMP, Verb
from slipway_operator.domain.labels import PAUSED

_ID_DIGITS = 12
_INVALID = 422
_ID = re.compile(r"[A-Za-z0-9._-]{1,63}")
_CONTENT = re.compile(r"[0-9a-f]{10}")
_PREVIOUS = re.compile(r"previous|[1-9][0-9]{0,8}")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a request is made and followed."""

    why: str = ""
    """The reason, for the log and for whoever looks at it later."""
    request_id: Annotated[str | None, Parameter(name="--id")] = None
    """Your own id, such as a ticket: asked twice with one id, it happens once."""
    no_wait: Annotated[bool, Flag] = False
    """Only ask; do not wait for what becomes of it."""
    timeout: str = "5m"
    """How long to wait, such as 90s, 10m or 1h30m."""


PLAINLY = Asking()
OnlyThis = Annotated[
    str | None, Parameter(help="Only if the new content is this one (its short digest, as `get` shows it).")
]


def rollback(name: str, to: str = "previous", /, *, asking: Asking = PLAINLY, where: Where = HERE) -> int:
    """Go back.

    Parameters
    ----------
    name
        The deployment.
    to
        previous, the newest other content that was healthy; or a revision of `history`.
    """
    if not _PREVIOUS.fullmatch(to):
        raise Problem(f"{to!r} is no revision: say previous, or a number that `history` shows", code=Code.USAGE)
    session = Session.open(where)
    if to != "previous":
        numbers = [int(entry["number"]) for entry in read_log(session, name)]
        if numbers and int(to) not in numbers:
            raise Problem(f"{name} has no revision {to}: its log has {', '.join(map(str, numbers))}")
    return _ask(session, name, Verb.ROLLBACK, to, asking)


def resume(name: str, /, *, asking: Asking = PLAINLY, where: Where = HERE) -> int:
    """Go on.

    Parameters
    ----------
    name
        The deployment: it is no longer paused, and what is held may go live again.
    """
    session = Session.open(where)
    resource = session.deployment(name)
    paused = PAUSED in (resource["metadata"].get("annotations") or {})
    held = bool((resource.get("status") or {}).get("held"))
    if paused:
        _annotate(session, name, {PAUSED: None})
        screen.say(f"{name} is no longer paused")
    elif ((resource.get("spec") or {}).get("rollout") or {}).get("paused"):
        raise Problem("spec.rollout.paused is true: take it out where the spec comes from, or it would come back")
    if not held:
        if not paused:
            screen.say(f"{name}: nothing is paused and nothing is held")
        return Code.OK
    return _ask(session, name, Verb.RESUME, NOW, asking)


def promote(name: str, /, *, content: OnlyThis = None, asking: Asking = PLAINLY, where: Where = HERE) -> int:
    """End the canary, go live.

    Parameters
    ----------
    name
        The deployment.
    """
    return _ask(Session.open(where), name, Verb.PROMOTE, _target(content), asking)


def abort(name: str, /, *, content: OnlyThis = None, asking: Asking = PLAINLY, where: Where = HERE) -> int:
    """Give the new content up.

    Parameters
    ----------
    name
        The deployment.
    """
    return _ask(Session.open(where), name, Verb.ABORT, _target(content), asking)


def pause(name: str, /, *, off: Annotated[bool, Flag] = False, where: Where = HERE) -> int:
    """Let nothing further go live.

    Parameters
    ----------
    name
        The deployment. What answers now goes on answering.
    off
        End the pause.
    """
    session = Session.open(where)
    session.deployment(name)
    if off:
        _annotate(session, name, {PAUSED: None})
        screen.say(f"{name} is no longer paused")
        return Code.OK
    _annotate(session, name, {PAUSED: "true"})
    screen.say(f"{name} is paused: nothing further goes live until `kubectl slipway pause {name} --off`")
    return Code.OK


def _target(content: str | None) -> str:
    if content is not None and not _CONTENT.fullmatch(content):
        raise Problem(
            f"{content!r} is no content: give its ten hexadecimal digits, as `get` shows them", code=Code.USAGE
        )
    return content or NOW


def _annotate(session: Session, name: str, annotations: Mapping[str, str | None]) -> None:
    session.merge(session.path(MODEL_DEPLOYMENTS, name), {"metadata": {"annotations": annotations}})


def request_value(target: str, request_id: str, why: str) -> str:
    """The annotation's value: ``<target>@<id> <why>``, the reason on one line."""
    return f"{target}@{request_id} {' '.join(why.split())}".rstrip()


def _ask(session: Session, name: str, verb: Verb, target: str, asking: Asking) -> int:
    limit = seconds(asking.timeout, "--timeout")
    request_id = asking.request_id or uuid.uuid4().hex[:_ID_DIGITS]
    if not _ID.fullmatch(request_id):
        raise Problem(f"--id {request_id!r} is no id: use 1 to 63 letters, digits, '.', '_' and '-'", code=Code.USAGE)
    word = verb.lower()
    session.deployment(name)
    started = time.monotonic()
    value = request_value(target, request_id, asking.why)
    try:
        _annotate(session, name, {verb.annotation: value})
    except ApiError as error:
        stamp = verb.annotation + STAMP
        if error.status != _INVALID or stamp not in error.message:
            raise
        # The chart's policy where the cluster is too old to stamp: whoever asks says who he is.
        _annotate(session, name, {verb.annotation: value, stamp: f"{request_id} {session.user()}"})
    if asking.no_wait:
        screen.say(f"asked for {word} ({target}) of {name}, request {request_id}")
        return Code.OK

    def look() -> tuple[Outcome | None, str]:
        found = outcome(session.deployment(name), read_log(session, name), verb, request_id)
        return (None if found.state == "Pending" else found), found.sentence

    screen.tell(f"asked for {word} ({target}) of {name}, request {request_id}")
    ended = until(session, name, look, timeout=limit, say=screen.tell)
    if ended.state == "Refused":
        raise Problem(f"{word} refused: {ended.sentence}", code=Code.FAILED)
    screen.say(f"{word} of {name}: {ended.sentence} (after {time.monotonic() - started:.1f} s)")
    return Code.OK
