"""Generated edits of the spec, with rollbacks between: it settles, and where it ends depends on what is asked alone."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.edits import EDITS, REQUESTS, SETTLED
from lab.player import digest
from slipway_operator.domain.revisions import read_log


class Walker:
    """One world and what is asked of it."""

    def __init__(self, world_type: Any) -> None:
        self.world = world_type()
        self.key = self.world.add()
        self.world.edit(self.key, "source.git.ref", "v1")
        self.world.edit(self.key, "revisionHistoryLimit", 50)
        self.log: list[Any] = []
        self._ids = 0

    @property
    def spec(self) -> Any:
        return copy.deepcopy(self.world.cluster.objects[self.world.ref(self.key)]["spec"])

    async def do(self, what: str, value: Any) -> None:
        if what == "request":
            verb, target = value.split()
            self._ids += 1
            self.world.annotate(self.key, f"slipway.dev/{verb}", f"{target}@r-{self._ids}")
        else:
            self.world.edit(self.key, what, value)
        await self.settle()

    async def apply(self, spec: Any) -> None:
        self.world.cluster.edit(self.world.ref(self.key), lambda live: live.update(spec=copy.deepcopy(spec)))
        await self.settle()

    async def settle(self) -> None:
        """Let it settle, and see that the log was only added to."""
        ref = self.spec["source"]["git"]["ref"]
        self.world.commit = digest(ref)[7:47]
        await self.world.settle(self.key, rounds=30)
        entries, faults = read_log(self.world.entries())
        assert faults == ()
        now = [(e.number, e.digest) for e in entries]
        assert now[: len(self.log)] == self.log, "an entry was changed or taken away"
        self.log = now
        assert self.world.ready(self.key) in SETTLED
        self.world.cluster.writes.clear()
        await self.world.look(self.key)
        assert self.world.cluster.writes == [], "settled means that a look writes nothing"

    def end(self) -> Any:
        """What is live and how; when and since when depends on the way, and is left out."""
        world = self.world
        lane = world.lane()
        scalers = [s["spec"]["scaleTargetRef"]["name"] for s in world.cluster.of_kind("HorizontalPodAutoscaler")]
        return {"lane": lane, "pods": world.deployments()[lane], "scalers": scalers, "ready": world.ready(self.key)}


async def straight(world_type: Any, spec: Any) -> Any:
    """Where a world ends that was asked for this from the start."""
    walker = Walker(world_type)
    await walker.apply(spec)
    return walker.end()


def same(one: Any, other: Any, spec: Any) -> bool:
    """Whether two ends are the same; under an autoscaler the number of pods is its own."""
    ignored = {"pods"} if "autoscaling" in spec["serving"] else set()
    return {n: v for n, v in one.items() if n not in ignored} == {n: v for n, v in other.items() if n not in ignored}


async def edits_alone(world_type: Any, edits: list[tuple[str, Any]]) -> None:
    walker = Walker(world_type)
    await walker.settle()
    ends = [(walker.spec, walker.end())]
    for what, value in edits:
        await walker.do(what, value)
        ends.append((walker.spec, walker.end()))
    spec, end = ends[-1]
    assert same(end, await straight(world_type, spec), spec), "the way there does not matter"
    for earlier, before in ends[:-1]:
        await walker.apply(earlier)
        assert same(walker.end(), before, earlier), "what was asked for before gives what it gave before"


async def with_requests(world_type: Any, steps: list[tuple[str, Any]]) -> None:
    walker = Walker(world_type)
    await walker.settle()
    for what, value in steps:
        await walker.do(what, value)
    # Whatever is held by now: another commit releases it.
    await walker.do("source.git.ref", "v-new")
    assert walker.world.ready(walker.key) == ("True", "Serving")
    spec = walker.spec
    assert same(walker.end(), await straight(world_type, spec), spec)
    ids = [e["data"]["requestId"] for e in walker.world.entries() if e["data"].get("requestId")]
    assert len(ids) == len(set(ids)), "a request happened twice"


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(edits=st.lists(EDITS, min_size=1, max_size=6))
def test_edits_end_where_the_last_one_says(world_type, edits):
    asyncio.run(edits_alone(world_type, edits))


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(steps=st.lists(st.one_of(EDITS, REQUESTS), min_size=1, max_size=8))
def test_rollbacks_between_edits_leave_no_trace_on_what_comes_after(world_type, steps):
    asyncio.run(with_requests(world_type, steps))
