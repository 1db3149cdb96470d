"""A request happens once: whatever becomes of the entry that did it, of status, and of its annotation."""

from __future__ import annotations

import pytest

CANARY = {"canary": {"pods": 1, "for": "10m"}}


def log(world) -> list[tuple[str, str | None]]:
    return [(e["data"]["cause"], e["data"].get("requestId")) for e in world.entries()]


def lose_status(world, key) -> None:
    world.cluster.edit(world.ref(key), lambda live: live.pop("status", None))


@pytest.fixture
async def short(world):
    """Two contents, the second live, and a log that keeps three entries beside the live one."""
    key = world.add()
    world.edit(key, "revisionHistoryLimit", 3)
    await world.settle(key)
    await world.deploy(key, "v2", "beef")
    return key


@pytest.mark.parametrize("loses", [False, True], ids=["status-kept", "status-lost"])
@pytest.mark.parametrize("door", ["annotation", "spec"])
async def test_a_rollback_whose_entry_is_pruned_does_not_happen_again(world, short, door, loses):
    if door == "spec":
        world.edit(short, "rollbackTo", {"revision": 1, "id": "ticket-42"})
    else:
        world.annotate(short, "slipway.dev/rollback", "previous@ticket-42 fraud scores are off")
    await world.settle(short)
    for number in range(3, 12):
        await world.deploy(short, f"v{number}", f"{number:04d}")
        if loses:
            lose_status(world, short)
            await world.settle(short)
        assert (world.ready(short), log(world)[-1][0]) == (("True", "Serving"), "SpecChange"), number

    assert ("Rollback", "ticket-42") not in log(world), "its entry is gone"
    assert world.request(short, "RollbackTo" if door == "spec" else "Rollback")[0] == "Done"


async def test_a_request_that_was_done_is_told_alike_when_its_entry_is_pruned(world, short):
    world.annotate(short, "slipway.dev/rollback", "previous@ticket-42 fraud scores are off")
    await world.settle(short)
    told = world.status(short)["requests"]
    for number in range(3, 9):
        await world.deploy(short, f"v{number}", f"{number:04d}")

    assert world.status(short)["requests"] == told


@pytest.mark.parametrize("loses", [False, True], ids=["status-kept", "status-lost"])
@pytest.mark.parametrize("verb", ["promote", "abort"])
async def test_a_word_on_one_canary_says_nothing_of_a_later_one(world, short, verb, loses):
    world.edit(short, "rollout", CANARY)
    world.commit = "cafe" * 10
    world.edit(short, "source.git.ref", "v3")
    await world.settle(short)
    world.annotate(short, f"slipway.dev/{verb}", "now@t-1")
    await world.settle(short)
    for number in range(4, 12):
        world.commit = f"{number:04d}" * 10
        world.edit(short, "source.git.ref", f"v{number}")
        await world.settle(short)
        world.cluster.pass_time(595)
        if loses:
            lose_status(world, short)
        await world.settle(short)
        assert world.canary() is not None, f"{verb} of long ago was done again at {number}"
        world.cluster.pass_time(10)
        await world.settle(short)
        assert world.canary() is None


async def test_entries_say_nothing_of_requests_that_do_not_stand_any_more(world, short):
    world.annotate(short, "slipway.dev/rollback", "previous@ticket-42")
    await world.settle(short)
    await world.deploy(short, "v3", "cafe")
    assert world.entries()[-1]["data"]["answered"] == ["Rollback/ticket-42"]
    world.annotate(short, "slipway.dev/rollback", None)
    await world.deploy(short, "v4", "f00d")

    assert "answered" not in world.entries()[-1]["data"]


async def test_a_rollback_whose_entry_is_lost_is_done_again(world, short):
    """Status knows of an entry that the log has no more: what it did is undone, and the request stands."""
    first = world.lane()
    world.annotate(short, "slipway.dev/rollback", "previous@ticket-42")
    await world.settle(short)
    back = world.lane()
    assert back != first
    newest = world.entries()[-1]["metadata"]["name"]
    world.cluster.remove(next(r for r in world.cluster.objects if r.name == newest))
    await world.settle(short)

    assert (world.lane(), log(world)[-1]) == (back, ("Rollback", "ticket-42"))


async def test_one_id_may_name_a_rollback_and_what_follows_it(world, short):
    """A ticket's number: each verb is answered for itself."""
    bad = world.lane()
    world.annotate(short, "slipway.dev/rollback", "previous@ticket-42 off")
    await world.settle(short)
    assert world.lane() != bad
    world.annotate(short, "slipway.dev/resume", "now@ticket-42 it was the data")
    await world.settle(short)

    assert log(world)[-3:] == [("Rollback", "ticket-42"), ("Resume", "ticket-42"), ("SpecChange", None)]
    assert (world.lane(), world.ready(short)) == (bad, ("True", "Serving"))
    assert world.request(short, "Resume")[0] == "Done"


async def test_one_id_may_promote_one_content_and_abort_another(world, short):
    world.edit(short, "rollout", CANARY)
    for ref, commit, verb in (("v3", "cafe", "promote"), ("v4", "f00d", "abort")):
        world.commit = commit * 10
        world.edit(short, "source.git.ref", ref)
        await world.settle(short)
        world.annotate(short, f"slipway.dev/{verb}", "now@ticket-42")
        await world.settle(short)

    assert log(world)[-2:] == [("SpecChange", "ticket-42"), ("Abort", "ticket-42")]
    assert world.ready(short) == ("False", "Aborted")


@pytest.fixture
async def cold(world, short):
    """A rollback to revision 1, which has no pods any more, on its way; the lanes of 1 and of what is live."""
    first = world.entries()[0]["metadata"]["labels"]["slipway.dev/content"]
    third = await world.deploy(short, "v3", "cafe")
    assert first not in world.deployments()
    world.annotate(short, "slipway.dev/rollback-stamp", "41 jane@example.com")
    world.annotate(short, "slipway.dev/rollback", "1@r-1 scores are off")
    await world.look(short)
    assert world.request(short, "Rollback")[0] == "Pending"
    return short, first, third


def sync(world, key) -> None:
    """A GitOps tool takes away what Git does not have."""
    for name in ("rollback", "rollback-stamp"):
        world.annotate(key, f"slipway.dev/{name}", None)


async def test_what_is_on_its_way_is_done_though_its_annotation_is_removed(world, cold):
    key, first, third = cold
    sync(world, key)
    await world.look(key)
    assert (world.lane(), world.request(key, "Rollback")[0]) == (third, "Pending")
    await world.settle(key)

    assert world.lane() == first
    entry = world.entries()[-1]["data"]
    assert {n: entry[n] for n in ("requestId", "who", "whoBy", "why", "restores")} == {
        "requestId": "r-1",
        "who": "jane@example.com",
        "whoBy": "Admission",
        "why": "scores are off",
        "restores": 1,
    }
    row = next(r for r in world.status(key)["requests"] if r["verb"] == "Rollback")
    assert (row["state"], "target" in row) == ("Done", False)


async def test_it_happens_once_when_the_annotation_comes_back(world, cold):
    key, first, _ = cold
    sync(world, key)
    await world.settle(key)
    fourth = await world.deploy(key, "v4", "f00d")
    world.annotate(key, "slipway.dev/rollback", "1@r-1 scores are off")
    await world.settle(key)

    assert world.lane() == fourth != first
    assert log(world).count(("Rollback", "r-1")) == 1


async def test_previous_means_what_it_meant_when_it_was_asked(world, short):
    world.cluster.pass_time(3600)
    world.edit(short, "serving.replicas", 4)
    await world.settle(short)
    world.annotate(short, "slipway.dev/rollback", "previous@r-1")
    await world.look(short)
    row = next(r for r in world.status(short)["requests"] if r["verb"] == "Rollback")

    assert (row["state"], row["target"]) == ("Pending", "1")


@pytest.mark.parametrize(("value", "state", "back"), [("2@r-2", "Done", 2), ("3@r-2", "Refused", None)])
async def test_a_newer_request_takes_the_place_of_what_is_on_its_way(world, cold, value, state, back):
    """Also one for what is live, which is refused: so one calls it off."""
    key, _, third = cold
    sync(world, key)
    await world.look(key)
    world.annotate(key, "slipway.dev/rollback", value)
    await world.settle(key)

    assert world.request(key, "Rollback")[0] == state
    assert ("Rollback", "r-1") not in log(world)
    assert log(world)[-1] == (("Rollback", "r-2") if back else ("SpecChange", None))
    assert (world.lane() == third) is (back is None)


async def test_an_old_annotation_that_is_put_back_calls_nothing_off(world, short):
    world.annotate(short, "slipway.dev/rollback", "previous@r-0")
    await world.settle(short)
    await world.deploy(short, "v3", "cafe")
    await world.deploy(short, "v4", "f00d")
    (first,) = [e["metadata"]["labels"]["slipway.dev/content"] for e in world.entries() if e["data"]["number"] == 3]
    assert first not in world.deployments()
    world.annotate(short, "slipway.dev/rollback", "3@r-1")
    await world.look(short)
    assert world.request(short, "Rollback")[0] == "Pending"
    world.annotate(short, "slipway.dev/rollback", "previous@r-0")
    await world.settle(short)

    assert (log(world)[-1], world.lane()) == (("Rollback", "r-1"), first)
    assert log(world).count(("Rollback", "r-0")) == 1


async def test_what_is_on_its_way_waits_for_the_spec_without_its_annotation(world, cold):
    key, first, _ = cold
    sync(world, key)
    world.edit(key, "rollout", {"rollBackOn": {"p99LatencyMillis": 0}})
    await world.settle(key)
    assert world.request(key, "Rollback")[0] == "Pending"
    world.edit(key, "rollout", None)
    await world.settle(key)

    assert (log(world)[-1], world.lane()) == (("Rollback", "r-1"), first)


async def test_a_promotion_without_its_annotation_means_one_content_only(world, short):
    world.edit(short, "rollout", CANARY)
    for ref, commit in (("v3", "cafe"), ("v4", "f00d")):
        world.commit = commit * 10
        world.edit(short, "source.git.ref", ref)
        await world.settle(short)
        if ref == "v3":
            world.annotate(short, "slipway.dev/promote", "now@p-1")
            await world.look(short)
            assert world.request(short, "Promote")[0] == "Pending"
            world.annotate(short, "slipway.dev/promote", None)

    assert world.request(short, "Promote")[0] == "Refused"
    assert world.canary() is not None


async def test_a_request_waits_for_a_spec_that_can_be_read_and_says_so(world, short):
    """Stored before a rule existed: nothing is done for it, and nobody is left without a word."""
    bad = world.lane()
    world.edit(short, "rollout", {"rollBackOn": {"p99LatencyMillis": 0}})
    world.annotate(short, "slipway.dev/rollback", "previous@r-1 it is slow")
    await world.settle(short)
    assert world.ready(short) == ("False", "InvalidSpec")
    state, message = world.request(short, "Rollback")
    assert (state, world.lane()) == ("Pending", bad)
    assert message.startswith("waits for the spec: spec.rollout.rollBackOn.p99LatencyMillis")
    world.edit(short, "rollout", None)
    await world.settle(short)

    assert world.request(short, "Rollback")[0] == "Done"
    assert world.lane() != bad


async def test_what_was_done_stays_told_while_the_spec_cannot_be_read(world, short):
    world.annotate(short, "slipway.dev/rollback", "previous@r-1")
    await world.settle(short)
    told = world.status(short)["requests"]
    world.edit(short, "rollout", {"rollBackOn": {"p99LatencyMillis": 0}})
    await world.settle(short)

    assert world.status(short)["requests"] == told
