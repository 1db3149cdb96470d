"""What carrying out a plan asks of the API server."""

from __future__ import annotations

import pytest

from slipway_operator.cluster.act import carry_out
from slipway_operator.cluster.fake import FakeCluster
from slipway_operator.domain import labels
from slipway_operator.domain.errors import Blocked
from slipway_operator.plan.observed import Plan, ref_of


class Counting(FakeCluster):
    """Counts what is read."""

    reads = 0

    async def get(self, ref):
        self.reads += 1
        return await super().get(ref)


@pytest.fixture
def cluster():
    return Counting()


def settings(owner="flight-delay", **data):
    meta = {"name": "one", "namespace": "airline", "labels": labels.owned(owner) if owner else {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


async def test_what_is_not_there_is_applied_without_a_read(cluster):
    await carry_out(cluster, Plan(apply=(settings(a="1"),)), ())

    assert (cluster.reads, cluster.writes) == (0, [("apply", ref_of(settings()))])
    assert cluster.objects[ref_of(settings())]["data"] == {"a": "1"}


async def test_what_nobody_had_seen_is_brought_to_what_is_wanted(cluster):
    """A store that is behind, or somebody who was faster: one of ours is applied as if it had been seen."""
    await carry_out(cluster, Plan(apply=(settings(a="1", b="1"),)), ())

    await carry_out(cluster, Plan(apply=(settings(a="2"),)), ())

    assert cluster.objects[ref_of(settings())]["data"] == {"a": "2"}


async def test_what_nobody_had_seen_and_is_as_wanted_stays_as_it_is(cluster):
    await carry_out(cluster, Plan(apply=(settings(a="1"),)), ())
    version = cluster.objects[ref_of(settings())]["metadata"]["resourceVersion"]

    await carry_out(cluster, Plan(apply=(settings(a="1"),)), ())

    assert cluster.objects[ref_of(settings())]["metadata"]["resourceVersion"] == version


async def test_a_write_that_changes_nothing_does_not_count_as_one(cluster):
    """What a webhook puts there at each write is never as wanted."""
    await carry_out(cluster, Plan(apply=(settings(a="1"),)), ())
    cluster.admit = lambda live: live["data"].update(a="theirs")
    cluster.edit(ref_of(settings()), lambda live: live["data"].update(a="theirs"))
    seen = await cluster.get(ref_of(settings()))

    again = await carry_out(cluster, Plan(apply=(settings(a="1"),)), (seen,))

    assert cluster.writes[-1] == ("apply", ref_of(settings()))
    assert not again.applied
    assert (await carry_out(cluster, Plan(apply=(settings(a="1", b="2"),)), (seen,))).applied


@pytest.mark.parametrize("owner", [None, "another"])
async def test_what_belongs_to_somebody_else_is_not_touched(cluster, owner):
    cluster.add(settings(owner, theirs="1"))

    with pytest.raises(Blocked, match="does not belong to Slipway"):
        await carry_out(cluster, Plan(apply=(settings(ours="1"),)), ())

    assert cluster.objects[ref_of(settings())]["data"] == {"theirs": "1"}
