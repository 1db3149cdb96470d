"""What is held is known by a digest, whatever way a number went through the cluster."""

from __future__ import annotations

import pytest

PARITY = [
    pytest.param({"maxAbsoluteDifference": 0}, id="0"),
    pytest.param({"maxAbsoluteDifference": 0.0}, id="0.0"),
    pytest.param({"maxAbsoluteDifference": 1}, id="1"),
    pytest.param({"maxAbsoluteDifference": 1e-06}, id="1e-06"),
]


async def live(world, parity):
    """Two contents, the second live; the key and the lane of the first."""
    key = world.add()
    world.edit(key, "export", {"parity": parity})
    await world.settle(key)
    first = world.lane()
    await world.deploy(key, "v2", "beef")
    return key, first


@pytest.mark.parametrize("parity", PARITY)
async def test_a_rollback_holds_a_spec_whose_numbers_are_whole(world, parity):
    """Pydantic reads 0 as 0.0, and the log gives 0 back: it is one spec."""
    key, first = await live(world, parity)
    world.annotate(key, "slipway.dev/rollback", "previous@r-1")
    await world.settle(key)

    assert world.lane() == first
    assert world.ready(key) == ("False", "RolledBack")
    assert [e["data"]["cause"] for e in world.entries()] == ["SpecChange", "SpecChange", "Rollback"]


@pytest.mark.parametrize("parity", PARITY)
async def test_an_abort_holds_a_spec_whose_numbers_are_whole(world, parity):
    key, _ = await live(world, parity)
    lane = world.lane()
    world.edit(key, "rollout", {"canary": {"pods": 1, "for": "10m"}})
    await world.deploy(key, "v3", "cafe")
    world.annotate(key, "slipway.dev/abort", "now@a-1")
    await world.settle(key)
    world.cluster.pass_time(3600)
    await world.settle(key)

    assert (world.lane(), world.ready(key)) == (lane, ("False", "Aborted"))
