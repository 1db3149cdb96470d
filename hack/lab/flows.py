"""What people do with a ModelDeployment: the flows that faults disturb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lab.cases import Case

Act = Callable[[Case], Awaitable[None]]


@dataclass(frozen=True)
class Flow:
    """Something that people do, and what comes before it undisturbed."""

    name: str
    prepare: Act
    act: Act


async def _nothing(_case: Case) -> None:
    return None


async def _first(case: Case) -> None:
    await case.create()
    await case.until("Serving", revision=1)


async def _second(case: Case) -> None:
    await _first(case)
    await case.version("v2")
    await case.until("Serving", revision=2)


async def _rolled_back(case: Case) -> None:
    await _second(case)
    await case.annotate("rollback", "previous@r-1")
    await case.until("RolledBack", revision=3)


async def _with_canary(case: Case) -> None:
    await case.create(rollout={"canary": {"pods": 1, "for": "10m"}})
    await case.until("Serving", revision=1)


async def _at_canary(case: Case) -> None:
    await _with_canary(case)
    await case.version("v2")
    await case.until("Canary")


async def _create(case: Case) -> None:
    await case.create()


async def _update(case: Case) -> None:
    await case.version("v2")


async def _roll_back(case: Case) -> None:
    await case.annotate("rollback", "previous@r-1")


async def _resume(case: Case) -> None:
    await case.annotate("resume", "now@s-1")


async def _canary_then_promote(case: Case) -> None:
    await case.version("v2")
    await case.until("Canary")
    await case.annotate("promote", "now@p-1")


async def _abort(case: Case) -> None:
    await case.annotate("abort", "now@a-1")


async def _delete(case: Case) -> None:
    await case.person.delete(case.ref)


FLOWS = (
    Flow("create", _nothing, _create),
    Flow("update", _first, _update),
    Flow("rollback", _second, _roll_back),
    Flow("resume", _rolled_back, _resume),
    Flow("canary", _with_canary, _canary_then_promote),
    Flow("abort", _at_canary, _abort),
    Flow("delete", _first, _delete),
)
