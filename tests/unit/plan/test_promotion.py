"""An entry with cause ``Promotion``: a newly trained model of one spec and commit, and what its rollback holds.

The entry is written here as whoever promotes a model writes it; nothing in this release does yet.
"""

from __future__ import annotations

import pytest

from slipway_operator.domain.durations import format_time
from slipway_operator.domain.revisions import Cause, entry_manifest, read_log
from slipway_operator.plan.observed import owner_reference_of


@pytest.fixture
async def promoted(world):
    """A first content, and one that differs by its model alone and was promoted; the lanes of both."""
    key = world.add()
    await world.settle(key)
    first = world.lane()
    ((log,), _) = read_log(world.entries())
    model = log.entry.digests.model_copy(update={"model": "sha256:" + "9" * 64, "onnx": "sha256:" + "8" * 64})
    entry = log.entry.model_copy(
        update={
            "number": 2,
            "previous": log.digest,
            "cause": Cause.PROMOTION,
            "who": "ada@example.com",
            "who_by": "Admission",
            "why": "roc_auc went from 0.70 to 0.72",
            "at": format_time(world.cluster.now),
            "content": model.digest,
            "digests": model,
        }
    )
    owner = owner_reference_of(world.cluster.objects[world.ref(key)])
    world.cluster.add(entry_manifest(entry, owner_name=key.name, namespace=key.namespace, owner_reference=owner))
    await world.settle(key)
    return key, first, model.short


async def test_what_was_promoted_is_live_and_nothing_is_made_for_it(world, promoted):
    key, _, second = promoted

    assert world.lane() == second
    assert world.ready(key) == ("True", "Serving")
    assert world.unfinished() == []
    assert [e["data"]["cause"] for e in world.entries()] == ["SpecChange", "Promotion"]


async def test_a_rollback_of_it_holds_that_model_alone(world, promoted):
    key, first, second = promoted
    world.annotate(key, "slipway.dev/rollback", "previous@r-1 too many false alarms")
    await world.settle(key)

    assert world.lane() == first
    (hold,) = world.entries()[-1]["data"]["holds"]
    assert hold["model"] == "sha256:" + "9" * 64
    assert {"spec", "commit"} & set(hold) == set()
    assert [h["content"] for h in world.status(key)["held"]] == [second]
    assert world.ready(key) == ("True", "Serving"), "what Git asks for is what answers: nothing waits for a person"

    world.edit(key, "serving.replicas", 3)
    await world.settle(key)
    assert (world.lane(), len(world.entries())) == (first, 3), "neither another size nor another look brings it back"


async def test_a_new_commit_goes_live_while_a_model_is_held(world, promoted):
    key, first, second = promoted
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)

    third = await world.deploy(key, "v2", "beef")

    assert third not in {first, second}
    assert world.ready(key) == ("True", "Serving")
    assert [e["data"]["cause"] for e in world.entries()] == ["SpecChange", "Promotion", "Rollback", "SpecChange"]
