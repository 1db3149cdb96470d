"""A log that is put back after its ModelDeployment was deleted: the same content serves, and nothing is built."""

from __future__ import annotations

import asyncio

from kubernetes.aio.client import ApiClient, Configuration

from lab.bench import Trial, opened
from lab.cases import NAME, Case
from lab.faults import Fault
from lab.flows import Flow
from lab.lives import traced
from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.plan.observed import Ref


async def _prepare(case: Case) -> None:
    await case.create()
    await case.until("Serving", revision=1)


async def _restore(case: Case) -> None:
    entry = await case.person.get(Ref("apps/v1", "ControllerRevision", case.namespace, f"{NAME}-1"))
    assert entry is not None
    await case.person.delete(case.ref)
    while (await case.picture()).get("left", ["itself"]):  # noqa: ASYNC110 - the garbage collector rings for nobody
        await asyncio.sleep(0.2)
    case.script.writes.clear()
    meta = {"name": f"{NAME}-1", "namespace": case.namespace, "labels": entry["metadata"]["labels"]}
    # Escapes and letters that two JSON writers write in two ways.
    data = {**entry["data"], "why": "5→3: <b>a & b</b> \u2028 “q”"}
    configuration = Configuration(host=case.proxy.url)
    configuration.api_key["BearerToken"] = f"Bearer {case.plane.token}"
    async with ApiClient(configuration) as api:
        assert await KubernetesCluster(api).create({**entry, "metadata": meta, "data": data})
    case.script.writes.clear()
    await case.create()


async def test_a_restored_log_is_adopted_and_builds_nothing(plane, count):
    with traced() as bugs:
        async with opened(plane) as bench:
            seen, case = await bench.run(Flow("restore", _prepare, _restore), Trial("log restored", Fault), None)
    count("restore", ["log restored"])

    assert (seen["faults"], seen["orphans"]) == ([], [])
    assert [row[:2] for row in seen["entries"]] == [[1, "SpecChange"]]
    assert seen["conditions"]["Ready"] == ["True", "Serving"]
    assert [str(w) for w in case.script.writes if w.method == "POST" and w.plural == "jobs"] == []
    assert bugs == []
