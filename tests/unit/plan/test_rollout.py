"""What keeps a new content from going live, and what a content is."""

from __future__ import annotations

import copy
import json

import pytest

from slipway_operator.plan.observed import Manifest

RETRYING = json.dumps({"ok": False, "reason": "RegistryUnavailable", "message": "the registry is down", "retry": True})
BAD_IMAGE = json.dumps({"ok": False, "reason": "ModelImageInvalid", "message": "signature.json is missing"})


@pytest.fixture
async def rolling(world):
    """A second content whose pods are on their way, beside one that is live."""
    key = world.add()
    await world.settle(key)
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2")
    for _ in range(4):
        await world.look(key)
        for job in world.unfinished():
            world.cluster.finish_job(job, world.answer(job))
    return key


def new_deployment(world):
    (found,) = [
        d for d in world.cluster.of_kind("Deployment") if d["metadata"]["labels"]["slipway.dev/content"] != world.lane()
    ]
    return found


def add_pod(world, **state: object) -> None:
    template = new_deployment(world)["spec"]["template"]
    world.cluster.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "new-pod", "namespace": "airline", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {"phase": "Running", "containerStatuses": [{"name": "runtime", "image": "r", **state}]},
        }
    )


def ended(**fields: object) -> Manifest:
    return {"terminated": {"exitCode": 1, **fields}}


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ({"lastState": ended(message="boot\nthe model's digest is not sha256:x")}, "RuntimeFailed", "digest is not"),
        ({"lastState": ended(reason="OOMKilled", exitCode=137)}, "ServingOutOfMemory", "spec.serving.resources"),
        ({"lastState": ended(message=BAD_IMAGE)}, "ModelImageInvalid", "signature.json"),
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}, "ImageCannotBePulled", "no"),
    ],
)
async def test_pods_that_do_not_come_up_leave_the_live_content_serving(world, rolling, state, reason, words):
    lane = world.lane()
    add_pod(world, restartCount=1, **state)
    await world.look(rolling)

    assert world.ready(rolling) == ("False", reason)
    assert words in world.condition(rolling, "Ready")["message"]
    assert world.condition(rolling, "Stalled")["status"] == "False", "it may still come up"
    assert world.steps(rolling)["Rollout"] == "Waiting"
    assert (world.condition(rolling, "Available")["status"], world.lane()) == ("True", lane)
    assert len(world.entries()) == 1


async def test_pods_that_crash_again_and_again_stall(world, rolling):
    add_pod(world, restartCount=3, lastState=ended(message="no"))
    await world.look(rolling)

    assert world.condition(rolling, "Stalled")["status"] == "True"
    assert world.steps(rolling)["Rollout"] == "Failed"


async def test_a_registry_that_is_down_is_waited_for_however_often_a_pod_ends(world, rolling):
    add_pod(world, restartCount=9, lastState=ended(message=RETRYING))
    await world.look(rolling)

    assert world.ready(rolling) == ("False", "RegistryUnavailable")
    assert world.condition(rolling, "Stalled")["status"] == "False"


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"type": "ReplicaFailure", "reason": "FailedCreate", "message": "exceeded quota: q"}, "QuotaExceeded"),
        ({"type": "ReplicaFailure", "reason": "FailedCreate", "message": "violates PodSecurity"}, "PodRefused"),
        ({"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "m"}, "RolloutTimedOut"),
    ],
)
async def test_what_the_deployment_says(world, rolling, condition, reason):
    new_deployment(world)["status"] = {
        "conditions": [{"status": "True", "lastTransitionTime": "2026-11-23T12:00:00Z", **condition}]
    }
    await world.look(rolling)

    assert world.ready(rolling) == ("False", reason)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"observedGeneration": 0}, id="an-old-status"),
        pytest.param({"availableReplicas": 1}, id="one-pod-short"),
        pytest.param({"updatedReplicas": 1}, id="an-old-pod"),
        pytest.param({"replicas": 3}, id="a-pod-too-many"),
    ],
)
async def test_nothing_goes_live_before_all_pods_answer(world, rolling, status):
    whole = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    new_deployment(world)["status"] = {**whole, **status}
    await world.look(rolling)
    assert len(world.entries()) == 1

    new_deployment(world)["status"] = whole
    await world.look(rolling)
    assert len(world.entries()) == 2


async def test_another_name_of_the_same_commit_is_logged_and_moves_nothing(world):
    key = world.add()
    await world.settle(key)
    before = (world.lane(), world.deployments())
    world.edit(key, "source.git.ref", "release")
    await world.settle(key)

    assert (world.lane(), world.deployments()) == before
    one, two = (e["data"] for e in world.entries())
    assert one["content"] == two["content"]
    assert (one["spec"]["source"]["git"]["ref"], two["spec"]["source"]["git"]["ref"]) == ("v1.0.0", "release")
    assert {j["metadata"]["labels"]["slipway.dev/step"] for j in world.unfinished()} == set()
    assert len(world.jobs("train")) == 1, "the same image needs no other training"
    assert world.status(key)["live"]["since"] == one["at"]


async def test_a_candidate_that_nobody_wants_any_more_goes(world, rolling):
    name = new_deployment(world)["metadata"]["name"]
    world.edit(rolling, "source.git.ref", "v1.0.0")
    await world.settle(rolling)

    assert name not in [d["metadata"]["name"] for d in world.cluster.of_kind("Deployment")]
    assert len(world.entries()) == 1
    assert world.ready(rolling) == ("True", "Serving")


async def test_the_same_observation_gives_the_same_plan(world, rolling):
    seen = await world.observe(rolling)
    before = copy.deepcopy(seen)
    plan, again = await world.plan(rolling), await world.plan(rolling)

    assert plan == again
    assert seen == before, "a planner changes nothing that it was given"


async def test_ready_waits_until_every_node_routes_to_a_new_service(world):
    key = world.add()
    while not world.cluster.of_kind("Service"):
        await world.look(key)
        world.play()
    world.cluster.pass_time(0.5)
    wait = await world.look(key)

    assert world.ready(key) == ("False", "GoingLive")
    assert wait == 1.5
    world.cluster.pass_time(wait)
    await world.look(key)
    assert world.ready(key) == ("True", "Serving")

    await world.deploy(key, "v2", "beef")
    assert world.ready(key) == ("True", "Serving"), "the Service of a later content is known already"


async def test_no_pod_needs_no_route(world):
    key = world.add()
    world.edit(key, "serving.replicas", 0)
    for _ in range(12):
        await world.look(key)
        world.play()

    assert world.ready(key) == ("True", "Serving")
