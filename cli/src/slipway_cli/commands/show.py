"""``get``: what there is, as a table or as trees, once or as it changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.observe import Bell, changes, read_world
from slipway_cli.options import HERE, Flag, Output, Where
from slipway_cli.problem import Problem
from slipway_cli.session import MODEL_DEPLOYMENTS, Session, will_pass
from slipway_cli.views.node import Mark, Node, lines_of
from slipway_cli.views.overview import overview
from slipway_cli.views.rows import deployment_row, deployment_table
from slipway_cli.views.tree import tree

_REFRESH_SECONDS = 1.0
_LOOK_SECONDS = 10.0
"""A change that no watch brought is seen after so long."""


def get(
    name: str | None = None,
    /,
    *,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"]), Flag] = False,
    output: Output = None,
    all_namespaces: Annotated[bool, Parameter(name=["--all-namespaces", "-A"]), Flag] = False,
    where: Where = HERE,
) -> None:
    """Show deployments.

    Parameters
    ----------
    name
        A deployment: its contents, with share and digests, and their pods. Without it: all of the namespace.
    watch
        Go on as things change: a live tree on a terminal, a line for each change in a pipe.
    output
        json or yaml for programs; wide for all digests, steps and nodes.
    all_namespaces
        The deployments of all namespaces.
    """
    session = Session.open(where)
    if name is not None and all_namespaces:
        raise Problem("name one deployment, or say --all-namespaces: not both")
    if name is None:
        _list(session, output, watch=watch, everywhere=all_namespaces)
    elif output in {"json", "yaml"}:
        _data(session, name, str(output), watch=watch)
    else:
        _tree(session, name, watch=watch, wide=output == "wide")


def _list(session: Session, output: str | None, *, watch: bool, everywhere: bool) -> None:
    path = session.path(MODEL_DEPLOYMENTS, everywhere=everywhere)

    def look() -> str:
        now = datetime.now(UTC)
        rows = [deployment_row(resource, now) for resource in session.list(path)]
        if output in {"json", "yaml"}:
            screen.data(rows, str(output), compact=watch)
            return ""
        if not rows:
            return "no ModelDeployment here" if everywhere else f"no ModelDeployment in namespace {session.namespace}"
        return screen.table(*deployment_table(rows, wide=output == "wide", everywhere=everywhere))

    shown = ""

    def show() -> None:
        nonlocal shown
        text = look()
        if text and text != shown:
            screen.say(text)
        shown = text

    show()
    if not watch:
        return
    with changes(session, everywhere=everywhere) as bell:
        while True:
            if bell.wait(_LOOK_SECONDS):
                show()


def _data(session: Session, name: str, kind: str, *, watch: bool) -> None:
    def view() -> object:
        return overview(read_world(session, name), datetime.now(UTC))

    screen.data(view(), kind, compact=watch)
    if watch:
        with changes(session, name=name) as bell:
            while True:
                if bell.wait(_LOOK_SECONDS):
                    screen.data(view(), kind, compact=True)


def _tree(session: Session, name: str, *, watch: bool, wide: bool) -> None:
    world = read_world(session, name)

    def node() -> Node:
        return tree(overview(world, datetime.now(UTC)), wide=wide)

    if not watch:
        screen.nodes([node()])
        return
    with changes(session, name=name) as bell:

        def look() -> Node:
            nonlocal world
            try:
                world = read_world(session, name)
            except Problem as problem:
                if not will_pass(problem):
                    raise
                return Node(mark=Mark.FAIL, text=problem.message, children=(node(),))
            return node()

        if screen.is_terminal():
            _live(bell, node, look)
        else:
            _lines(bell, look)


def _live(bell: Bell, node: Callable[[], Node], look: Callable[[], Node]) -> None:
    from rich.live import Live

    # Not redirected: rich's stand-in for standard output does not know its encoding, and so no marks.
    first, console = screen.rich_tree(node()), screen.console()
    with Live(first, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        quiet = 0.0
        while True:
            changed = bell.wait(_REFRESH_SECONDS)
            quiet = 0.0 if changed else quiet + _REFRESH_SECONDS
            shown = look() if changed or quiet >= _LOOK_SECONDS else node()
            quiet = quiet if quiet < _LOOK_SECONDS else 0.0
            live.update(screen.rich_tree(shown), refresh=True)


def _lines(bell: Bell, look: Callable[[], Node]) -> None:
    """Each line that was not there at the last look, with the time: a log of what happened."""
    before: set[str] = set()
    while True:
        lines = list(lines_of(look(), ascii_only=not screen.speaks_unicode(), ages=False))
        moment = datetime.now(UTC).strftime("%H:%M:%S")
        for line in lines:
            if line not in before:
                screen.say(f"{moment} {line}")
        before = set(lines)
        bell.wait(_LOOK_SECONDS)
