"""docs/reasons.md explains every reason that the code gives, and no other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from enum import StrEnum
from pathlib import Path

import pytest

from slipway_operator.builder.errors import RegistryReason
from slipway_operator.builder.requirements import LockReason
from slipway_operator.builder.sources import SourceReason
from slipway_operator.builder.uv_errors import InstallReason
from slipway_operator.domain.reasons import Reason
from slipway_operator.plan.cleanup import CleanupReason
from slipway_operator.plan.proof import ProofReason

ROOT = Path(__file__).parents[3]
ENUMS: tuple[type[StrEnum], ...] = (
    Reason,
    ProofReason,
    CleanupReason,
    SourceReason,
    LockReason,
    InstallReason,
    RegistryReason,
)
TOLD_BY = {"StepFailed": 0, "Failure": 0, "Blocked": 0, "Waiting": 0, "Condition": 2, "Event": 1}
"""Which argument is the reason, by what is called with it."""
COMPOSED = {f"{step}Succeeded" for step in ("Build", "Train", "Export")}
"""Events whose reason is put together from the step's name."""
UNSEEN = {"Expired", "WatchEnded"}
"""How the store talks to itself: no status or event has them."""
_WORD = re.compile(r"[A-Z][A-Za-z0-9]{2,63}")


def _explained() -> Counter[str]:
    rows = [line for line in (ROOT / "docs" / "reasons.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    return Counter(reason for row in rows for reason in re.findall(r"`(\w+)`", row.split("|")[1]))


def _words(tree: ast.AST) -> set[str]:
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and _WORD.fullmatch(text)}


def _told(tree: ast.AST) -> set[str]:
    """Reasons that are written out where they are given: as an argument, or by the name ``reason`` before."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments) if len(arguments) > TOLD_BY.get(name, 9):
                given = arguments[TOLD_BY[name]]
                found |= set() if isinstance(given, ast.JoinedStr) else _words(given)
            case ast.keyword(arg="reason", value=value) | ast.Assign(targets=[ast.Name(id="reason")], value=value):
                found |= _words(value)
            case _:
                pass
    return found


TREES = [
    ast.parse(path.read_text("utf-8")) for path in (ROOT / "operator" / "src").rglob("*.py") if path.name != "fake.py"
]
EXPLAINED = _explained()
GIVEN = {reason.value for enum in ENUMS for reason in enum}.union(COMPOSED, *map(_told, TREES)) - UNSEEN


@pytest.mark.parametrize("reason", sorted(GIVEN))
def test_a_reason_is_explained_once(reason: str) -> None:
    assert EXPLAINED[reason] == 1


def test_nothing_else_is_explained() -> None:
    assert set(EXPLAINED) <= GIVEN.union(*map(_words, TREES))


def test_every_reason_of_the_faults_is_explained() -> None:
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines() if line.count("|") == 5]
    named = {reason for row in rows for reason in re.findall(r"`([A-Z]\w+)`", row.split("|")[2])}

    assert len(named) > 30
    assert named <= set(EXPLAINED)
