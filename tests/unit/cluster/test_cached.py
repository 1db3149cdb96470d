"""The store before the cluster: what of it needs no control plane (`tests/faults` has the rest)."""

from __future__ import annotations

from typing import Any

import pytest

from slipway_operator.cluster import cached as room
from slipway_operator.cluster.cached import CachedCluster
from slipway_operator.cluster.fake import FakeCluster
from slipway_operator.cluster.store import Store
from slipway_operator.cluster.watching import Watches
from slipway_operator.domain.errors import Waiting
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


class Listed(FakeCluster):
    """Lists that show the version that the test says, of one kind; the others show the newest."""

    shows = 99

    async def list_at(self, where, *, selector):
        del selector
        return [], str(self.shows if where.kind == "Job" else 99)


class Current:
    """Watches that have brought everything up to a version."""

    are_current = True
    reached = 99

    async def synced(self) -> None:
        return


@pytest.fixture
def listed() -> Any:
    return Listed()


@pytest.fixture
def watches() -> Any:
    return Current()


@pytest.fixture
async def looking(listed: Any, watches: Any) -> CachedCluster:
    """A new operator that has read a resource, in version 3, that another one wrote a status for."""
    meta = {"name": KEY.name, "namespace": KEY.namespace}
    made = listed.add({"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": meta})
    await listed.write_status(made, {"summary": "one"})
    looking = CachedCluster(listed, Store(), watches)
    await looking.get(ref_of(made))
    return looking


async def test_lists_from_before_the_resource_are_not_believed(listed, looking):
    listed.shows = 2
    with pytest.raises(Waiting, match="older than what it gave before"):
        await looking.list_owned(*KEY, anew=True)

    listed.shows = 3
    assert await looking.list_owned(*KEY) == []
    assert looking.is_certain(KEY)


async def test_versions_that_have_nothing_to_do_with_each_other_keep_nothing_for_ever(listed, looking, monkeypatch):
    listed.shows = 2
    with pytest.raises(Waiting):
        await looking.list_owned(*KEY, anew=True)

    monkeypatch.setattr(room, "BEHIND_SECONDS", 0.0)
    assert await looking.list_owned(*KEY, anew=True) == []


async def test_a_store_from_before_the_resource_is_not_believed(watches, looking):
    watches.reached = 2
    await looking.list_owned(*KEY)
    assert looking.is_certain(KEY), "it was read anew"

    await looking.list_owned(*KEY)
    assert not looking.is_certain(KEY), "from then on the watches keep it"

    await looking.list_owned(*KEY)
    assert looking.is_certain(KEY), "what was doubted is read anew"


async def test_an_old_log_allows_no_write(listed, looking, monkeypatch):
    await looking.list_owned(*KEY)
    monkeypatch.setattr(room, "LOG_KIND", ("batch/v1", "Job"))
    listed.shows = 2
    with pytest.raises(Waiting):
        await looking.is_newest(KEY, [])
