"""The operator with many ModelDeployments: how long, how much memory, how many requests, how soon an edit counts.

    make bench-operator

A control plane of its own (etcd, API server, controller-manager; no node), and the operator as a process with the
chart's rights. The ModelDeployments have no replicas and are prebuilt: their log entries are there already, without
owners, as after a restore. For each number of them the operator is started, settles them, is started again, and is
given edits to single ones. Load comes from the control plane too, which shares the machine's processors; the
controller-manager has its default limit of 20 requests a second for each controller, and catches up later.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import logging
import os
import platform
import random
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from tests.conftest import SPEC, World

from lab.plane import Operator, OwnPlane, operator_on, slipway_plane
from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, Where
from slipway_operator.plan.observed import Manifest

NAMESPACE = "airline"
AT_ONCE = 16
QUIET_SECONDS = 5.0
CONDITION = "slipway_modeldeployment_condition"
WRITES = ("POST", "PATCH", "PUT", "DELETE")


@contextlib.asynccontextmanager
async def client(kubeconfig: Path) -> AsyncIterator[KubernetesCluster]:
    """A client of our own."""
    configuration = Configuration()
    await kube_config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield KubernetesCluster(api)


async def prebuilt(world: World) -> tuple[Manifest, Manifest]:
    """A ModelDeployment without replicas and the log entry that its content was logged with."""
    spec = {**copy.deepcopy(SPEC), "serving": {"replicas": 0}}
    key = world.add("one", NAMESPACE, spec)
    await world.settle(key)
    (entry,) = world.entries()
    return spec, entry


async def seed(plane: OwnPlane, count: int) -> None:
    """Put the entries there as the operator wrote them, then the ModelDeployments."""
    spec, entry = await prebuilt(World())
    gate = asyncio.Semaphore(AT_ONCE)

    async def log(cluster: KubernetesCluster, name: str) -> None:
        labels = {**entry["metadata"]["labels"], "slipway.dev/owner": name}
        meta = {"name": f"{name}-1", "namespace": NAMESPACE, "labels": labels}
        async with gate:
            await cluster.create({**entry, "metadata": meta})

    async def deploy(cluster: KubernetesCluster, name: str) -> None:
        body = {"apiVersion": MODEL_DEPLOYMENT[0], "kind": MODEL_DEPLOYMENT[1], "spec": spec}
        async with gate:
            await cluster.create({**body, "metadata": {"name": name, "namespace": NAMESPACE}})

    plane.kube.namespace(NAMESPACE)
    async with client(plane.kubeconfig()) as operator, client(plane.control.kubeconfig) as person:
        await asyncio.gather(*(log(operator, name_of(n)) for n in range(count)))
        await asyncio.gather(*(deploy(person, name_of(n)) for n in range(count)))


def name_of(number: int) -> str:
    """Name of one ModelDeployment."""
    return f"model-{number:04d}"


async def settled(plane: OwnPlane, count: int, seconds: float) -> None:
    """Wait until every ModelDeployment is Ready, by one watch."""
    ready: set[str] = set()

    def take(item: Manifest) -> None:
        conditions = {c["type"]: c["status"] for c in (item.get("status") or {}).get("conditions", ())}
        (ready.add if conditions.get("Ready") == "True" else ready.discard)(item["metadata"]["name"])

    where = Where(*MODEL_DEPLOYMENT, NAMESPACE)
    async with asyncio.timeout(seconds), client(plane.control.kubeconfig) as cluster:
        items, version = await cluster.list_at(where)
        for item in items:
            take(item)
        while len(ready) < count:
            async for line in cluster.watch(where, selector="", version=version, seconds=600, silence=120):
                if line:
                    item = json.loads(line)["object"]
                    version = item["metadata"]["resourceVersion"]
                    if item.get("spec"):
                        take(item)
                if len(ready) >= count:
                    break


def figures(operator: Operator) -> dict[str, float]:
    """What the operator tells of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def requests(operator: Operator) -> tuple[int, int]:
    """Reads and writes since the operator started."""
    told = figures(operator)
    by_method = {n.partition('"')[2].rstrip('"}'): int(v) for n, v in told.items() if n.startswith("slipway_api_")}
    writes = sum(by_method.get(method, 0) for method in WRITES)
    return sum(by_method.values()) - writes, writes


def looks(operator: Operator) -> int:
    """Looks that ended well since the operator started."""
    return int(figures(operator).get('slipway_reconciles_total{kind="ModelDeployment",result="success"}', 0))


def looked_at(operator: Operator) -> int:
    """ModelDeployments that were looked at since the operator started."""
    return sum(1 for name in figures(operator) if name.startswith(CONDITION) and 'type="Ready"' in name)


def processor_time(plane: OwnPlane, operator: Operator, before: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each process since the operator's start."""
    return {"operator": operator.cpu_seconds(), **{n: s - before[n] for n, s in plane.control.cpu_seconds().items()}}


async def quiet(operator: Operator) -> tuple[int, int]:
    """Wait until nothing is written any more; reads and writes until then."""
    before, since = (-1, -1), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        now = requests(operator)
        if now != before:
            before, since = now, time.monotonic()
        await asyncio.sleep(0.25)
    return before


async def first_run(plane: OwnPlane, count: int) -> dict[str, Any]:
    """Settle all of them from nothing but the log."""
    started = time.monotonic()
    before = plane.control.cpu_seconds()
    with operator_on(plane) as operator:
        await settled(plane, count, 900)
        seconds = time.monotonic() - started
        spent = processor_time(plane, operator, before)
        reads, writes = requests(operator)
        memory = operator.memory()
        later = await quiet(operator)
        told = {
            "seconds": seconds,
            "processorSeconds": spent,
            "readsPerObject": reads / count,
            "writesPerObject": writes / count,
            "memoryMiB": memory,
            # Kubernetes' own controllers have followed too, and nothing is left to do.
            "quiet": {
                "seconds": time.monotonic() - started - QUIET_SECONDS,
                "processorSeconds": processor_time(plane, operator, before),
                "readsPerObject": later[0] / count,
                "writesPerObject": later[1] / count,
                "memoryMiB": operator.memory(),
            },
            "looks": looks(operator),
            "kept": figures(operator)["slipway_kept_objects"],
            "loadAfter": os.getloadavg()[0],
            "controlPlaneMiB": plane.control.memory(),
            "complaints": len(operator.complaints()),
        }
        operator.stop()
    return told


async def second_run(plane: OwnPlane, count: int, edits: int) -> dict[str, Any]:
    """Start anew where all is as it should be, then edit."""
    started = time.monotonic()
    with operator_on(plane, name="second") as operator:
        while looked_at(operator) < count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        seconds = time.monotonic() - started
        reads, writes = await quiet(operator)
        restart = {
            "seconds": seconds,
            "cpuSeconds": operator.cpu_seconds(),
            "writes": writes,
            "readsPerObject": reads / count,
            "memoryMiB": operator.memory(),
        }
        times = await edited(plane, count, edits)
        after = requests(operator)
        told = {
            "edits": edits,
            "medianSeconds": statistics.median(times),
            "worstSeconds": max(times),
            "readsPerEdit": (after[0] - reads) / edits,
            "writesPerEdit": (after[1] - writes) / edits,
        }
        complaints = len(operator.complaints())
        operator.stop()
    return {"restart": restart, "edit": told, "complaints": complaints}


async def edited(plane: OwnPlane, count: int, edits: int) -> list[float]:
    """Seconds from an edit's answer until the Deployment says what was asked for."""
    chosen = random.Random(4).sample(range(count), min(edits, count))  # noqa: S311 - a sample, no secret
    times: list[float] = []
    where = Where("apps/v1", "Deployment", NAMESPACE)
    async with client(plane.control.kubeconfig) as cluster:
        for turn, number in enumerate(chosen):
            name, millis = name_of(number), f"{101 + turn}m"
            selector = f"slipway.dev/owner={name}"
            _, version = await cluster.list_at(where, selector=selector)
            await asyncio.to_thread(edit, plane, name, millis)
            started = time.monotonic()
            async with asyncio.timeout(60):
                async for line in cluster.watch(where, selector=selector, version=version, seconds=60, silence=60):
                    event = json.loads(line) if line else {}
                    if event.get("type") == "MODIFIED" and asks_for(event["object"]) == millis:
                        break
            times.append(time.monotonic() - started)
    return times


def edit(plane: OwnPlane, name: str, millis: str) -> None:
    """Change one ModelDeployment as a person does."""
    change = {"spec": {"serving": {"resources": {"requests": {"cpu": millis}}}}}
    plane.kube.run("patch", "modeldeployment", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))


def asks_for(deployment: Manifest) -> str:
    """The processor share that a Deployment's pods ask for."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return str(container["resources"]["requests"]["cpu"])


async def measure(count: int, edits: int) -> dict[str, Any]:
    """All figures for one number of ModelDeployments."""
    with slipway_plane() as plane:
        await seed(plane, count)
        load = os.getloadavg()[0]
        first = await first_run(plane, count)
        second = await second_run(plane, count, edits)
        lost = await missing(plane, count)
    return {"objects": count, "loadBefore": load, "settle": first, "missing": lost, **second}


async def missing(plane: OwnPlane, count: int) -> int:
    """How many of the objects that each ModelDeployment needs are not there: what was settled is really so."""
    kinds = (
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("policy/v1", "PodDisruptionBudget"),
        ("apps/v1", "ControllerRevision"),
    )
    async with client(plane.control.kubeconfig) as cluster:
        lists = [await cluster.list(Where(api, kind, NAMESPACE), selector="slipway.dev/owner") for api, kind in kinds]
    owned = [item for found in lists for item in found if item["metadata"].get("ownerReferences")]
    return len(kinds) * count - len(owned)


HEAD = "objects  settle s  quiet s  restart s  edit ms  worst   RSS  reads/writes"


def show(row: dict[str, Any]) -> None:
    """Print the figures of one number of ModelDeployments."""
    settle, restart, edit_ = row["settle"], row["restart"], row["edit"]
    quiet_ = settle["quiet"]
    print(
        f"{row['objects']:>7}{settle['seconds']:>10.1f}{quiet_['seconds']:>9.1f}{restart['seconds']:>11.1f}"
        f"{edit_['medianSeconds'] * 1000:>9.0f}{edit_['worstSeconds'] * 1000:>7.0f}"
        f"{max(m['memoryMiB']['peakRss'] for m in (settle, quiet_, restart)):>6.0f}"
        f"  settle {settle['readsPerObject']:.1f}/{settle['writesPerObject']:.1f} an object,"
        f" until quiet {quiet_['readsPerObject']:.1f}/{quiet_['writesPerObject']:.1f},"
        f" restart {restart['readsPerObject']:.2f}/{restart['writes']},"
        f" edit {edit_['readsPerEdit']:.1f}/{edit_['writesPerEdit']:.1f}"
    )
    for what, spent in (("settled", settle["processorSeconds"]), ("quiet", quiet_["processorSeconds"])):
        print(f"{what:>15}: processor time " + ", ".join(f"{name} {s:.1f} s" for name, s in spent.items()), flush=True)


def keep(rows: list[dict[str, Any]]) -> Path:
    """Keep the figures under ``bench-results``."""
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    document = {
        "at": now.isoformat(),
        "machine": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "rows": rows,
    }
    path = results / f"operator-{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(document, indent=1))
    return path


def main() -> None:
    """Measure for each number of ModelDeployments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--edits", type=int, default=20)
    arguments = parser.parse_args()
    # Ours are the same clients as the operator's; what they tell is not asked for here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(HEAD, flush=True)
    rows = []
    for count in arguments.objects:
        rows.append(asyncio.run(measure(count, arguments.edits)))
        show(rows[-1])
    print(keep(rows))


if __name__ == "__main__":
    main()
