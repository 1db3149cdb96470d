"""The store before the cluster: what of it needs no control plane (`tests/faults` has the rest)."""

from __future__ import annotations

from typing import Any

import pytest

from slipway_operator.cluster.cached import CachedCluster
from slipway_operator.cluster.fake import FakeCluster
from slipway_operator.cluster.store import Store
from slipway_operator.cluster.watching import Watches
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Manifest, ref_of

KEY = Key("airline", "flight-delay")


@pytest.fixture
def fake() -> Any:
    """A cluster in memory: it can be neither listed nor watched here."""
    return FakeCluster()


@pytest.fixture
def cached(fake: Any) -> CachedCluster:
    store = Store()
    return CachedCluster(fake, store, Watches(fake, store, ("airline",), lambda _key: None))


@pytest.fixture
def resource(fake: Any) -> Manifest:
    meta = {"name": KEY.name, "namespace": KEY.namespace}
    found: Manifest = fake.add(
        {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": meta, "spec": {}}
    )
    return found


async def test_only_the_version_that_our_last_status_made_is_an_echo(fake, cached, resource):
    read = resource["metadata"]["resourceVersion"]
    assert not cached.is_echo(KEY, read)

    ours = await cached.write_status(resource, {"summary": "one"})
    fake.edit(ref_of(resource), lambda live: live.update(spec={"serving": {}}))
    theirs = fake.objects[ref_of(resource)]["metadata"]["resourceVersion"]

    assert [cached.is_echo(KEY, version) for version in (read, ours, theirs)] == [False, True, False]


async def test_nothing_is_kept_of_a_resource_that_is_gone(fake, cached, resource):
    version = await cached.write_status(resource, {})
    fake.remove(ref_of(resource))
    assert await cached.get(ref_of(resource)) is None

    assert not cached.is_echo(KEY, version)
