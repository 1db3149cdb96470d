"""``history``: the log."""

from __future__ import annotations

from datetime import UTC, datetime

from slipway_cli import screen
from slipway_cli.observe import read_log
from slipway_cli.options import HERE, Output, Where
from slipway_cli.session import Session
from slipway_cli.views.rows import history as rows_of
from slipway_cli.views.rows import history_table


def history(name: str, /, *, output: Output = None, where: Where = HERE) -> None:
    """List the log of a deployment, newest first.

    Parameters
    ----------
    name
        The deployment.
    output
        json or yaml: all that each entry says; wide: model, time and request too.
    """
    session = Session.open(where)
    resource, entries = session.deployment(name), read_log(session, name)
    if output in {"json", "yaml"}:
        screen.data(list(reversed(entries)), str(output))
        return
    if not entries:
        screen.say(f"{name} has no entry yet: nothing was live so far")
        return
    rows = rows_of(resource, entries, datetime.now(UTC))
    screen.say(screen.table(*history_table(rows, wide=output == "wide")))
