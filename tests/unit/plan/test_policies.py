"""Network policies have names that no other ModelDeployment's can have."""

from __future__ import annotations

import pytest


def policies(world) -> dict[str, str]:
    """Owner by the policy's name."""
    return {
        p["metadata"]["name"]: p["metadata"]["labels"]["slipway.dev/owner"]
        for p in world.cluster.of_kind("NetworkPolicy")
    }


@pytest.mark.parametrize("names", [("pricing", "pricing-jobs"), ("pricing-jobs", "pricing")])
async def test_one_deployment_may_be_named_as_the_jobs_of_another(world, names):
    for name in names:
        key = world.add(name)
        await world.settle(key)
        assert world.ready(key) == ("True", "Serving")

    assert policies(world) == {
        "pricing": "pricing",
        "pricing.jobs": "pricing",
        "pricing-jobs": "pricing-jobs",
        "pricing-jobs.jobs": "pricing-jobs",
    }


async def test_the_policy_of_an_earlier_release_goes_and_frees_its_name(world):
    key = world.add("pricing")
    await world.settle(key)
    (now,) = [p for p in world.cluster.of_kind("NetworkPolicy") if p["metadata"]["name"] == "pricing.jobs"]
    world.cluster.add({**now, "metadata": {**now["metadata"], "name": "pricing-jobs", "uid": "old"}})
    other = world.add("pricing-jobs")
    for _ in range(6):
        await world.look(other)
        world.play()
    assert world.ready(other) == ("False", "NameTaken")
    await world.settle(key)
    assert sorted(policies(world)) == ["pricing", "pricing-jobs.jobs", "pricing.jobs"]
    await world.settle(key, other)

    assert policies(world)["pricing-jobs"] == "pricing-jobs"
    assert world.ready(other) == ("True", "Serving")
    world.cluster.writes.clear()
    await world.look(key)
    assert world.cluster.writes == [], "what the other one has there now stays"
