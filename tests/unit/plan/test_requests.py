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
