"""Whether a rollback would work: when the registry is asked, and what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slipway_operator.domain.requests import Verified, VerifyRequest
from slipway_operator.domain.revisions import read_log
from slipway_operator.plan.observed import Manifest
from slipway_operator.plan.proof import Proof, State, prove, unneeded

HOURS = 3600
GOOD = Verified(asked=7, schema_fits=True)
GONE = Verified(asked=7, missing=("model image sha256:0123456789ab",), schema_fits=None)
OTHER = Verified(asked=7, schema_fits=False, schema_difference='callers send "x", which the target does not take')
UNREAD = Verified(asked=7, schema_difference="the schema is not compared: the live one is gone")


def failed(*, retry: bool, reason: str = "RegistryUnavailable") -> str:
    return json.dumps({"ok": False, "reason": reason, "message": "no answer", "retry": retry})


class Proving:
    """A deployment with a live content and one before it, and somebody who proves the latter."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.key = world.add()

    async def settle(self) -> None:
        """Settle, and forget what the operator itself asked the registry: here it is asked by hand."""
        await self.world.settle(self.key)
        for ref in [r for r in self.world.cluster.objects if "-verify-" in r.name]:
            self.world.cluster.objects.pop(ref, None)

    async def start(self) -> None:
        await self.settle()
        await self.go_live("beef" * 10)

    async def go_live(self, commit: str) -> None:
        self.world.commit = commit
        self.world.edit(self.key, "source.git.ref", commit[:7])
        await self.settle()

    async def look(self, *, target: int = 1, live: int = 2, keep: bool = True) -> Proof:
        """Prove and do what the proof says."""
        seen = await self.world.observe(self.key)
        entries = {e.number: e for e in read_log(seen.entries)[0]}
        proof = prove(seen, entries[target], entries[live])
        if proof.create is not None:
            await self.world.cluster.create(proof.create)
        for job in (*proof.delete, *(unneeded(seen, [proof]) if not keep else ())):
            self.world.cluster.remove(next(r for r in self.world.cluster.objects if r.name == job["metadata"]["name"]))
        return proof

    def jobs(self) -> list[Manifest]:
        found: list[Manifest] = self.world.jobs("verify")
        return found

    def answer(self, answer: Verified) -> None:
        (job,) = [j for j in self.jobs() if not (j.get("status") or {}).get("conditions")]
        self.world.cluster.finish_job(job, answer)

    def fail(self, message: str) -> None:
        (job,) = [j for j in self.jobs() if not (j.get("status") or {}).get("conditions")]
        self.world.cluster.fail_job(job, "push", message=message)


@pytest.fixture
async def proving(world):
    made = Proving(world)
    await made.start()
    return made


def request_of(job: Manifest) -> dict[str, Any]:
    (push,) = job["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = json.loads(next(e["value"] for e in push["env"] if e["name"] == "SLIPWAY_REQUEST"))
    return found


async def test_a_content_is_unproven_until_the_registry_has_answered(proving):
    proof = await proving.look()

    assert (proof.state, proof.at, proof.missing) == (State.UNPROVEN, None, ())
    assert [j["metadata"]["name"] for j in proving.jobs()] == [proof.job]
    assert proof.requeue_after <= 3
    again = await proving.look()
    assert (again.create, again.job) == (None, proof.job)


async def test_the_job_is_plain_and_asks_for_target_and_live(proving, world):
    world.settings = world.settings.model_copy(
        update={"registry": world.settings.registry.model_copy(update={"secret_name": "registry-secret"})}
    )
    await proving.look()
    (job,) = proving.jobs()
    pod = job["spec"]["template"]["spec"]
    (push,) = pod["containers"]
    first, second = (e["data"] for e in world.entries())

    assert push["args"] == ["verify"]
    assert "initContainers" not in pod
    assert pod["automountServiceAccountToken"] is False
    assert [m["mountPath"] for m in push["volumeMounts"] if m["mountPath"].startswith("/secrets")] == [
        "/secrets/registry"
    ]
    assert VerifyRequest.model_validate(request_of(job)).content.digest == first["content"], "as the Job will read it"
    assert request_of(job)["live"] == {
        "repository": "reg.test/models/airline/flight-delay",
        "modelImage": second["digests"]["modelImage"],
        "signature": second["digests"]["signature"],
    }


@pytest.mark.parametrize(
    ("answer", "state", "missing", "words"),
    [
        pytest.param(GOOD, State.PROVEN, (), "all 7 images", id="all-there"),
        pytest.param(GONE, State.FAILED, GONE.missing, "not in the registry: model image", id="missing"),
        pytest.param(OTHER, State.FAILED, (), 'does not fit: callers send "x"', id="schema"),
        pytest.param(UNREAD, State.UNPROVEN, (), "not compared", id="not-compared"),
    ],
)
async def test_what_an_answer_means(proving, answer, state, missing, words):
    await proving.look()
    proving.answer(answer)
    proof = await proving.look()

    assert (proof.state, proof.missing) == (state, missing)
    assert words in proof.message
    assert proof.create is None
    assert bool(proof.schema) is (answer is OTHER)
    assert proof.at is not None


async def test_asks_again_after_the_interval_and_not_before(proving, world):
    await proving.look()
    proving.answer(GOOD)
    world.cluster.pass_time(6 * HOURS - 10)
    proof = await proving.look()
    assert (proof.create, proof.requeue_after) == (None, 10)
    world.cluster.pass_time(11)
    proof = await proving.look()

    assert proof.create is not None
    assert proof.state is State.PROVEN, "the last answer counts until there is another"
    proving.answer(GONE)
    assert (await proving.look()).state is State.FAILED
    await proving.look()
    assert len(proving.jobs()) == 1, "answers that are history go"


async def test_what_is_missing_is_asked_for_sooner(proving, world):
    await proving.look()
    proving.answer(GONE)
    assert (await proving.look()).requeue_after == 600
    world.cluster.pass_time(601)

    assert (await proving.look()).create is not None


async def test_the_interval_is_a_setting(proving, world):
    world.settings = world.settings.model_copy(
        update={"rollback": world.settings.rollback.model_copy(update={"verify_every_seconds": 120})}
    )
    await proving.look()
    proving.answer(GOOD)

    assert (await proving.look()).requeue_after == 120


async def test_another_live_content_is_proven_anew(proving):
    await proving.look()
    proving.answer(GOOD)
    await proving.go_live("cafe" * 10)
    proof = await proving.look(live=3, keep=False)

    assert (proof.state, proof.create is not None) == (State.UNPROVEN, True)
    assert [j["metadata"]["name"] for j in proving.jobs()] == [proof.job], "nobody needs the proof for the one before"


async def test_a_registry_that_is_down_changes_nothing_at_first(proving, world):
    await proving.look()
    proving.answer(GOOD)
    world.cluster.pass_time(6 * HOURS + 1)
    await proving.look()
    proving.fail(failed(retry=True))
    proof = await proving.look()

    assert proof.state is State.PROVEN
    assert (proof.trouble.reason, proof.trouble.stalled) == ("RegistryUnavailable", False)
    assert 0 < proof.requeue_after <= 60
    world.cluster.pass_time(61)
    assert (await proving.look()).create is not None


async def test_what_was_proven_long_ago_is_not_proven(proving, world):
    await proving.look()
    proving.answer(GOOD)
    for _ in range(3):
        world.cluster.pass_time(5 * HOURS)
        if (await proving.look()).create is not None:
            proving.fail(failed(retry=True))
    proof = await proving.look()

    assert proof.state is State.UNPROVEN
    assert "15h ago" in proof.message
    assert "no answer" in proof.message
    assert len(proving.jobs()) == 2, "the last good one and the newest"


async def test_a_failure_that_stays_is_tried_at_once_where_a_secret_is_changed(proving, world):
    await proving.look()
    proving.fail(failed(retry=False, reason="RegistryAccessDenied"))
    proof = await proving.look()
    assert (proof.state, proof.create, proof.trouble.stalled) == (State.UNPROVEN, None, True)
    world.annotate(proving.key, "slipway.dev/retry", "1")

    assert (await proving.look()).create is not None


async def test_a_job_that_left_no_answer_is_run_again(proving, world):
    await proving.look()
    proving.answer(GOOD)
    (job,) = proving.jobs()
    world.cluster.remove(next(r for r in world.cluster.objects if r.name == f"{job['metadata']['name']}-pod"))
    world.cluster.pass_time(31)
    proof = await proving.look()

    assert proof.state is State.UNPROVEN
    assert proof.create["metadata"]["name"].endswith("-2")


async def test_other_steps_leave_the_jobs_of_a_proof_alone(proving, world):
    await proving.look()
    proving.answer(GOOD)
    await world.look(proving.key)

    assert len(proving.jobs()) == 1
    assert world.ready(proving.key) == ("True", "Serving")


async def test_a_job_that_runs_is_looked_at_again_though_no_event_tells(proving):
    await proving.look()
    proof = await proving.look()

    assert (proof.state, proof.create) == (State.UNPROVEN, None)
    assert proof.requeue_after == 30


async def test_what_goes_live_again_is_proven_by_a_job_of_another_name(proving):
    """Kubernetes may give no pod for minutes to a Job that takes the name of one that has just been deleted."""
    world, key = proving.world, proving.key
    await world.look(key)
    (first,) = [job["metadata"]["name"] for job in proving.jobs()]
    world.annotate(key, "slipway.dev/rollback", "previous@back")
    await world.settle(key)
    world.annotate(key, "slipway.dev/resume", "now@on")
    await world.settle(key)

    (again,) = [job["metadata"]["name"] for job in proving.jobs()]
    assert [entry["data"]["cause"] for entry in world.entries()][2:] == ["Rollback", "Resume", "SpecChange"]
    assert again != first
