"""``status``: one verdict and its exit code, at once or when it has settled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from slipway_cli import screen
from slipway_cli.observe import read_world
from slipway_cli.options import HERE, Data, Flag, Where
from slipway_cli.problem import Code
from slipway_cli.session import Manifest, Session
from slipway_cli.views.overview import overview
from slipway_cli.views.tree import tree
from slipway_cli.views.verdict import verdict
from slipway_cli.waiting import seconds, until


@dataclass(frozen=True)
class Settled:
    """How a deployment came to rest."""

    code: Code
    sentence: str
    resource: Manifest


def status(
    name: str,
    /,
    *,
    wait: Annotated[bool, Flag] = False,
    timeout: str = "15m",
    output: Data = None,
    where: Where = HERE,
) -> int:
    """Say where a deployment stands.

    Exit codes: 0 ready, 1 cannot tell, 3 under way, 4 failed, 5 time was over, 6 held, 7 paused.

    Parameters
    ----------
    name
        The deployment.
    wait
        Wait until it is ready, has failed, is held or paused.
    timeout
        How long to wait, such as 90s, 10m or 1h30m.
    output
        json or yaml: the conditions and all the rest of status.
    """
    session = Session.open(where)
    limit = seconds(timeout, "--timeout")
    code = settle(session, name, limit).code if wait else verdict(session.deployment(name)).code
    world = read_world(session, name)
    if output is not None:
        found = verdict(world.resource)
        facts = {"name": name, "code": int(code), "sentence": found.sentence, **(world.resource.get("status") or {})}
        screen.data(facts, output)
    else:
        screen.nodes([tree(overview(world, datetime.now(UTC)))])
        for condition in (world.resource.get("status") or {}).get("conditions") or ():
            words = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
            screen.say(f"{condition['type']}={condition['status']} {words}")
    return code


def settle(session: Session, name: str, timeout: float) -> Settled:
    """Wait until a deployment has come to rest, and say on the way where it is.

    Raises:
        Problem: Time is over.
    """

    def look() -> tuple[Settled | None, str]:
        resource = session.deployment(name)
        found = verdict(resource)
        summary = (resource.get("status") or {}).get("summary")
        if found.code is Code.UNDER_WAY:
            return None, str(summary or found.sentence)
        return Settled(found.code, found.sentence, resource), ""

    return until(session, name, look, timeout=timeout, say=screen.tell)
