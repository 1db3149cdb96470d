"""A ModelDeployment's way on the fake cluster, from the first look to settled and back."""

from __future__ import annotations

import copy

import pytest

from slipway_operator.api import ModelDeploymentStatus
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.controllers.reconcile import WAITING_SECONDS
from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.revisions import read_log
from slipway_operator.plan.observed import Ref, ref_of

SPEC_STEPS = ("Build", "Train", "Export", "Rollout")


def making(world):
    """Jobs that were created to make something; others only ask the registry."""
    created = [ref.name for verb, ref in world.cluster.writes if verb == "create" and ref.kind == "Job"]
    return [name for name in created if "-verify-" not in name]


async def test_goes_from_commit_to_serving_step_by_step(world):
    key = world.add()
    seen = []
    for _ in range(8):
        wait = await world.look(key)
        seen.append(world.ready(key)[1])
        world.play()
        world.wait_a_moment(wait)

    assert list(dict.fromkeys(seen)) == ["Building", "Training", "Exporting", "RollingOut", "GoingLive", "Serving"]
    assert world.steps(key) == dict.fromkeys(SPEC_STEPS, "Succeeded")
    assert world.condition(key, "Available")["status"] == "True"
    assert world.status(key)["live"]["revision"] == 1
    assert world.lane() == world.status(key)["live"]["content"]


async def test_once_settled_another_look_writes_nothing(world):
    key = world.add()
    await world.settle(key)
    world.cluster.writes.clear()

    world.cluster.pass_time(3600)
    await world.look(key)

    assert world.cluster.writes == []


async def test_what_a_webhook_adds_at_each_write_asks_for_no_look_after_look(world):
    """The Deployment never is as wanted, but a write that changes nothing is no reason to look again."""
    key = world.add()
    await world.settle(key)
    (deployment,) = world.cluster.of_kind("Deployment")

    def proxy(live):
        (container,) = live["spec"]["template"]["spec"]["containers"]
        container["args"] = [*container["args"], "--added"]

    world.cluster.edit(ref_of(deployment), proxy)
    world.cluster.admit = lambda live: proxy(live) if live["kind"] == "Deployment" else None
    world.cluster.settle_deployments()
    before, _ = copy.deepcopy(world.status(key)), world.cluster.writes.clear()

    wait = await world.look(key)

    assert wait >= WAITING_SECONDS
    assert world.cluster.writes == [("apply", ref_of(deployment))]
    assert world.status(key) == before


async def test_status_is_what_the_api_describes(world):
    key = world.add()
    for _ in range(8):
        await world.look(key)
        status = world.status(key)
        assert ModelDeploymentStatus.model_validate(status).to_wire() == status
        world.play()


async def test_scaling_makes_no_job(world):
    key = world.add()
    await world.settle(key)
    jobs = len(world.jobs())
    world.edit(key, "serving.replicas", 4)

    await world.look(key)
    assert world.ready(key) == ("False", "Scaling")
    assert world.condition(key, "Available")["status"] == "True"
    await world.settle(key)

    assert (len(world.jobs()), len(world.entries())) == (jobs, 1)
    assert list(world.deployments().values()) == [4]
    assert world.status(key)["replicas"] == 4


async def test_without_pods_nothing_is_waited_for(world):
    """Whether the Deployment controller has looked at a Deployment of no pods says nothing about predictions."""
    key = world.add()
    world.edit(key, "serving.replicas", 0)
    await world.settle(key)
    (deployment,) = world.cluster.of_kind("Deployment")
    deployment["status"] = {}

    await world.look(key)

    assert world.ready(key) == ("True", "Serving")


async def test_pods_that_are_to_go_are_waited_for(world):
    key = world.add()
    await world.settle(key)
    world.edit(key, "serving.replicas", 0)

    await world.look(key)
    assert world.ready(key) == ("False", "Scaling")
    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")


async def test_a_new_commit_switches_lanes_and_keeps_a_standby(world):
    key = world.add()
    await world.settle(key)
    first = world.lane()
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2.0.0")

    for _ in range(4):
        await world.look(key)
        assert world.lane() == first
        assert world.condition(key, "Available")["status"] == "True"
        world.play()
    await world.settle(key)

    second = world.lane()
    assert second != first
    assert world.deployments() == {first: 2, second: 2}
    world.cluster.pass_time(601)
    await world.settle(key)
    assert world.deployments() == {first: 1, second: 2}
    assert [e["data"]["number"] for e in world.entries()] == [1, 2]
    entries, faults = read_log(world.entries())
    assert faults == ()
    assert entries[1].entry.previous == entries[0].digest


async def test_a_third_content_leaves_the_first_no_pods(world):
    key = world.add()
    await world.settle(key)
    first = world.lane()
    for ref, commit in (("v2", "beef" * 10), ("v3", "cafe" * 10)):
        world.commit = commit
        world.edit(key, "source.git.ref", ref)
        await world.settle(key)

    assert first not in world.deployments()
    assert len(world.deployments()) == 2


async def test_a_spec_that_goes_back_uses_what_was_made_before(world):
    key = world.add()
    await world.settle(key)
    first = world.lane()
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2.0.0")
    await world.settle(key)
    jobs = len(making(world))
    world.edit(key, "source.git.ref", "v1.0.0")
    await world.settle(key)

    assert world.lane() == first
    assert len(making(world)) == jobs
    assert [e["data"]["content"] for e in world.entries()][2] == world.entries()[0]["data"]["content"]


@pytest.mark.parametrize("delivery", ["ImageVolume", "InitContainer"])
async def test_an_upgrade_of_the_platform_moves_no_model(world, delivery):
    world.settings = world.settings.model_copy(update={"model_delivery": delivery})
    key = world.add()
    await world.settle(key)
    world.cluster.writes.clear()
    images = world.settings.images.model_copy(
        update={"runtime": "reg.test/runtime@sha256:" + "0" * 64, "builder": "reg.test/b@sha256:" + "2" * 64}
    )
    interpreters = tuple(
        i.model_copy(update={"base": "reg.test/other@sha256:" + "1" * 64}) for i in world.settings.interpreters
    )
    registry = world.settings.registry.model_copy(update={"prefix": "elsewhere.test/models"})
    world.settings = world.settings.model_copy(
        update={"images": images, "interpreters": interpreters, "registry": registry}
    )

    await world.look(key)

    assert world.cluster.writes == []


async def test_losing_status_loses_nothing(world):
    key = world.add()
    await world.settle(key)
    before = copy.deepcopy(world.status(key))
    world.cluster.edit(world.ref(key), lambda live: live.pop("status"))
    world.cluster.writes.clear()

    await world.settle(key)

    after = world.status(key)
    assert [w[0] for w in world.cluster.writes] == ["status"]
    for status in (before, after):
        for condition in status["conditions"]:
            condition.pop("lastTransitionTime")
    assert after == before


async def test_finished_jobs_that_vanish_are_not_missed(world):
    key = world.add()
    await world.settle(key)
    for job in world.jobs():
        world.cluster.remove(Ref("batch/v1", "Job", key.namespace, job["metadata"]["name"]))

    await world.settle(key)

    assert world.jobs() == []
    assert world.ready(key) == ("True", "Serving")


async def test_a_job_that_vanishes_on_its_way_is_made_again(world):
    key = world.add()
    await world.look(key)
    (job,) = world.jobs("build")
    world.cluster.remove(Ref("batch/v1", "Job", key.namespace, job["metadata"]["name"]))

    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap"])
async def test_what_is_deleted_by_hand_comes_back(world, kind):
    key = world.add()
    await world.settle(key)
    before = [m["metadata"]["name"] for m in world.cluster.of_kind(kind)]
    for name in before:
        ref = next(r for r in world.cluster.objects if r.kind == kind and r.name == name)
        world.cluster.remove(ref)

    await world.settle(key)

    assert [m["metadata"]["name"] for m in world.cluster.of_kind(kind)] == before
    assert len(world.entries()) == 1


async def test_drift_is_corrected(world):
    key = world.add()
    await world.settle(key)
    ref = next(r for r in world.cluster.objects if r.kind == "Service")
    world.cluster.edit(ref, lambda live: live["spec"]["selector"].update({"slipway.dev/lane": "elsewhere"}))

    await world.settle(key)

    assert world.lane() == world.status(key)["live"]["content"]


async def test_a_crash_at_any_write_ends_in_the_same_place(world):
    """The operator killed before each of its writes, once; then it goes on."""
    key = world.add()
    crashed: set[tuple[str, str]] = set()

    class CrashError(BaseException):
        pass

    def crash(verb, ref):
        what = (verb, ref.kind)
        if what not in crashed:
            crashed.add(what)
            raise CrashError

    world.cluster.before_write = crash
    for _ in range(60):
        try:
            wait = await world.look(key)
        except CrashError:
            continue
        world.play()
        world.wait_a_moment(wait)

    assert len(crashed) > 6
    assert world.ready(key) == ("True", "Serving")
    assert [e["data"]["number"] for e in world.entries()] == [1]
    assert world.lane() == world.status(key)["live"]["content"]
    assert len(world.jobs()) == 3


async def test_two_of_one_name_in_two_namespaces_do_not_meet(world):
    one, other = world.add(namespace="airline"), world.add(namespace="harbour")
    await world.settle(one, other)

    assert world.ready(one) == world.ready(other) == ("True", "Serving")
    names = {(j["metadata"]["namespace"], j["metadata"]["name"]) for j in world.jobs()}
    assert len(names) == 6
    assert not {n for s, n in names if s == "airline"} & {n for s, n in names if s == "harbour"}


async def test_the_second_writer_of_an_entry_looks_again(world):
    """Somebody else wrote entry 1 between the look and the write: the log decides, and nothing is overwritten."""
    key = world.add()
    original = world.cluster.create

    async def create(manifest):
        if manifest["kind"] == "ControllerRevision" and not world.entries():
            world.cluster.add({**copy.deepcopy(manifest), "data": {**manifest["data"], "why": "somebody was faster"}})
        return await original(manifest)

    world.cluster.create = create
    await world.settle(key)

    assert [e["data"]["why"] for e in world.entries()] == ["somebody was faster"]
    assert world.ready(key) == ("True", "Serving")


async def test_a_conflict_is_looked_at_again(world):
    key = world.add()
    failures = iter([True])

    def conflict(verb, _ref):
        if verb == "status" and next(failures, False):
            raise ConflictError

    world.cluster.before_write = conflict
    await world.look(key)

    assert world.ready(key) == ("False", "Building")


async def test_a_refused_write_is_told_and_live_goes_on(world):
    key = world.add()
    await world.settle(key)
    world.edit(key, "source.git.ref", "v2")

    def refuse(_verb, ref):
        if ref.kind == "Job":
            raise Waiting("QuotaExceeded", "exceeded quota: jobs", retry_after=30)

    world.cluster.before_write = refuse
    with pytest.raises(Waiting):
        await world.look(key)

    assert world.ready(key) == ("False", "QuotaExceeded")
    assert world.condition(key, "Available")["status"] == "True"
    world.cluster.before_write = lambda _verb, _ref: None
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")


async def test_a_service_of_somebody_else_is_not_taken(world):
    key = world.add()
    world.cluster.add(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": key.name, "namespace": key.namespace}, "spec": {}}
    )
    for _ in range(8):
        await world.look(key)
        world.play()

    assert world.ready(key) == ("False", "NameTaken")
    assert world.condition(key, "Stalled")["status"] == "True"


async def test_a_resource_that_is_gone_needs_no_more_looks(world):
    key = world.add()
    await world.settle(key)
    world.cluster.remove(world.ref(key))

    assert await world.look(key) is None
    assert world.cluster.objects == {}


async def test_an_autoscaled_deployment_is_never_reset(world):
    key = world.add()
    world.edit(key, "serving", {"autoscaling": {"minReplicas": 2, "maxReplicas": 8}})
    await world.settle(key)
    assert list(world.deployments().values()) == [2]
    ref = next(r for r in world.cluster.objects if r.kind == "Deployment")
    world.cluster.edit(ref, lambda live: live["spec"].update(replicas=5))
    world.cluster.settle_deployments()
    writes = len(world.cluster.writes)

    await world.look(key)

    assert list(world.deployments().values()) == [5]
    assert [w[0] for w in world.cluster.writes[writes:]] == ["status"]
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2")
    await world.settle(key)
    assert set(world.deployments().values()) == {5}, "a new content starts with as many pods as the live one has"
    (scaler,) = world.cluster.of_kind("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"].endswith(world.lane())


async def test_replicas_instead_of_autoscaling_removes_the_autoscaler(world):
    key = world.add()
    world.edit(key, "serving", {"autoscaling": {"minReplicas": 2, "maxReplicas": 8}})
    await world.settle(key)
    world.edit(key, "serving", {"replicas": 1})
    await world.settle(key)

    assert world.cluster.of_kind("HorizontalPodAutoscaler") == []
    assert list(world.deployments().values()) == [1]


async def test_zero_replicas_is_taken_at_its_word(world):
    key = world.add()
    await world.settle(key)
    world.edit(key, "serving.replicas", 0)
    await world.settle(key)

    assert list(world.deployments().values()) == [0]
    assert world.condition(key, "Available")["reason"] == "ScaledToZero"
    assert world.ready(key)[0] == "True"


async def test_old_entries_go_but_never_the_live_or_the_standby(world):
    key = world.add()
    world.edit(key, "revisionHistoryLimit", 2)
    await world.settle(key)
    for number in range(2, 7):
        world.commit = f"{number}" * 40
        world.edit(key, "source.git.ref", f"v{number}")
        await world.settle(key)

    assert [e["data"]["number"] for e in world.entries()] == [4, 5, 6]
    assert read_log(world.entries())[1] == ()


async def test_events_tell_transitions_once(world):
    key = world.add()
    await world.settle(key)
    await world.look(key)

    assert [e.reason for e in world.cluster.emitted] == [
        "BuildSucceeded",
        "TrainSucceeded",
        "ExportSucceeded",
        "WentLive",
    ]
