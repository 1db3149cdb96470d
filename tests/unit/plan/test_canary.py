"""A canary by pods, pause, promotion and abort, and limits that act by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from slipway_operator.domain.requests import Verified
from slipway_operator.plan.native import NAME as WORKER
from slipway_operator.plan.observed import Manifest, Sample
from slipway_operator.plan.watch import figures_of

CANARY = {"canary": {"pods": 1, "for": "10m"}, "rollBackOn": {"errorRate": 0.01, "minimumRequests": 100}}


@pytest.fixture
async def canary(world):
    """One content live with three pods, a second one as a canary that answers."""
    key = world.add()
    world.edit(key, "serving.replicas", 3)
    world.edit(key, "rollout", CANARY)
    await world.settle(key)
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2")
    await world.settle(key)
    return key


def pods(world, *, deployment, samples: Sample | None = None, restarts: int = 0, **status: Any) -> None:
    """Give a Deployment a pod with an address, and figures to it."""
    template = deployment["spec"]["template"]
    name = f"{deployment['metadata']['name']}-pod"
    world.cluster.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "airline", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.7",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "runtime", "restartCount": restarts, "started": True, "ready": True}],
                **status,
            },
        }
    )
    if samples is not None:
        world.samples[name] = samples


async def test_a_canary_answers_its_share_for_its_time(world, canary):
    key, live = canary, world.lane()
    found = world.canary()
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["replicas"] == 1
    assert labels["slipway.dev/lane"] == live, "the Service's own selector sends it a share"
    assert "slipway.dev/content" not in labels, "the live Deployment and its autoscaler must not count it"
    assert world.ready(key) == ("False", "Canary")
    assert world.condition(key, "Reconciling")["status"] == "True"
    row = world.status(key)["rollout"]
    assert (row["state"], row["pods"], row["of"]) == ("Canary", 1, 4)
    assert world.deployments() == {live: 3}

    world.cluster.pass_time(595)
    await world.settle(key)
    assert world.lane() == live
    world.cluster.pass_time(6)
    await world.look(key)
    assert (world.lane(), world.canary() is not None) == (live, True), "it answers until all pods of the new one do"
    await world.settle(key)

    assert world.lane() == row["content"]
    assert world.canary() is None
    assert world.ready(key) == ("True", "Serving")


async def test_promote_now(world, canary):
    world.annotate(canary, "slipway.dev/promote", "now@p-1 looks good")
    await world.settle(canary)
    entry = world.entries()[-1]["data"]
    assert (entry["cause"], entry["requestId"]) == ("SpecChange", "p-1")
    assert "looks good" in entry["why"]
    assert world.canary() is None


async def test_promote_names_what_it_means(world, canary):
    world.annotate(canary, "slipway.dev/promote", "0123456789@p-1")
    await world.settle(canary)
    assert world.request(canary, "Promote")[0] == "Refused"
    assert world.canary() is not None


async def test_what_is_remembered_refuses_no_request(world, canary, monkeypatch):
    """It may be from before the canary: by that there is nothing to promote."""
    key, now = canary, world.cluster
    with monkeypatch.context() as old:
        old.setattr(now, "list_owned", _without(now.list_owned, canary_of=world.status(key)["rollout"]["content"]))
        old.setattr(now, "is_certain", lambda _key: False)
        old.setattr(now, "before_write", _refuse)
        world.annotate(key, "slipway.dev/promote", "now@p-1")
        await world.look(key)
    assert "requests" not in world.status(key)

    await world.settle(key)

    assert world.request(key, "Promote")[0] == "Done"
    assert world.entries()[-1]["data"]["requestId"] == "p-1"


async def test_what_is_new_refuses_a_request_at_once(world, canary):
    world.annotate(canary, "slipway.dev/resume", "now@s-1")
    await world.look(canary)
    assert world.request(canary, "Resume") == ("Refused", "nothing is held")


def _without(list_owned, *, canary_of):
    """Lists without the Jobs of what is on its way."""

    async def listed(namespace, owner, *, anew=False):
        found = await list_owned(namespace, owner, anew=anew)
        exports = [o for o in found if o["metadata"]["labels"].get("slipway.dev/step") == "export"]
        newest = max(exports, key=lambda o: int(o["metadata"]["resourceVersion"]))
        gone = {newest["metadata"]["name"], newest["metadata"]["name"].removesuffix("-pod")}
        return [
            o
            for o in found
            if o["metadata"]["name"] not in gone and o["metadata"]["labels"].get("slipway.dev/canary") != canary_of
        ]

    return listed


def _refuse(verb, ref):
    raise AssertionError(f"{verb} {ref}")


async def test_abort_gives_the_new_content_up_and_holds_it(world, canary):
    live, content = world.lane(), world.status(canary)["rollout"]["content"]
    world.annotate(canary, "slipway.dev/abort", "now@a-1 wrong units")
    await world.settle(canary)

    assert (world.lane(), world.canary()) == (live, None)
    assert world.ready(canary) == ("False", "Aborted")
    assert world.status(canary)["summary"].startswith(f"ABORTED {content}")
    entry = world.entries()[-1]["data"]
    assert (entry["cause"], entry["why"], entry["number"]) == ("Abort", "wrong units", 2)
    for _ in range(3):
        world.cluster.pass_time(700)
        await world.settle(canary)
        assert world.lane() == live
    jobs = len(world.jobs())
    world.annotate(canary, "slipway.dev/resume", "now@a-2")
    await world.settle(canary)
    assert world.ready(canary) == ("False", "Canary"), "its canary begins anew"
    assert len(world.jobs()) == jobs


@pytest.mark.parametrize("how", ["annotation", "spec"])
async def test_pause_and_go_on(world, canary, how):
    live = world.lane()

    def pause(on: bool) -> None:
        if how == "spec":
            world.edit(canary, "rollout.paused", on)
        else:
            world.annotate(canary, "slipway.dev/paused", "true" if on else None)

    pause(True)
    world.cluster.pass_time(3600)
    await world.settle(canary)
    assert (world.lane(), world.canary() is not None) == (live, True)
    assert world.ready(canary) == ("False", "Paused")
    assert world.condition(canary, "Stalled")["status"] == "False"
    assert world.status(canary)["rollout"]["state"] == "Paused"
    pause(False)
    await world.settle(canary)
    assert world.lane() != live


async def test_a_limit_ends_the_canary_with_the_figures(world, canary):
    live = world.lane()
    pods(world, deployment=world.canary(), samples=Sample(requests=99, errors=50))
    await world.settle(canary)
    assert world.ready(canary) == ("False", "Canary"), "too few requests to judge by"
    assert world.status(canary)["rollout"]["requests"] == 99
    world.samples = {name: Sample(requests=200, errors=3) for name in world.samples}
    await world.settle(canary)

    assert (world.lane(), world.canary()) == (live, None)
    entry = world.entries()[-1]["data"]
    assert (entry["cause"], entry["who"], entry["whoBy"]) == ("Abort", "slipway", "Operator")
    assert "errorRate: 1.50%, limit 1.00% (200 requests" in entry["why"]
    assert world.ready(canary) == ("False", "Aborted")


async def test_restarts_end_a_canary(world, canary):
    world.edit(canary, "rollout.rollBackOn", {"failedProbes": 3})
    pods(world, deployment=world.canary(), samples=None, restarts=3)
    await world.settle(canary)
    assert "failedProbes: 3" in world.entries()[-1]["data"]["why"]


def runtime(*, started_at: str, restarts: int = 0, **more: Any) -> Manifest:
    """A container as the kubelet tells of it once its startup probe has passed."""
    running = {"state": {"running": {"startedAt": started_at}}, "started": True}
    return {"name": "runtime", "restartCount": restarts, "ready": False, **running, **more}


def not_ready(since: str) -> list[Manifest]:
    """The kubelet writes it before the first container runs; its time moves only when the status turns."""
    return [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": since}]


@pytest.mark.parametrize(
    ("turned", "started", "restarts", "failed"),
    [
        pytest.param("12:00:00", "12:00:04", 0, 0, id="first-readiness-probe-not-yet-passed"),
        pytest.param("12:00:04", "12:00:04", 0, 0, id="in-the-same-second"),
        pytest.param("12:03:00", "12:00:04", 0, 1, id="it-has-answered-and-does-not"),
        pytest.param("12:03:00", "12:03:01", 1, 1, id="restarted-and-starting"),
        pytest.param("12:05:00", "12:03:01", 1, 2, id="restarted-answered-and-does-not"),
    ],
)
async def test_only_what_has_answered_can_be_lost(world, canary, turned, started, restarts, failed):
    day = "2026-11-23T"
    world.edit(canary, "rollout.rollBackOn", {"failedProbes": 1})
    pods(
        world,
        deployment=world.canary(),
        conditions=not_ready(f"{day}{turned}Z"),
        containerStatuses=[runtime(started_at=f"{day}{started}Z", restarts=restarts)],
    )
    lane = world.status(canary)["rollout"]["content"]

    seen = await world.observe(canary)
    assert figures_of(seen, label="slipway.dev/canary", value=lane).failed_probes == failed
    await world.settle(canary)
    assert (world.canary() is None) == (failed > 0)


async def test_a_worker_that_runs_says_nothing_of_the_runtime(world, canary):
    """It is started before the runtime, whose startup probe has not passed yet."""
    worker = runtime(started_at="2026-11-23T12:00:00Z", name=WORKER)
    first = runtime(started_at="2026-11-23T12:00:09Z", started=False)
    pods(
        world,
        deployment=world.canary(),
        conditions=not_ready("2026-11-23T12:00:01Z"),
        initContainerStatuses=[worker],
        containerStatuses=[first],
    )
    lane = world.status(canary)["rollout"]["content"]

    assert figures_of(await world.observe(canary), label="slipway.dev/canary", value=lane).failed_probes == 0


@pytest.fixture
async def watched(world):
    """Two contents, the second live and watched."""
    key = world.add()
    world.edit(key, "rollout", {"rollBackOn": {"p99LatencyMillis": 100, "minimumRequests": 10, "watchFor": "5m"}})
    await world.settle(key)
    first = world.lane()
    second = await world.deploy(key, "v2", "beef")
    (live,) = [
        d for d in world.cluster.of_kind("Deployment") if d["metadata"]["labels"]["slipway.dev/content"] == second
    ]
    slow = ((0.05, 50), (0.1, 90), (0.5, 100), (float("inf"), 100))
    pods(world, deployment=live, samples=Sample(requests=100, errors=0, buckets=slow))
    return key, first, second


async def test_what_went_live_and_is_too_slow_goes_back_by_itself_once(world, watched):
    key, first, second = watched
    await world.settle(key)

    assert world.lane() == first
    entry = world.entries()[-1]["data"]
    assert (entry["cause"], entry["who"], entry["undoes"]) == ("Rollback", "slipway", 2)
    assert "p99LatencyMillis: 460.0, limit 100" in entry["why"]
    assert world.ready(key) == ("False", "RolledBack")
    assert second not in world.deployments()
    world.samples = {n: Sample(requests=1000, errors=1000) for n in world.samples}
    await world.settle(key)
    assert len(world.entries()) == 3, "never from a rollback"


@pytest.mark.parametrize(
    ("limit", "samples", "restarts", "words"),
    [
        pytest.param(
            {"errorRate": 0.01}, Sample(requests=100, errors=5), 0, "errorRate: 5.00%, limit 1.00%", id="errors"
        ),
        pytest.param(
            {"refusalRate": 0.5},
            Sample(requests=100, errors=0, refused=51),
            0,
            "refusalRate: 51.00%, limit 50.00% (100 requests, error rate 0.00%, refusal rate 51.00%)",
            id="refusals",
        ),
        pytest.param({"failedProbes": 3}, None, 3, "failedProbes: 3 of at most 2", id="probes"),
    ],
)
async def test_each_limit_takes_back_what_went_live(world, limit, samples, restarts, words):
    key = world.add()
    world.edit(key, "rollout", {"rollBackOn": {**limit, "minimumRequests": 10, "watchFor": "5m"}})
    await world.settle(key)
    first = world.lane()
    second = await world.deploy(key, "v2", "beef")
    live = next(d for d in world.cluster.of_kind("Deployment") if d["metadata"]["name"].endswith(second))
    pods(world, deployment=live, samples=samples, restarts=restarts)
    await world.settle(key)

    entry = world.entries()[-1]["data"]
    assert (entry["cause"], entry["who"], entry["whoBy"], entry["undoes"]) == ("Rollback", "slipway", "Operator", 2)
    assert words in entry["why"]
    assert (world.lane(), world.ready(key)) == (first, ("False", "RolledBack"))
    assert second not in world.deployments()


async def test_a_limit_takes_nothing_back_to_what_is_gone(world, watched):
    """It would end what answers, slowly, for pods that no node could start anew."""
    key, first, second = watched
    figures, world.samples = world.samples, {}
    await world.settle(key)
    world.cluster.pass_time(30)
    for ref in [r for r in world.cluster.objects if "-verify-" in r.name]:
        world.cluster.objects.pop(ref)
    await world.look(key)
    (asking,) = world.unfinished()
    missing = Verified(asked=7, missing=("model image sha256:0123456789ab",), schema_fits=None)
    world.cluster.finish_job(asking, missing)
    world.samples = figures
    await world.settle(key)

    assert (world.lane(), len(world.entries()), first in world.deployments()) == (second, 2, True)
    assert world.ready(key) == ("False", "CannotRollBack")
    words = world.condition(key, "Stalled")["message"]
    assert "p99LatencyMillis: 460.0, limit 100" in words
    assert "revision 1 cannot take over: not in the registry: model image sha256:0123456789ab" in words
    assert [e.type for e in world.cluster.emitted if e.reason == "CannotRollBack"] == ["Warning"]
    assert world.condition(key, "Available")["status"] == "True"

    world.cluster.pass_time(300)
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving"), "it is watched no more"


async def test_it_is_watched_for_its_time_only(world):
    key = world.add()
    world.edit(key, "rollout", {"rollBackOn": {"errorRate": 0.5, "minimumRequests": 1, "watchFor": "5m"}})
    await world.settle(key)
    second = await world.deploy(key, "v2", "beef")
    world.cluster.pass_time(301)
    live = next(d for d in world.cluster.of_kind("Deployment") if d["metadata"]["name"].endswith(second))
    pods(world, deployment=live, samples=Sample(requests=10, errors=10))
    await world.settle(key)
    assert (world.lane(), len(world.entries())) == (second, 2)
