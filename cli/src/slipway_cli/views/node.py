"""A line of a tree, with a mark: what terminals draw and pipes get as indented text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Mark(Enum):
    """How something is, at a glance: a sign, and one for terminals without Unicode."""

    OK = ("✔", "+")
    BUSY = ("◌", "~")
    WAIT = ("Ⅱ", "=")
    FAIL = ("✖", "x")
    OFF = ("·", ".")
    NONE = ("", "")

    def shown(self, *, ascii_only: bool = False) -> str:
        """The sign."""
        return self.value[1 if ascii_only else 0]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One line and what is below it.

    Attributes:
        text: All but the ages, so that two looks a second apart are equal when nothing happened.
        age: What time alone changes.
    """

    text: str
    mark: Mark = Mark.NONE
    age: str = ""
    children: tuple[Node, ...] = ()


def lines_of(node: Node, *, ascii_only: bool = False, ages: bool = True, depth: int = 0) -> Iterator[str]:
    """A tree as indented lines."""
    mark = node.mark.shown(ascii_only=ascii_only)
    age = f"  {node.age}" if ages and node.age else ""
    yield "  " * depth + (f"{mark} " if mark else "") + node.text + age
    for child in node.children:
        yield from lines_of(child, ascii_only=ascii_only, ages=ages, depth=depth + 1)
