"""Random walks: whatever happens in whatever order, what is live serves, and in the end it settles."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.revisions import read_log

FAILED = json.dumps({"ok": False, "reason": "LockFileMissing", "message": "m"})
PASSING = json.dumps({"ok": False, "reason": "IndexUnavailable", "message": "m", "retry": True})

ACTIONS = st.one_of(
    st.tuples(st.just("look")),
    st.tuples(st.just("play")),
    st.tuples(st.just("ref"), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(st.just("replicas"), st.integers(1, 3)),
    st.tuples(st.just("autoscale")),
    st.tuples(st.just("train"), st.booleans()),
    st.tuples(st.just("follow"), st.booleans()),
    st.tuples(st.just("push"), st.sampled_from(["aaaa", "bbbb", "cccc"])),
    st.tuples(st.just("fail"), st.sampled_from([FAILED, PASSING])),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.just("lose"), st.sampled_from(["Job", "Deployment", "Service", "Pod", "ConfigMap"])),
    st.tuples(st.just("forget")),
    st.tuples(st.just("retry"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1, 61, 700])),
)


class CrashError(BaseException):
    pass


async def act(world: Any, key: Any, action: tuple[Any, ...]) -> None:  # noqa: C901, PLR0912 - a table of actions
    match action:
        case ("look",):
            await world.look(key)
        case ("play",):
            world.play()
        case ("ref", ref):
            world.edit(key, "source.git.ref", ref)
        case ("replicas", number):
            world.edit(key, "serving", {"replicas": number})
        case ("autoscale",):
            world.edit(key, "serving", {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})
        case ("train", wanted):
            world.edit(key, "model.train", {"command": ["python", "t.py"]} if wanted else None)
        case ("follow", wanted):
            world.edit(key, "source.git.follow", {"interval": "1m"} if wanted else None)
        case ("push", word):
            world.commit = word * 10
        case ("fail", message):
            for job in world.unfinished():
                spec = job["spec"]["template"]["spec"]
                first = [*spec.get("initContainers", ()), *spec["containers"]][0]
                world.cluster.fail_job(job, first["name"], message=message)
        case ("crash", writes):
            await crash_after(world, key, writes)
        case ("lose", kind):
            for ref in [r for r in world.cluster.objects if r.kind == kind][:1]:
                world.cluster.remove(ref)
        case ("forget",):
            world.cluster.edit(world.ref(key), lambda live: live.pop("status", None))
        case ("retry", number):
            world.annotate(key, "slipway.dev/retry", str(number))
        case ("wait", seconds):
            world.cluster.pass_time(seconds)


async def crash_after(world: Any, key: Any, writes: int) -> None:
    left = iter(range(writes))

    def crash(*_: object) -> None:
        if next(left, None) is None:
            raise CrashError

    world.cluster.before_write = crash
    try:
        await world.look(key)
    except (CrashError, Waiting):
        return
    finally:
        world.cluster.before_write = lambda *_: None


def require_live_serves(world: Any, lost: bool) -> None:
    """Once something was live, the Service selects pods that are wanted: those of a logged content."""
    entries, faults = read_log(world.entries())
    assert faults == ()
    services = world.cluster.of_kind("Service")
    if not entries or not services or lost:
        return
    logged = {e.entry.digests.short for e in entries}
    assert world.lane() in logged
    assert world.deployments()[world.lane()] >= 1


async def walk(world: Any, actions: list[tuple[Any, ...]]) -> None:
    key = world.add()
    for action in actions:
        await act(world, key, action)
        require_live_serves(world, lost=action[0] == "lose" or not world.deployments())
        if action[0] == "lose":
            await world.look(key)
    world.annotate(key, "slipway.dev/retry", "at last")
    world.cluster.pass_time(400)
    for _ in range(40):
        await world.look(key)
        world.play()
        world.cluster.pass_time(2)

    assert world.ready(key) == ("True", "Serving")
    assert world.lane() == world.status(key)["live"]["content"]
    entries, faults = read_log(world.entries())
    assert faults == ()
    assert entries[-1].entry.digests.short == world.lane()
    world.cluster.writes.clear()
    await world.look(key)
    assert world.cluster.writes == []


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_any_walk_ends_settled(world_type, actions):
    asyncio.run(walk(world_type(), actions))
