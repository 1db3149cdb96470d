"""The terminal: what is printed is a person's or, in a pipe, a program's."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from slipway_cli.views.node import Mark, Node, lines_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

_STYLES = {
    Mark.OK: "green",
    Mark.BUSY: "yellow",
    Mark.WAIT: "cyan",
    Mark.FAIL: "bold red",
    Mark.OFF: "dim",
    Mark.NONE: "",
}


_WIDE = 4096


def is_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def has_colour() -> bool:
    """Whether colours help: a person looks, and has not said NO_COLOR (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def lenient() -> None:
    """Let a standard output that is not UTF-8 show what it can, with a question mark for the rest, and not fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def say(text: str) -> None:
    """Print lines to standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print a remark that is no part of the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as kubectl prints them; the last one is as long as it is."""
    everything = [list(head), *([" ".join(cell.split()) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in everything) for i in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in everything
    )


def data(value: Any, kind: str, *, compact: bool = False) -> None:
    """Print plain data as JSON or YAML; ``compact``: one document a line, or behind ``---``."""
    if kind == "json":
        # A program gets all of it, in escapes where need be.
        say(json.dumps(value, ensure_ascii=not speaks_unicode(), indent=None if compact else 2))
        return
    import yaml

    say(("---\n" if compact else "") + yaml.safe_dump(value, sort_keys=False, allow_unicode=speaks_unicode()).rstrip())


def nodes(roots: Sequence[Node]) -> None:
    """Print trees: with lines and colours for a person, indented for a program."""
    if is_terminal():
        # Wider than any line: what does not fit is the terminal's to wrap, not ours to cut.
        console(width=_WIDE).print(*(rich_tree(root) for root in roots), sep="\n")
        return
    for root in roots:
        say("\n".join(lines_of(root, ascii_only=not speaks_unicode())))


def console(*, width: int | None = None) -> Console:
    """The terminal with colours, unless NO_COLOR says otherwise."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=width)


def rich_tree(root: Node) -> Tree:
    """A tree as rich draws it."""
    from rich.text import Text
    from rich.tree import Tree

    def label(node: Node) -> Text:
        mark = node.mark.shown(ascii_only=not speaks_unicode())
        return Text.assemble(
            (f"{mark} " if mark else "", _STYLES[node.mark]),
            (node.text, "dim" if node.mark is Mark.OFF else ""),
            (f"  {node.age}" if node.age else "", "dim"),
        )

    def grow(tree: Tree, node: Node) -> Tree:
        for child in node.children:
            grow(tree.add(label(child)), child)
        return tree

    return grow(Tree(label(root), guide_style="dim"), root)


def speaks_unicode() -> bool:
    """Whether standard output can show marks such as ✔."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
