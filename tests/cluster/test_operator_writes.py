"""What the operator writes, on a real API server: once, and not again when nothing changed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lab.install import open_lab
from lab.kube import Kube
from slipway_operator.cluster.act import carry_out
from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.errors import GoneError
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.controllers.process import api_client
from slipway_operator.domain import labels
from slipway_operator.domain.errors import Blocked, SlipwayError, Waiting
from slipway_operator.plan.observed import Manifest, Plan, Ref, ref_of


@pytest.fixture(scope="module")
def kube() -> Kube:
    return open_lab().kube


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    name = f"writes-{uuid.uuid4().hex[:6]}"
    kube.namespace(name)
    yield name
    kube.delete("namespace", name, wait=False)


@pytest.fixture
async def cluster(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesCluster]:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    async with await api_client() as api:
        yield KubernetesCluster(api)


def without_owner(manifest: Manifest) -> Manifest:
    """No resource stands behind these: an owner reference would lead nowhere, and the collector would tidy up."""
    meta = {n: v for n, v in manifest["metadata"].items() if n not in {"ownerReferences", "resourceVersion"}}
    return {**manifest, "metadata": meta}


@pytest.mark.parametrize("delivery", ["ImageVolume", "InitContainer"])
@pytest.mark.parametrize("autoscaled", [False, True])
async def test_what_was_applied_is_not_applied_again(
    world: Any, cluster: KubernetesCluster, namespace: str, delivery: str, autoscaled: bool
) -> None:
    """Defaults and the API server's own forms of quantities are no difference."""
    world.settings = world.settings.model_copy(update={"model_delivery": delivery})
    key = world.add(f"twice-{delivery.lower()}-{int(autoscaled)}", namespace)
    if autoscaled:
        world.edit(
            key,
            "serving",
            {
                "autoscaling": {"maxReplicas": 4},
                "resources": {"requests": {"cpu": "0.25"}, "limits": {"memory": "1024Mi"}},
            },
        )
    await world.settle(key)
    plan = Plan(apply=tuple(without_owner(m) for m in (await world.plan(key)).apply))
    await carry_out(cluster, plan, ())
    seen = await cluster.list_owned(namespace, key.name)
    before = {ref_of(m): m["metadata"]["managedFields"] for m in seen}

    applied: list[str] = []
    original = cluster.apply

    async def apply(manifest: Manifest) -> Manifest:
        applied.append(manifest["kind"])
        return await original(manifest)

    cluster.apply = apply  # type: ignore[method-assign]
    await carry_out(cluster, plan, seen)

    assert applied == []
    assert len(before) >= len(plan.apply)
    for manifest in plan.apply:
        await cluster.delete(ref_of(manifest))


async def test_drift_of_a_field_of_ours_is_corrected_and_a_foreign_field_stays(
    world: Any, cluster: KubernetesCluster, namespace: str, kube: Kube
) -> None:
    key = world.add("drift", namespace)
    await world.settle(key)
    plan = Plan(apply=tuple(without_owner(m) for m in (await world.plan(key)).apply if m["kind"] == "Service"))
    await carry_out(cluster, plan, ())
    kube.run(
        "patch", "service", "drift", "-n", namespace, "--type=merge", "-p",
        '{"spec":{"selector":{"slipway.dev/lane":"elsewhere"},"sessionAffinity":"ClientIP"}}',
    )  # fmt: skip

    await carry_out(cluster, plan, await cluster.list_owned(namespace, "drift"))

    service = kube.get("service", "drift", namespace) or {}
    assert service["spec"]["selector"] == plan.apply[0]["spec"]["selector"]
    assert service["spec"]["sessionAffinity"] == "ClientIP"


async def test_a_field_that_the_plan_drops_goes(world: Any, cluster: KubernetesCluster, namespace: str) -> None:
    policy: Manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "drops", "namespace": namespace, "labels": labels.owned("drops")},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    await carry_out(cluster, Plan(apply=(policy,)), ())
    closed = {**policy, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}

    await carry_out(cluster, Plan(apply=(closed,)), await cluster.list_owned(namespace, "drops"))

    found = await cluster.get(ref_of(policy))
    assert found is not None
    assert "egress" not in found["spec"]
    assert world is not None


async def test_an_object_of_somebody_else_is_not_taken_over(cluster: KubernetesCluster, namespace: str) -> None:
    mine: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": namespace},
        "data": {"a": "1"},
    }
    assert await cluster.create(mine)
    assert not await cluster.create(mine), "the second writer is told"
    ours = {**mine, "metadata": {**mine["metadata"], "labels": labels.owned("x")}, "data": {"a": "2"}}

    with pytest.raises(Blocked, match="does not belong to Slipway"):
        await carry_out(cluster, Plan(apply=(ours,)), ())

    found = await cluster.get(ref_of(mine))
    assert found is not None
    assert found["data"] == {"a": "1"}


async def test_an_object_that_changed_since_it_was_read_is_looked_at_again(
    cluster: KubernetesCluster, namespace: str
) -> None:
    first: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "changes", "namespace": namespace, "labels": labels.owned("x")},
        "data": {"a": "1"},
    }
    old = await cluster.apply(first)
    await cluster.apply({**first, "data": {"a": "2"}})
    meta = {**first["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}

    with pytest.raises(ConflictError):
        await cluster.apply({**first, "metadata": meta, "data": {"a": "3"}})


async def test_what_the_api_server_refuses_has_a_reason(cluster: KubernetesCluster, namespace: str, kube: Kube) -> None:
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": namespace},
            "spec": {"hard": {"count/jobs.batch": "0"}},
        }
    )
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "too-much", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}},
    }

    async def refusal() -> SlipwayError | None:
        try:
            await cluster.create(job)
        except SlipwayError as error:
            return error
        await cluster.delete(ref_of(job))
        return None

    # The quota counts a moment after it was made.
    async with asyncio.timeout(60):
        while (error := await refusal()) is None:  # noqa: ASYNC110 - the API server has no event for it
            await asyncio.sleep(0.1)
    assert isinstance(error, Waiting)
    assert error.reason == "QuotaExceeded"
    invalid = {**job, "metadata": {**job["metadata"], "name": "Not A Name"}}
    with pytest.raises(Blocked):
        await cluster.create(invalid)


async def test_a_namespace_that_is_going_ends_quietly(cluster: KubernetesCluster, kube: Kube) -> None:
    name = f"going-{uuid.uuid4().hex[:6]}"
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name},
            "spec": {"finalizers": ["kubernetes", "slipway.test/hold"]},
        }
    )
    kube.delete("namespace", name, wait=False)
    config: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": name}}
    try:
        with pytest.raises(GoneError):
            await cluster.create(config)
    finally:
        gone: Manifest = {
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []},
        }  # fmt: skip
        await cluster.call("PUT", f"/api/v1/namespaces/{name}/finalize", body=gone)
    assert await cluster.get(Ref("v1", "ConfigMap", name, "x")) is None


async def test_a_long_list_comes_whole(
    cluster: KubernetesCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slipway_operator.cluster.client.PAGE", 2)
    for number in range(5):
        await cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"page-{number}", "namespace": namespace, "labels": labels.owned("pages")},
            }
        )

    found = await cluster.list_owned(namespace, "pages")

    assert [m["metadata"]["name"] for m in found] == [f"page-{number}" for number in range(5)]
    assert {m["kind"] for m in found} == {"ConfigMap"}
