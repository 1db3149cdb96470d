"""Generated edits on a real API server, as `tests/unit/controllers/test_edits.py` has them in memory."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.bench import REACHED_SECONDS, Bench, opened
from lab.cases import SPEC, Case
from lab.edits import EDITS, REQUESTS, SETTLED
from lab.faults import Fault
from lab.lives import traced
from slipway_operator.domain import labels
from slipway_operator.domain.revisions import read_log

EVERYTHING = os.environ.get("SLIPWAY_FAULTS") == "all"
BESIDE = 4
"""Walks of one example, on one API server at the same time."""
EXAMPLES = 5 if EVERYTHING else 1
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    # An example takes half a minute: what failed is told as it was.
    phases=[Phase.generate],
)


class Walker:
    """One ModelDeployment and what is asked of it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.spec: Any = {**copy.deepcopy(SPEC), "revisionHistoryLimit": 50}
        self.log: list[Any] = []
        self._ids: list[str] = []

    async def do(self, what: str, value: Any) -> None:
        if what == "request":
            verb, target = value.split()
            self._ids.append(f"r-{len(self._ids) + 1}")
            await self.case.annotate(verb, f"{target}@{self._ids[-1]}")
            await self.settle()
            return
        spec = copy.deepcopy(self.spec)
        *parents, last = what.split(".")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        if value is None:
            del place[last]
        await self.apply(spec)

    async def apply(self, spec: Any) -> None:
        self.spec = copy.deepcopy(spec)
        await self.case.apply(self.spec)
        await self.settle()

    async def settle(self) -> None:
        """Let it settle, and see that the log was only added to."""
        deadline = time.monotonic() + REACHED_SECONDS
        while True:
            resource, objects = await self.there_is()
            writes = len(self.case.script.writes)
            if self._is_settled(resource):
                await asyncio.sleep(0.7)  # longer than the operator takes for a second look
                if len(self.case.script.writes) == writes and self._is_settled((await self.there_is())[0]):
                    break
            assert time.monotonic() < deadline, f"not settled: {(resource.get('status') or {}).get('summary')}"
            await asyncio.sleep(0.2)
        entries, faults = read_log([o for o in objects if o["kind"] == "ControllerRevision"])
        assert faults == ()
        now = [(e.number, e.digest) for e in entries]
        assert now[: len(self.log)] == self.log, "an entry was changed or taken away"
        self.log = now
        asked = [e.entry.request_id for e in entries if e.entry.request_id]
        assert len(asked) == len(set(asked)), "a request happened twice"

    async def there_is(self) -> tuple[Any, list[Any]]:
        resource, objects = await self.case.there_is()
        assert resource is not None
        return resource, objects

    def _is_settled(self, resource: Any) -> bool:
        status = resource.get("status") or {}
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return False
        told = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
        known = {r["id"] for r in status.get("requests") or () if r["state"] != "Pending"}
        return told["Ready"] in SETTLED and set(self._ids[-1:]) <= known

    async def end(self) -> dict[str, Any]:
        """What is live and how; when and since when depends on the way, and is left out."""
        resource, objects = await self.there_is()
        entries, _ = read_log([o for o in objects if o["kind"] == "ControllerRevision"])
        live = entries[-1].entry
        (service,) = [o for o in objects if o["kind"] == "Service"]
        assert service["spec"]["selector"][labels.LANE] == live.digests.short
        scalers = [o for o in objects if o["kind"] == "HorizontalPodAutoscaler"]
        pods = [
            o["spec"]["replicas"]
            for o in objects
            if o["kind"] == "Deployment" and o["metadata"]["labels"].get(labels.CONTENT) == live.digests.short
        ]
        ready = next(c for c in resource["status"]["conditions"] if c["type"] == "Ready")
        return {
            "content": live.digests.short,
            "commit": live.digests.commit,
            "spec": live.spec,
            # Under an autoscaler their number is its own.
            "pods": pods if not scalers else len(pods),
            "scalers": len(scalers),
            "ready": (ready["status"], ready["reason"]),
        }


async def straight(bench: Bench, spec: Any) -> dict[str, Any]:
    """Where one ends that was asked for this from the start."""
    async with bench.case("walk", Fault()) as case:
        walker = Walker(case)
        await walker.apply(spec)
        return await walker.end()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two ends in two namespaces are the same; what is made names its namespace."""
    return {**one, "content": ""} == {**other, "content": ""}


async def edits_alone(bench: Bench, steps: list[tuple[str, Any]], case: Case) -> None:
    walker = Walker(case)
    await walker.apply(walker.spec)
    ends = [(walker.spec, await walker.end())]
    for what, value in steps:
        await walker.do(what, value)
        ends.append((walker.spec, await walker.end()))
    spec, end = ends[-1]
    assert same(end, await straight(bench, spec)), "the way there does not matter"
    # The first and one from the middle: the fast test does all.
    for earlier, before in (ends[0], ends[len(ends) // 2]):
        await walker.apply(earlier)
        assert await walker.end() == before, "what was asked for before gives what it gave before"


async def with_requests(bench: Bench, steps: list[tuple[str, Any]], case: Case) -> None:
    walker = Walker(case)
    await walker.apply(walker.spec)
    for what, value in steps:
        await walker.do(what, value)
    # Whatever is held by now: another commit releases it.
    await walker.do("source.git.ref", "v-new")
    end = await walker.end()
    assert end["ready"] == ("True", "Serving")
    assert same(end, await straight(bench, walker.spec))


async def walked(plane: Any, walk: Any, walks: list[list[tuple[str, Any]]]) -> list[str]:
    """What went wrong on walks that are made at the same time."""

    async def one(steps: list[tuple[str, Any]]) -> str | None:
        async with bench.case("walk", Fault()) as case:
            try:
                await walk(bench, steps, case)
                await bench.require_rest(case, await case.picture())
            except (AssertionError, TimeoutError) as error:
                return f"{steps}: {error}"
        return None

    with traced() as bugs:
        async with opened(plane) as bench:
            told = await asyncio.gather(*map(one, walks))
    return [*(t for t in told if t is not None), *bugs]


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@BOUNDED
@given(walks=st.lists(st.lists(EDITS, min_size=1, max_size=5), min_size=BESIDE, max_size=BESIDE))
def test_edits_end_where_the_last_one_says(plane, count, walks):
    wrong = asyncio.run(walked(plane, edits_alone, walks))
    count("random edits", ["random walk"] * len(walks))

    assert not wrong, "\n".join(wrong)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@BOUNDED
@given(walks=st.lists(st.lists(st.one_of(EDITS, REQUESTS), min_size=2, max_size=6), min_size=BESIDE, max_size=BESIDE))
def test_rollbacks_between_edits_leave_no_trace_on_what_comes_after(plane, count, walks):
    wrong = asyncio.run(walked(plane, with_requests, walks))
    count("random edits and requests", ["random walk"] * len(walks))

    assert not wrong, "\n".join(wrong)
