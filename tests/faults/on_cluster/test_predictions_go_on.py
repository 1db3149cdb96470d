"""Real pods answer all the time while the operator's way to the API server is disturbed.

Two ModelDeployments go the same way at the same time, each with an operator of its own on this machine; one of them
is disturbed and asked for predictions without a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.bench import opened
from lab.cases import NAME, Case
from lab.faults import Away, Fault, Freezing, Rough
from lab.install import Lab
from lab.pictures import difference, is_moving
from lab.projects import FLOWER, trained_spec, write_trained_project
from lab.steady import Loops, Seen, drive, question
from slipway_operator.cluster.kinds import OWNED
from slipway_operator.plan.observed import Manifest, Ref

OUTAGE_SECONDS = 60.0
WATCHES = len(OWNED) + 2
"""Of one operator: what belongs to ModelDeployments, and Slipway's own two kinds."""
PATIENCE_SECONDS = 150.0
END_SECONDS = 60.0
STAYS_SECONDS = 5.0
ASKING = Loops(kept=2, fresh=2, every=0.02)
CANARY = {"rollout": {"canary": {"pods": 1, "for": "1h"}}}


@dataclass(frozen=True)
class Step:
    """Something that a person does, what goes wrong meanwhile, and where it leads."""

    what: str
    act: Callable[[Case], Awaitable[None]]
    trouble: Callable[[], Fault]
    reason: str
    revision: int


@pytest.fixture
def versions(lab: Lab, tmp_path: Path) -> list[str]:
    """Three commits of one project."""
    return [
        lab.git.publish(NAME, write_trained_project(tmp_path / str(number), {"README.md": f"version {number}\n"}))
        for number in (1, 2, 3)
    ]


def steps_of(versions: Sequence[str]) -> tuple[Step, ...]:
    _, second, third = versions

    async def canary(case: Case) -> None:
        await case.edit({**CANARY, "source": {"git": {"ref": third}}})

    return (
        Step("update", lambda c: c.version(second), Rough, "Serving", 2),
        Step("rollback", lambda c: c.annotate("rollback", "previous@r-1"), Rough, "RolledBack", 3),
        Step("resume", lambda c: c.annotate("resume", "now@s-1"), Freezing, "Serving", 5),
        Step("canary", canary, Rough, "Canary", 5),
        Step("abort", lambda c: c.annotate("abort", "now@a-1"), lambda: Away(0, OUTAGE_SECONDS), "Aborted", 6),
    )


async def test_no_prediction_fails_and_the_end_is_the_same(installed, lab, versions, tell):
    source = {"git": {"url": lab.git.url(NAME), "ref": versions[0]}}
    spec = {**trained_spec(source), "serving": {"replicas": 2}}
    async with (
        opened(installed) as bench,
        bench.case("faults-calm", Fault(), process=True) as calm,
        bench.case("faults-rough", Fault(), process=True) as rough,
    ):
        for case in (calm, rough):
            case.patience = PATIENCE_SECONDS
            await case.create(**spec)
        await asyncio.gather(*(case.until("Serving", revision=1) for case in (calm, rough)))

        async def undisturbed() -> Manifest:
            for step in steps_of(versions):
                await step.act(calm)
                await calm.until(step.reason, revision=step.revision)
            return await end(calm)

        calmly = asyncio.create_task(undisturbed())
        async with asked_all_the_time(rough) as seen:
            for step in steps_of(versions):
                await watching(rough)
                began, requests = time.monotonic(), seen.requests
                rough.disturb(step.trouble())
                await step.act(rough)
                await rough.until(step.reason, revision=step.revision)
                tell.append(
                    f"{step.what}: {time.monotonic() - began:.1f} s, {len(rough.script.writes)} writes, "
                    f"{seen.requests - requests:,} requests"
                )
            rough.disturb(Fault())
            wanted = await calmly
            reached = await end(rough, wanted)
        tell.append(f"{seen.requests:,} requests, {len(seen.failures)} failed, {seen.retried} sent again")

        assert seen.failures == []
        assert len(seen.answers) == len(versions), "each version was asked"
        assert difference(wanted, reached) == ""
        assert rough.wrong == []


async def watching(case: Case) -> None:
    """Wait until its operator, which may just have been killed, watches everything again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(case.script.watches) < WATCHES:  # noqa: ASYNC110 - the proxy tells nobody
            await asyncio.sleep(0.1)


@asynccontextmanager
async def asked_all_the_time(case: Case) -> AsyncIterator[Seen]:
    """Ask for predictions through the Service, on open connections and on fresh ones."""
    service = await case.person.get(Ref("v1", "Service", case.namespace, NAME))
    assert service is not None
    seen, stop = Seen(), asyncio.Event()
    host = service["spec"]["clusterIP"]
    load = asyncio.create_task(drive(host, question({"rows": [FLOWER]}), seen, stop, ASKING))
    try:
        yield seen
    finally:
        stop.set()
        await load


async def end(case: Case, wanted: Manifest | None = None) -> Manifest:
    """What it settles in: it moves no more, and nothing is written.

    Args:
        case: Which.
        wanted: What it must be; None: whatever it is.
    """
    deadline = time.monotonic() + END_SECONDS
    while True:
        before, writes = await case.picture(), len(case.script.writes)
        if not is_moving(before) and (wanted is None or wanted == before):
            await asyncio.sleep(STAYS_SECONDS)
            if await case.picture() == before and len(case.script.writes) == writes:
                return before
        if time.monotonic() > deadline:
            return before
        await asyncio.sleep(0.5)
