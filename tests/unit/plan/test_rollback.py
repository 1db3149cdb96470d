"""Rollback: what was rolled back is held, whatever is repeated, lost or applied again."""

from __future__ import annotations

import json

import pytest

from lab.player import request_of
from slipway_operator.domain.directives import Stamps
from slipway_operator.domain.requests import Verified
from slipway_operator.domain.revisions import read_log
from slipway_operator.domain.settings import LogSettings
from slipway_operator.plan.observed import Manifest


def made(world) -> list[Manifest]:
    """Jobs that make something; others only ask the registry."""
    return [j for step in ("build", "train", "export") for j in world.jobs(step)]


@pytest.fixture
async def two(world):
    """Two contents, the second live; the lanes of both."""
    key = world.add()
    await world.settle(key)
    first = world.lane()
    second = await world.deploy(key, "v2", "beef")
    return key, first, second


async def test_back_to_what_was_live_before_in_one_look(world, two):
    key, first, second = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1 fraud scores are off")
    await world.look(key)

    assert world.lane() == first, "its pods are warm: nothing is waited for"
    entry = world.entries()[-1]["data"]
    assert {n: entry[n] for n in ("number", "cause", "requestId", "undoes", "restores", "why")} == {
        "number": 3,
        "cause": "Rollback",
        "requestId": "r-1",
        "undoes": 2,
        "restores": 1,
        "why": "fraud scores are off",
    }
    await world.settle(key)
    assert world.deployments() == {first: 2}, "what was rolled back has no pods, so that no open connection reaches it"
    assert second not in world.deployments()
    assert read_log(world.entries())[1] == ()


async def test_what_was_rolled_back_is_told_and_held(world, two):
    key, _, second = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)

    assert world.ready(key) == ("False", "RolledBack")
    assert world.condition(key, "Stalled")["status"] == "True"
    assert world.condition(key, "Reconciling")["status"] == "False"
    assert world.condition(key, "Available")["status"] == "True"
    assert world.status(key)["summary"].startswith("ROLLED BACK 2→1")
    assert "kubectl slipway resume flight-delay" in world.condition(key, "Ready")["message"]
    assert [h["content"] for h in world.status(key)["held"]] == [second]
    assert world.request(key, "Rollback")[0] == "Done"


async def test_nothing_undoes_it(world, two):
    """Syncs, restarts, a lost status, the annotation gone, set again or restored: it stays rolled back, once."""
    key, first, _ = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    for disturb in (
        lambda: world.edit(key, "serving.replicas", 3),
        lambda: world.annotate(key, "slipway.dev/rollback", None),
        lambda: world.annotate(key, "slipway.dev/rollback", "previous@r-1"),
        lambda: world.cluster.edit(world.ref(key), lambda live: live.pop("status", None)),
        lambda: world.edit(key, "standby", {"fullFor": "1m"}),
        lambda: world.cluster.pass_time(86400),
    ):
        disturb()
        await world.settle(key)
        assert (world.lane(), len(world.entries())) == (first, 3)
        assert world.ready(key) == ("False", "RolledBack")
    assert world.deployments() == {first: 3}, "replicas may change meanwhile"


async def test_a_new_commit_goes_live_by_itself(world, two):
    key, *_ = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    third = await world.deploy(key, "v3", "cafe")

    assert world.ready(key) == ("True", "Serving")
    assert world.lane() == third
    assert world.status(key).get("held") is None
    assert [e["data"]["cause"] for e in world.entries()] == ["SpecChange", "SpecChange", "Rollback", "SpecChange"]


async def test_the_spec_that_asks_for_the_live_content_again_releases_what_is_held(world, two):
    key, first, second = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    world.edit(key, "source.git.ref", "v1.0.0")
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")
    assert world.entries()[-1]["data"]["cause"] == "Resume"
    assert world.lane() == first

    world.edit(key, "source.git.ref", "v2")
    await world.settle(key)
    assert world.lane() == second, "asked for anew"


async def test_resume_lets_it_go_live_again(world, two):
    key, _, second = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    jobs = len(made(world))
    world.annotate(key, "slipway.dev/resume", "now@r-2 it was the data")
    await world.settle(key)

    assert world.lane() == second
    assert [e["data"]["cause"] for e in world.entries()][2:] == ["Rollback", "Resume", "SpecChange"]
    assert world.ready(key) == ("True", "Serving")
    assert len(made(world)) == jobs, "nothing is made anew"


async def test_back_to_a_number_whose_pods_are_gone(world, two):
    key, first, _ = two
    await world.deploy(key, "v3", "cafe")
    assert first not in world.deployments()
    world.annotate(key, "slipway.dev/rollback", "1@r-1")
    lane = world.lane()
    await world.look(key)

    assert world.lane() == lane, "what is live serves until the pods of the other answer"
    assert world.ready(key) == ("False", "RollingBack")
    assert world.request(key, "Rollback")[0] == "Pending"
    await world.settle(key)
    assert world.lane() == first
    assert world.entries()[-1]["data"]["restores"] == 1


async def test_a_rollback_does_not_wait_for_the_last_pod(world, two):
    key, first, _ = two
    world.cluster.pass_time(3600)
    world.edit(key, "serving.replicas", 4)
    await world.settle(key)
    assert world.deployments()[first] == 1
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.look(key)
    assert world.lane() != first
    world.cluster.pass_time(31)
    await world.look(key)
    assert world.lane() == first


async def test_previous_twice_goes_two_back_and_not_forth(world, two):
    key, first, second = two
    third = await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    assert world.lane() == second
    world.annotate(key, "slipway.dev/rollback", "previous@r-2")
    await world.settle(key)

    assert world.lane() == first
    assert {h["content"] for h in world.status(key)["held"]} == {second, third}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("yesterday", "must be previous or a revision's number"),
        ("", "must be"),
        ("9", "no revision 9: it has 1 to 2"),
        ("2", "is live already"),
        ("previous; rm -rf", "must be previous"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_stays_refused(world, two, value, words):
    key, _, second = two
    world.annotate(key, "slipway.dev/rollback", value or " ")
    await world.settle(key)
    state, message = world.request(key, "Rollback")
    assert (state, world.lane(), len(world.entries())) == ("Refused", second, 2)
    assert words in message
    assert world.ready(key) == ("True", "Serving")
    for number in range(3, 11):
        await world.deploy(key, f"v{number}", f"{number:04d}")
    assert len(world.entries()) == 10, "a request that was refused does not come true later"


async def test_two_doors_that_are_both_refused_do_not_talk_in_turns(world, two):
    key, *_ = two
    world.annotate(key, "slipway.dev/rollback", "9@r-1")
    world.edit(key, "rollbackTo", {"revision": 8})
    await world.settle(key)
    world.cluster.writes.clear()
    world.cluster.pass_time(60)
    await world.look(key)
    assert world.cluster.writes == []
    assert {r["verb"]: r["state"] for r in world.status(key)["requests"]} == {
        "Rollback": "Refused",
        "RollbackTo": "Refused",
    }


async def test_nothing_to_go_back_to(world):
    key = world.add()
    await world.settle(key)
    world.annotate(key, "slipway.dev/rollback", "previous")
    await world.settle(key)
    assert world.request(key, "Rollback") == (
        "Refused",
        "the log has no other content that was healthy and is not held",
    )
    assert world.condition(key, "RollbackReady")["reason"] == "NothingToGoBackTo"


async def test_a_plain_value_without_an_id_happens_once(world, two):
    key, first, _ = two
    world.annotate(key, "slipway.dev/rollback", "previous")
    await world.settle(key)
    third = await world.deploy(key, "v3", "cafe")
    assert world.lane() == third != first, "the annotation is still there and is not acted on again"


async def test_a_stamp_makes_each_plain_request_another_and_says_who(world, two):
    key, *_ = two
    world.annotate(key, "slipway.dev/rollback-stamp", "41 jane@example.com")
    world.annotate(key, "slipway.dev/rollback", "previous")
    await world.settle(key)
    await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback-stamp", "97 joe@example.com")
    await world.settle(key)

    backs = [e["data"] for e in world.entries() if e["data"]["cause"] == "Rollback"]
    assert [(b["who"], b["whoBy"]) for b in backs] == [
        ("jane@example.com", "Admission"),
        ("joe@example.com", "Admission"),
    ]


@pytest.mark.parametrize(
    ("stamps", "asked", "changed"),
    [
        pytest.param("Written", ("jane@example.com", "Admission"), ("joe@example.com", "Admission"), id="written"),
        pytest.param("Checked", ("jane@example.com", "Admission"), ("unknown", "Nobody"), id="checked"),
        pytest.param("Unchecked", ("unknown", "Nobody"), ("unknown", "Nobody"), id="unchecked"),
    ],
)
async def test_a_stamp_is_believed_only_where_the_cluster_sees_to_it(world, two, stamps, asked, changed):
    key, *_ = two
    world.settings = world.settings.model_copy(update={"stamps": Stamps(stamps)})
    world.annotate(key, "slipway.dev/rollback-stamp", "41 jane@example.com")
    world.annotate(key, "slipway.dev/rollback", "previous")
    await world.settle(key)
    world.annotate(key, "slipway.dev/spec-stamp", "joe@example.com")
    await world.deploy(key, "v3", "cafe")

    back, change = [e["data"] for e in world.entries()][-2:]
    assert (back["cause"], back["who"], back["whoBy"]) == ("Rollback", *asked)
    assert (change["cause"], change["who"], change["whoBy"]) == ("SpecChange", *changed)


async def test_who_is_believed_makes_no_new_request_of_an_old_one(world, two):
    key, *_ = two
    world.annotate(key, "slipway.dev/rollback-stamp", "41 jane@example.com")
    world.annotate(key, "slipway.dev/rollback", "previous")
    await world.settle(key)
    third = await world.deploy(key, "v3", "cafe")

    world.settings = world.settings.model_copy(update={"stamps": Stamps.UNCHECKED})
    await world.settle(key)

    assert world.lane() == third


async def test_by_the_spec_it_counts_once(world, two):
    key, first, _ = two
    world.edit(key, "rollbackTo", {"revision": 1})
    await world.settle(key)
    assert world.lane() == first
    third = await world.deploy(key, "v3", "cafe")
    assert world.lane() == third, "it counted for the spec that it arrived with"
    world.edit(key, "rollbackTo", {"revision": 1, "id": "again"})
    await world.settle(key)
    assert world.lane() == first


async def test_by_the_spec_to_a_content_without_pods(world, two):
    key, first, _ = two
    third = await world.deploy(key, "v3", "cafe")
    assert first not in world.deployments()
    world.edit(key, "rollbackTo", {"revision": 1, "id": "ticket-42"})
    await world.look(key)
    assert (world.lane(), world.ready(key)) == (third, ("False", "RollingBack"))
    await world.settle(key)

    entry = world.entries()[-1]["data"]
    assert (world.lane(), entry["cause"], entry["requestId"]) == (first, "Rollback", "ticket-42")
    assert world.request(key, "RollbackTo")[0] == "Done"


async def test_by_the_spec_it_is_called_off_by_another_spec(world, two):
    key, *_ = two
    third = await world.deploy(key, "v3", "cafe")
    world.edit(key, "rollbackTo", {"revision": 1})
    await world.look(key)
    world.edit(key, "rollbackTo", None)
    await world.settle(key)

    assert (world.lane(), world.ready(key)) == (third, ("True", "Serving"))


async def test_another_spec_at_the_same_commit_releases_what_is_held(world, two):
    key, first, _ = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    world.edit(key, "export", {"parity": {"maxLabelFlips": 1}})
    await world.settle(key)

    assert world.entries()[-1]["data"]["digests"]["commit"] == world.commit, "no other commit was needed"
    assert (world.entries()[-1]["data"]["cause"], world.ready(key)) == ("SpecChange", ("True", "Serving"))
    assert world.status(key).get("held") is None
    assert world.lane() != first


async def test_a_followed_branch_that_returns_to_the_live_commit_releases_what_is_held(world):
    key = world.add()
    world.edit(key, "source.git", {"url": "https://git.test/a.git", "ref": "main", "follow": {"interval": "1m"}})
    await world.settle(key)
    first, good = world.lane(), world.commit
    world.commit = "beef" * 10
    world.cluster.pass_time(61)
    await world.settle(key)
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    jobs = len(made(world))
    world.commit = good
    world.cluster.pass_time(61)
    await world.settle(key)

    assert (world.lane(), world.ready(key)) == (first, ("True", "Serving"))
    assert (world.entries()[-1]["data"]["cause"], world.status(key).get("held")) == ("Resume", None)
    assert len(made(world)) == jobs, "nothing is made anew"


async def test_a_followed_branch_stays_rolled_back_until_it_moves(world):
    key = world.add()
    world.edit(key, "source.git", {"url": "https://git.test/a.git", "ref": "main", "follow": {"interval": "1m"}})
    await world.settle(key)
    first = world.lane()
    world.commit = "beef" * 10
    world.cluster.pass_time(61)
    await world.settle(key)
    assert world.lane() != first
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    for _ in range(5):
        world.cluster.pass_time(61)
        await world.settle(key)
        assert (world.lane(), world.ready(key)) == (first, ("False", "RolledBack"))
    world.commit = "cafe" * 10
    world.cluster.pass_time(61)
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")
    assert len(world.entries()) == 4


async def test_a_rollback_during_a_rollout_holds_what_was_on_its_way_too(world, two):
    key, first, _ = two
    world.commit = "cafe" * 10
    world.edit(key, "source.git.ref", "v3")
    for _ in range(3):
        await world.look(key)
        for job in world.unfinished():
            world.cluster.finish_job(job, world.answer(job))
    await world.look(key)
    assert len(world.deployments()) == 3
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)

    assert world.lane() == first
    assert len(world.status(key)["held"]) == 2
    assert world.ready(key) == ("False", "RolledBack")


async def test_the_log_alone_is_enough(world, two):
    """Everything but the log and the resource is lost: the same content serves, nothing is built, and it stays held."""
    key, first, _ = two
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    for ref in list(world.cluster.objects):
        if ref.kind not in {"ModelDeployment", "ControllerRevision"}:
            world.cluster.remove(ref)
    world.cluster.edit(world.ref(key), lambda live: live.pop("status", None))
    await world.settle(key)

    assert (world.lane(), made(world)) == (first, [])
    assert world.ready(key) == ("False", "RolledBack")


@pytest.mark.parametrize("keeps", [False, True], ids=["goes", "stays"])
async def test_the_log_goes_or_stays_with_its_deployment_as_the_platform_says(world, keeps):
    world.settings = world.settings.model_copy(update={"log": LogSettings(keep_after_deletion=keeps)})
    key = world.add()
    await world.settle(key)
    await world.deploy(key, "v2", "beef")
    world.cluster.remove(world.ref(key))

    assert [e["data"]["number"] for e in world.entries()] == ([1, 2] if keeps else [])
    assert {r.kind for r in world.cluster.objects} <= {"ControllerRevision", "Pod"}, "nothing else stays"


async def test_a_deployment_made_anew_goes_on_with_the_log_that_was_kept(world):
    world.settings = world.settings.model_copy(update={"log": LogSettings(keep_after_deletion=True)})
    key = world.add()
    await world.settle(key)
    first = world.lane()
    await world.deploy(key, "v2", "beef")
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    world.cluster.remove(world.ref(key))
    world.add()
    world.edit(key, "source.git.ref", "v2")
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    assert (world.lane(), world.ready(key), made(world)) == (first, ("False", "RolledBack"), [])
    assert len(world.entries()) == 3, "what was done stays done"
    await world.deploy(key, "v3", "cafe")

    entries, faults = read_log(world.entries())
    assert (faults, [e.number for e in entries]) == ((), [1, 2, 3, 4])
    assert all(e.owners == () for e in entries)
    world.cluster.writes.clear()
    await world.look(key)
    assert world.cluster.writes == []


async def test_what_was_kept_is_adopted_when_that_is_no_more_wanted(world):
    kept = world.settings.model_copy(update={"log": LogSettings(keep_after_deletion=True)})
    usual, world.settings = world.settings, kept
    key = world.add()
    await world.settle(key)
    world.settings = usual
    await world.settle(key)

    (uid,) = {o["uid"] for e in world.entries() for o in e["metadata"]["ownerReferences"]}
    assert uid == world.cluster.objects[world.ref(key)]["metadata"]["uid"]


async def test_pruning_leaves_no_gap_and_nothing_that_is_needed(world, two):
    key, *_ = two
    world.edit(key, "revisionHistoryLimit", 2)
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    for number in range(6):
        world.annotate(key, "slipway.dev/resume", f"now@s-{number}")
        await world.settle(key)
        world.annotate(key, "slipway.dev/rollback", f"previous@b-{number}")
        await world.settle(key)

    entries, faults = read_log(world.entries())
    assert faults == ()
    assert len(entries) <= 4
    assert world.ready(key) == ("False", "RolledBack")


async def test_a_broken_log_is_said(world, two):
    key, *_ = two
    first = world.entries()[0]
    first["data"] = {**first["data"], "why": "nothing to see here"}
    await world.look(key)

    assert world.condition(key, "LogIntact")["status"] == "False"
    assert "flight-delay-2 does not follow from flight-delay-1" in world.condition(key, "LogIntact")["message"]
    assert "LogBroken" in [e.reason for e in world.cluster.emitted]
    assert world.condition(key, "Available")["status"] == "True"


async def test_the_newest_entry_cannot_go_unnoticed(world, two):
    key, *_ = two
    newest = world.entries()[-1]["metadata"]["name"]
    (ref,) = [r for r in world.cluster.objects if r.name == newest]
    world.cluster.remove(ref)
    await world.look(key)
    assert "LogBroken" in [e.reason for e in world.cluster.emitted]


GONE = Verified(asked=7, missing=("model image sha256:0123456789ab",), schema_fits=None)


async def test_whether_a_rollback_would_work_is_proven_beforehand(world, two):
    key, *_ = two
    assert world.condition(key, "RollbackReady")["status"] == "True"
    assert "in the registry" in world.condition(key, "RollbackReady")["message"]
    assert world.status(key)["standby"]["readyReplicas"] == 2

    world.cluster.pass_time(6 * 3600 + 1)
    await world.look(key)
    (asking,) = [j for j in world.unfinished() if "verify" in j["metadata"]["name"]]
    world.cluster.finish_job(asking, GONE)
    await world.look(key)
    found = world.condition(key, "RollbackReady")
    assert (found["status"], found["reason"]) == ("False", "ArtifactsMissing")
    assert "model image sha256:0123456789ab" in found["message"]
    assert "ArtifactsMissing" in [e.reason for e in world.cluster.emitted]
    assert world.ready(key) == ("True", "Serving")


def lose_pods(world, lane: str, *, left: int) -> None:
    """As a node's end does."""
    (ref,) = [r for r in world.cluster.objects if r.kind == "Deployment" and r.name.endswith(lane)]
    world.cluster.edit(ref, lambda live: live["status"].update(availableReplicas=left, readyReplicas=left))


async def test_a_standby_has_the_capacity_with_all_of_its_pods_only(world, two):
    key, first, _ = two
    assert "2 of 2 standby pods answer (live: 2)" in world.condition(key, "RollbackReady")["message"]
    lose_pods(world, first, left=1)
    await world.look(key)

    found = world.condition(key, "RollbackReady")
    assert (found["status"], found["reason"]) == ("False", "StandbyNotReady")
    assert "1 of 2 standby pods answer (live: 2)" in found["message"]
    world.cluster.pass_time(3600)
    await world.settle(key)
    found = world.condition(key, "RollbackReady")
    assert (found["status"], found["reason"]) == ("True", "Proven")
    assert "1 of 1 standby pods answer (live: 2)" in found["message"], (
        "after standby.fullFor one is what there is to be"
    )


async def test_nothing_is_proven_where_no_pod_is_asked_for(world, two):
    key, *_ = two
    world.edit(key, "serving.replicas", 0)
    await world.settle(key)

    found = world.condition(key, "RollbackReady")
    assert (found["status"], found["reason"]) == ("Unknown", "ScaledToZero")
    assert "answered" not in found["message"]


async def test_what_is_missing_is_told_though_it_was_false_before(world, two):
    key, first, _ = two
    world.cluster.pass_time(6 * 3600 + 1)
    await world.look(key)
    world.cluster.settle_deployments()
    lose_pods(world, first, left=0)
    await world.look(key)
    assert world.condition(key, "RollbackReady")["reason"] == "StandbyNotReady"
    (asking,) = [j for j in world.unfinished() if "verify" in j["metadata"]["name"]]
    world.cluster.finish_job(asking, GONE)
    world.cluster.settle_deployments()
    for _ in range(2):
        await world.look(key)

    told = [(e.reason, e.message) for e in world.cluster.emitted if e.reason in {"StandbyNotReady", "ArtifactsMissing"}]
    assert [reason for reason, _ in told] == ["StandbyNotReady", "ArtifactsMissing"], "each once"
    assert "model image sha256:0123456789ab" in told[1][1]


async def test_a_rollback_to_what_is_gone_is_refused_before_anything_is_touched(world, two):
    key, first, _ = two
    third = await world.deploy(key, "v3", "cafe")
    before = world.deployments()
    world.annotate(key, "slipway.dev/rollback", "1@r-1")
    await world.look(key)
    assert world.ready(key) == ("False", "RollingBack")
    assert world.deployments() == before, "first the registry is asked"
    (asking,) = [j for j in world.unfinished() if "verify" in j["metadata"]["name"]]
    world.cluster.finish_job(asking, GONE)
    await world.look(key)

    state, message = world.request(key, "Rollback")
    assert (state, world.lane(), world.deployments()) == ("Refused", third, before)
    assert "model image sha256:0123456789ab" in message
    assert first not in world.deployments()


def asked_for_revision_1(world) -> Manifest:
    """The Job that asks the registry for what has no pods any more."""
    (asking,) = [j for j in world.unfinished() if "verify" in j["metadata"]["name"]]
    return asking


async def test_a_live_model_that_is_gone_keeps_nobody_from_leaving_it(world, two):
    """All of the target is there; only what callers send now cannot be compared."""
    key, first, _ = two
    await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback", "1@r-1 the live one is broken")
    await world.look(key)
    unread = Verified(asked=7, schema_difference="the schema is not compared: the live model is gone")
    world.cluster.finish_job(asked_for_revision_1(world), unread)
    await world.settle(key)

    assert (world.lane(), world.ready(key)) == (first, ("False", "RolledBack"))


async def test_a_registry_that_nobody_will_ask_again_keeps_nobody_from_going_back(world, two):
    key, first, _ = two
    await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback", "1@r-1")
    await world.look(key)
    denied = json.dumps({"ok": False, "reason": "RegistryAccessDenied", "message": "no", "retry": False})
    world.cluster.fail_job(asked_for_revision_1(world), "push", message=denied)
    await world.settle(key)

    assert world.lane() == first


async def test_a_registry_that_is_away_is_waited_for(world, two):
    key, first, _ = two
    third = await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback", "1@r-1")
    await world.look(key)
    away = json.dumps({"ok": False, "reason": "RegistryUnavailable", "message": "no answer", "retry": True})
    world.cluster.fail_job(asked_for_revision_1(world), "push", message=away)
    await world.look(key)
    assert (world.lane(), first in world.deployments()) == (third, False)
    world.cluster.pass_time(61)
    await world.settle(key)

    assert world.lane() == first


async def test_with_the_last_use_of_a_content_go_its_images(world, two):
    """The entries beyond the limit go once a Job has removed what only they used; the chain has no gap."""
    key, *_ = two
    world.edit(key, "revisionHistoryLimit", 1)
    for number in range(3, 7):
        await world.deploy(key, f"v{number}", f"{number:04d}")
    await world.settle(key)

    entries, faults = read_log(world.entries())
    assert faults == ()
    assert [e.number for e in entries] == [5, 6]
    removals = [w for w in world.cluster.writes if w[0] == "create" and "-remove-" in w[1].name]
    assert removals, "images are removed by a Job, not by the operator"


async def test_what_is_held_keeps_its_images_whatever_the_limit(world, two):
    """It may be resumed: the entry that holds it has a higher number than its own."""
    key, first, _ = two
    third = await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)
    world.annotate(key, "slipway.dev/rollback", "previous@r-2")
    await world.settle(key)
    assert world.lane() == first
    world.edit(key, "revisionHistoryLimit", 1)
    await world.settle(key)

    assert [e["data"]["number"] for e in world.entries()] == [3, 4, 5]
    asked = " ".join(request_of(j["spec"]["template"]["spec"]) for j in world.jobs("remove"))
    assert world.entries()[0]["data"]["digests"]["modelImage"] not in asked
    world.cluster.writes.clear()
    world.annotate(key, "slipway.dev/resume", "now@s-1")
    await world.settle(key)
    assert world.lane() == third
    assert not [w for w in world.cluster.writes if w[0] == "create" and "-build-" in w[1].name], "nothing is made anew"


async def test_an_environment_goes_when_no_other_deployment_needs_it(world, two):
    """The shared repository is cleaned only of what nobody anywhere names."""
    key, *_ = two
    other = world.add("other", "railway")
    await world.settle(other)
    world.edit(key, "revisionHistoryLimit", 1)
    for number in range(3, 6):
        world.commit = f"{number:04d}" * 10
        world.edit(key, "source.git.ref", f"v{number}")
        await world.settle(key)

    asked = [json.loads(request_of(j["spec"]["template"]["spec"])) for j in world.jobs("remove")]
    assert asked
    assert all(a["environments"] == [] for a in asked), "the other one's environment is the same"


async def test_a_name_that_somebody_else_took_is_said(world, two):
    """A ControllerRevision of the next entry's name, without our labels, must not have the operator spin."""
    key, _, second = two
    world.cluster.add(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": "flight-delay-3", "namespace": "airline"},
            "data": {"mine": True},
            "revision": 3,
        }
    )
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    again = await world.look(key)

    assert world.ready(key) == ("False", "NameTaken")
    assert again >= 1
    assert world.lane() == second
