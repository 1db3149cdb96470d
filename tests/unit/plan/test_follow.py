"""A source that is followed, and one that is pinned."""

from __future__ import annotations

import json

import pytest

FAILED = json.dumps({"ok": False, "reason": "RepositoryNotFound", "message": "no such repository"})


def request_of(job):
    containers = [
        *job["spec"]["template"]["spec"].get("initContainers", ()),
        *job["spec"]["template"]["spec"]["containers"],
    ]
    return json.loads(next(e["value"] for e in containers[0]["env"] if e["name"] == "SLIPWAY_REQUEST"))


@pytest.fixture
def key(world):
    key = world.add()
    world.edit(key, "source.git", {"url": "https://git.test/x.git", "ref": "main", "follow": {"interval": "5m"}})
    return key


async def test_a_followed_ref_is_resolved_before_it_is_built(world, key):
    await world.look(key)

    assert [j["metadata"]["labels"]["slipway.dev/step"] for j in world.jobs()] == ["resolve"]
    assert world.ready(key) == ("False", "Resolving")
    await world.settle(key)
    assert request_of(world.jobs("build")[0])["source"]["commit"] == world.commit
    assert world.status(key)["source"]["commit"] == world.commit


async def test_looks_again_after_the_interval_and_writes_only_that(world, key):
    await world.settle(key)
    wait = await world.look(key)
    assert 290 < wait <= 300
    world.cluster.pass_time(301)
    world.cluster.writes.clear()
    await world.settle(key)

    kinds = {(verb, ref.kind) for verb, ref in world.cluster.writes}
    assert kinds == {("create", "Job"), ("delete", "Job")}
    assert len(world.jobs("resolve")) == 1
    assert world.ready(key) == ("True", "Serving")


async def test_a_new_commit_is_built_and_goes_live(world, key):
    await world.settle(key)
    first = world.lane()
    world.commit = "beef" * 10
    world.cluster.pass_time(301)
    await world.settle(key)

    assert world.lane() != first
    assert "main moved to beef" in world.entries()[1]["data"]["why"]
    assert world.entries()[1]["data"]["who"] == "slipway"


async def test_a_look_that_fails_for_good_stalls_and_keeps_looking(world, key):
    await world.settle(key)
    world.cluster.pass_time(301)
    await world.look(key)
    (job,) = world.unfinished()
    world.cluster.fail_job(job, "push", message=FAILED)
    await world.look(key)

    assert world.ready(key) == ("False", "RepositoryNotFound")
    assert world.condition(key, "Available")["status"] == "True"
    world.cluster.pass_time(301)
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")


async def test_a_look_that_fails_in_passing_leaves_ready_alone(world, key):
    await world.settle(key)
    world.cluster.pass_time(301)
    await world.look(key)
    (job,) = world.unfinished()
    world.cluster.fail_job(
        job, "push", message=json.dumps({"ok": False, "reason": "HostUnreachable", "message": "m", "retry": True})
    )
    wait = await world.look(key)

    assert world.ready(key) == ("True", "Serving")
    assert 0 < wait <= 60


async def test_a_look_whose_pod_a_node_rejects_is_not_made_again_at_once(world, key):
    """Such a pod has a phase and a reason, and no container that ended at any time."""
    made = set()
    for _ in range(90):
        await world.look(key)
        for job in world.unfinished():
            made.add(job["metadata"]["name"])
            pod = world.cluster.run_pod(job)
            pod["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: not enough cpu"}
        world.cluster.pass_time(2)

    assert len(made) == 3, "in three minutes"
    assert world.ready(key) == ("False", "PodLost")


async def test_without_follow_the_commit_stays_also_for_another_interpreter(world):
    """The ref moves and the environment changes: the commit that was found for this source counts."""
    key = world.add()
    await world.settle(key)
    first = world.commit
    world.commit = "beef" * 10
    world.edit(key, "environment", {"lockFile": "pylock.toml"})
    await world.look(key)

    (job,) = world.unfinished()
    assert request_of(job)["source"]["commit"] == first


async def test_without_follow_the_commit_outlives_jobs_and_status(world):
    key = world.add()
    await world.settle(key)
    first = world.commit
    for job in world.jobs():
        world.cluster.remove(next(r for r in world.cluster.objects if r.name == job["metadata"]["name"]))
    world.cluster.edit(world.ref(key), lambda live: live.pop("status"))
    world.commit = "beef" * 10
    world.edit(key, "environment", {"lockFile": "pylock.toml"})
    await world.look(key)

    assert request_of(world.jobs("build")[0])["source"]["commit"] == first


async def test_following_what_is_live_already_makes_only_looks(world):
    key = world.add()
    await world.settle(key)
    world.edit(key, "source.git.follow", {"interval": "1m"})
    world.cluster.writes.clear()
    await world.settle(key)

    assert {r.name.split("-")[2] for verb, r in world.cluster.writes if verb == "create"} == {"resolve"}
    assert len(world.entries()) == 1


async def test_the_look_is_a_step_of_its_own_where_the_source_is_followed(world, key):
    """Running at first, a success that time alone does not change, and what is wrong while Ready stays as it was."""
    await world.look(key)
    assert world.steps(key)["Resolve"] == "Running"
    await world.settle(key)
    known = world.status(key)["steps"][0]
    assert (known["name"], known["state"], known["message"]) == ("Resolve", "Succeeded", "asks again every 5m")

    world.cluster.pass_time(301)
    await world.settle(key)
    assert world.status(key)["steps"][0] == known

    world.cluster.pass_time(301)
    await world.look(key)
    (job,) = world.unfinished()
    passing = json.dumps({"ok": False, "reason": "SourceUnavailable", "message": "no answer", "retry": True})
    world.cluster.fail_job(job, "push", message=passing)
    await world.look(key)
    failing = world.status(key)["steps"][0]
    assert (failing["state"], failing["message"], failing["job"]) == ("Waiting", "no answer", job["metadata"]["name"])
    assert world.ready(key) == ("True", "Serving")


async def test_a_pinned_source_shows_no_such_step(world):
    key = world.add()
    await world.settle(key)

    assert "Resolve" not in world.steps(key)
