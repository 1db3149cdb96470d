"""Cases of faults: one ModelDeployment in a namespace of its own, an operator that may be killed, and what must be.

The operator of a case is the real one but for kopf: workers, planner, store and client, in this process, so that it
can be ended at one certain write. Cases run beside each other on one API server.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import structlog
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from lab.plane import Plane, start_operator
from lab.player import MERGE, Player
from lab.proxy import Asked, Proxy, Script, proxy
from slipway_operator.cluster.cached import CachedCluster
from slipway_operator.cluster.client import KubernetesCluster, NotFoundError
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, OWNED, Where, object_path
from slipway_operator.cluster.store import Store
from slipway_operator.cluster.watching import Watches
from slipway_operator.controllers.metrics import Metrics
from slipway_operator.controllers.reconcile import Reconciler, Room
from slipway_operator.controllers.workers import Workers
from slipway_operator.domain import labels
from slipway_operator.domain.errors import SlipwayError
from slipway_operator.domain.keys import Key
from slipway_operator.domain.revisions import read_log
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Ref

NAME = "flight-delay"
REACHED_SECONDS = 60.0
STAYS_SECONDS = 1.5
PREPARED_SECONDS = 180.0
"""What comes before a fault is not what is tried; on a busy machine it takes its time."""
RECURRING = frozenset({"resolve", "verify", "remove"})
SPEC: Manifest = {
    "source": {"git": {"url": "https://git.test/airline/flight-delay.git", "ref": "v1.0.0"}},
    "model": {"path": "model.joblib", "example": "data/sample.csv"},
    "serving": {"replicas": 1},
}


@contextlib.contextmanager
def traced() -> Iterator[list[str]]:
    """Keep what the operator logs as a bug, and print nothing of the rest."""
    found: list[str] = []

    def keep(_logger: object, method: str, event: MutableMapping[str, Any]) -> Manifest:
        if method in {"error", "exception", "critical"} or event.get("exc_info"):
            found.append(f"{event.get('event')}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    try:
        yield found
    finally:
        structlog.configure(**before)


@contextlib.asynccontextmanager
async def opened(plane: Plane) -> AsyncIterator[Bench]:
    """A bench with a proxy before the plane's API server."""
    configuration = Configuration()
    await kube_config.load_kube_config(str(plane.control.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    async with proxy(plane.control.server, plane.control.authority) as served, ApiClient(configuration) as api:
        yield Bench(plane, served, KubernetesCluster(api))


class Life:
    """The operator from its start until it is killed."""

    def __init__(self, url: str, token: str, settings: Settings) -> None:
        configuration = Configuration(host=url)
        configuration.api_key["BearerToken"] = f"Bearer {token}"
        self._api = ApiClient(configuration)
        (self._namespace,) = settings.namespaces
        self._cluster = KubernetesCluster(self._api)
        store = Store()
        watches = Watches(self._cluster, store, settings.namespaces, self._ring)
        room = Room(
            cluster=CachedCluster(self._cluster, store, watches),
            settings=settings,
            now=lambda: datetime.now(UTC),
            image_volumes=_image_volumes,
            ask_pods=_no_figures,
        )
        self._workers: Workers[Key] = Workers(Reconciler(room).model_deployment, Metrics(), kind="ModelDeployment")
        self._tasks = [asyncio.create_task(watches.keep()), asyncio.create_task(self._keep_ringing())]

    def kill(self) -> None:
        """End at once: nothing more is sent."""
        self._workers._closed = True  # noqa: SLF001 - a process that is gone starts no worker
        for task in (*self._tasks, *self._workers._tasks.values()):  # noqa: SLF001 - nor finishes one
            task.cancel()

    async def close(self) -> None:
        """Free what the process would have left to the kernel."""
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._workers.close(grace=0.01)
        await self._api.close()  # type: ignore[no-untyped-call]  # the client has no types

    def _ring(self, key: Key) -> None:
        self._workers.ring(key)

    async def _keep_ringing(self) -> None:
        """What kopf does: ring at each event of the resource."""
        where = Where(*MODEL_DEPLOYMENT, self._namespace)
        while True:
            with contextlib.suppress(SlipwayError):
                items, version = await self._cluster.list_at(where)
                for item in items:
                    self._ring(Key(self._namespace, item["metadata"]["name"]))
                watch = self._cluster.watch(where, selector="", version=version, seconds=20, silence=20)
                async for line in watch:
                    event = json.loads(line) if line else {}
                    if event.get("type") in {"ADDED", "MODIFIED", "DELETED"}:
                        self._ring(Key(self._namespace, event["object"]["metadata"]["name"]))
            await asyncio.sleep(0.2)


async def _image_volumes() -> bool | None:
    return True


async def _no_figures(_pods: Sequence[Manifest]) -> Mapping[str, Any]:
    return {}


class Process:
    """The operator as it is installed, as a process of its own."""

    def __init__(self, plane: Plane, url: str, settings: Settings) -> None:
        (namespace,) = settings.namespaces
        path = plane.folder / f"{namespace}.yaml"
        path.write_text(json.dumps(settings.model_dump(mode="json", by_alias=True)))
        self._operator = start_operator(replace(plane, settings=path), server=url, name=namespace)

    def kill(self) -> None:
        """End at once, as a node that fails does."""
        self._operator.process.kill()

    async def close(self) -> None:
        """Collect what ended; what it logged as a bug is a failure.

        Raises:
            AssertionError: it logged a trace or an error.
        """
        self.kill()
        await asyncio.to_thread(self._operator.process.wait)
        complaints = self._operator.complaints()
        if complaints:
            raise AssertionError(f"the operator's log: {complaints[:3]}")


@dataclass
class Case:
    """One namespace with its operator, its player and its faults."""

    plane: Plane
    proxy: Proxy
    person: KubernetesCluster
    namespace: str
    script: Fault
    settings: Settings
    process: bool = False
    life: Life | Process | None = None
    wrong: list[str] = field(default_factory=list)
    """What was not as it must be on the way."""
    _old: list[Life | Process] = field(default_factory=list)

    @property
    def ref(self) -> Ref:
        """The ModelDeployment."""
        return Ref(*MODEL_DEPLOYMENT, self.namespace, NAME)

    def start(self) -> None:
        """Start the operator."""
        if self.process:
            self.life = Process(self.plane, self.proxy.url, self.settings)
        else:
            self.life = Life(self.proxy.url, self.plane.token, self.settings)
        self._old.append(self.life)

    def crash(self) -> None:
        """Kill the operator; another starts at once, as the kubelet would do."""
        if self.life is not None:
            self.life.kill()
            self.life = None
            asyncio.get_running_loop().call_soon(self.start)

    async def close(self) -> None:
        """End the operator and all that were killed."""
        for life in self._old:
            await life.close()

    # A person's part

    async def create(self, **spec: Any) -> None:
        """Create the ModelDeployment."""
        body = {"apiVersion": MODEL_DEPLOYMENT[0], "kind": MODEL_DEPLOYMENT[1], "spec": {**SPEC, **spec}}
        await self.person.create({**body, "metadata": {"name": NAME, "namespace": self.namespace}})

    async def edit(self, change: Manifest) -> None:
        """Change the spec."""
        await self.person.call("PATCH", object_path(self.ref), body={"spec": change}, media=MERGE)

    async def version(self, ref: str) -> None:
        """Ask for another version."""
        await self.edit({"source": {"git": {"ref": ref}}})

    async def annotate(self, verb: str, value: str) -> None:
        """Ask for something by annotation."""
        body = {"metadata": {"annotations": {f"slipway.dev/{verb}": value}}}
        await self.person.call("PATCH", object_path(self.ref), body=body, media=MERGE)

    async def until(self, reason: str, *, revision: int | None = None, seconds: float = PREPARED_SECONDS) -> None:
        """Wait until Ready has a reason (and a revision is live).

        Raises:
            TimeoutError: it never had.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = await self.person.get(self.ref)
            status = (found or {}).get("status") or {}
            ready: Manifest = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
            live = (status.get("live") or {}).get("revision")
            observed = status.get("observedGeneration") == (found or {}).get("metadata", {}).get("generation")
            if ready.get("reason") == reason and observed and revision in {None, live}:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {reason} (revision {revision}), and it is {status.get('summary')!r}")
            await asyncio.sleep(0.2)

    # What there is

    async def picture(self) -> Manifest:
        """What there is, but for times and for names that hold a hash."""
        resource = await self.person.get(self.ref)
        lists = await asyncio.gather(
            *(self.person.list(Where(api, kind, self.namespace), selector=labels.OWNER) for api, kind in OWNED)
        )
        objects = [item for found in lists for item in found]
        if resource is None:
            return {"left": sorted(f"{o['kind']}/{o['metadata']['name']}" for o in objects if o["kind"] != "Pod")}
        return picture_of(resource, objects)

    async def check_served(self, asked: Asked) -> None:
        """After a write: what the Service selects has a pod that is ready."""
        service = await self.person.get(Ref("v1", "Service", self.namespace, NAME))
        if service is None:
            return
        selector = ",".join(f"{name}={value}" for name, value in service["spec"]["selector"].items())
        pods = await self.person.list(Where("v1", "Pod", self.namespace), selector=selector)
        ready = [p for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]
        if not ready:
            self.wrong.append(f"after {asked} no pod answered")


def picture_of(resource: Manifest, objects: Sequence[Manifest]) -> Manifest:
    """As `Case.picture`."""
    uid, status = resource["metadata"]["uid"], resource.get("status") or {}
    revisions = [o for o in objects if o["kind"] == "ControllerRevision"]
    entries, faults = read_log(revisions)
    order: dict[str, int] = {}
    for logged in entries:
        order.setdefault(logged.entry.digests.short, len(order) + 1)

    def content(short: str | None) -> Any:
        return order.get(short, "new") if short else None

    # What is done again and again by the clock has no end to compare.
    jobs = [o for o in objects if o["kind"] == "Job" and o["metadata"]["labels"][labels.STEP] not in RECURRING]
    keys = collections.Counter(
        (o["metadata"]["labels"][labels.STEP], o["metadata"]["labels"][labels.KEY]) for o in jobs
    )
    return {
        "faults": list(faults),
        "entries": [
            [e.number, str(e.entry.cause), content(e.entry.digests.short), e.entry.undoes, e.entry.restores,
             len(e.entry.holds), e.entry.request_id]
            for e in entries
        ],
        "twice": sorted(step for (step, _), number in keys.items() if number > 1),
        "again": sorted(o["metadata"]["name"] for o in jobs if not o["metadata"]["name"].endswith("-1")),
        "deployments": sorted(
            [str(content(marks.get(labels.CONTENT))), str(content(marks.get(labels.CANARY))), o["spec"]["replicas"],
             (o.get("status") or {}).get("availableReplicas", 0)]
            for o in objects if o["kind"] == "Deployment" for marks in [o["metadata"]["labels"]]
        ),
        "lane": [
            content((o["spec"].get("selector") or {}).get(labels.LANE)) for o in objects if o["kind"] == "Service"
        ],
        "kinds": dict(collections.Counter(
            o["kind"] for o in objects if o["kind"] not in {"Pod", "Job", "ControllerRevision", "Deployment"}
        )),
        "orphans": sorted(
            f"{o['kind']}/{o['metadata']['name']}" for o in objects
            if o["kind"] != "Pod" and uid not in {r["uid"] for r in o["metadata"].get("ownerReferences") or ()}
        ),
        "running": sorted(o["metadata"]["labels"][labels.STEP] for o in jobs if not (o["status"].get("conditions"))),
        "conditions": {c["type"]: [c["status"], c["reason"]] for c in status.get("conditions", ())},
        "live": [content((status.get("live") or {}).get("content")), (status.get("live") or {}).get("revision")],
        "held": [content(h["content"]) for h in status.get("held") or ()],
        "requests": [[r["verb"], r["id"], r["state"]] for r in status.get("requests") or ()],
        "steps": [[s["name"], s["state"]] for s in status.get("steps") or ()],
    }  # fmt: skip


Act = Callable[[Case], Awaitable[None]]


@dataclass(frozen=True)
class Flow:
    """Something that people do, and what comes before it undisturbed."""

    name: str
    prepare: Act
    act: Act


async def _nothing(_case: Case) -> None:
    return None


async def _first(case: Case) -> None:
    await case.create()
    await case.until("Serving", revision=1)


async def _second(case: Case) -> None:
    await _first(case)
    await case.version("v2")
    await case.until("Serving", revision=2)


async def _rolled_back(case: Case) -> None:
    await _second(case)
    await case.annotate("rollback", "previous@r-1")
    await case.until("RolledBack", revision=3)


async def _with_canary(case: Case) -> None:
    await case.create(rollout={"canary": {"pods": 1, "for": "10m"}})
    await case.until("Serving", revision=1)


async def _at_canary(case: Case) -> None:
    await _with_canary(case)
    await case.version("v2")
    await case.until("Canary")


async def _create(case: Case) -> None:
    await case.create()


async def _update(case: Case) -> None:
    await case.version("v2")


async def _roll_back(case: Case) -> None:
    await case.annotate("rollback", "previous@r-1")


async def _resume(case: Case) -> None:
    await case.annotate("resume", "now@s-1")


async def _canary_then_promote(case: Case) -> None:
    await case.version("v2")
    await case.until("Canary")
    await case.annotate("promote", "now@p-1")


async def _abort(case: Case) -> None:
    await case.annotate("abort", "now@a-1")


async def _delete(case: Case) -> None:
    await case.person.delete(case.ref)


FLOWS = (
    Flow("create", _nothing, _create),
    Flow("update", _first, _update),
    Flow("rollback", _second, _roll_back),
    Flow("resume", _rolled_back, _resume),
    Flow("canary", _with_canary, _canary_then_promote),
    Flow("abort", _at_canary, _abort),
    Flow("delete", _first, _delete),
)


class Bench:
    """Runs cases, some at the same time."""

    def __init__(self, plane: Plane, proxy: Proxy, person: KubernetesCluster, *, at_once: int = 8) -> None:
        self._plane = plane
        self._proxy = proxy
        self._person = person
        self._settings = Settings.model_validate(_settings(plane))
        self._gate = asyncio.Semaphore(at_once)
        self._numbers = iter(range(1, 1_000_000))

    async def run(
        self,
        flow: Flow,
        script: Callable[[], Fault],
        *,
        wanted: Manifest | None = None,
        more: float = 0,
        process: bool = False,
    ) -> tuple[Manifest, Case]:
        """Run one case.

        Args:
            flow: What is done.
            script: Makes the faults, which begin when the flow does.
            wanted: What must be reached; None: whatever an undisturbed run ends in.
            more: Seconds that the faults themselves take.
            process: The operator is a process of its own, with kopf.

        Returns:
            What was reached, and the case.
        """
        async with self._gate:
            namespace = f"{flow.name}-{next(self._numbers)}"
            await self._person.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            faults = script()
            settings = self._settings.model_copy(update={"namespaces": (namespace,)})
            case = Case(self._plane, self._proxy, self._person, namespace, faults, settings, process)
            self._proxy.scripts[namespace] = faults
            player = asyncio.create_task(Player(self._person, namespace).play())
            await self._wait_for_account(namespace)
            case.start()
            try:
                await flow.prepare(case)
                await self._rest(case)
                faults.begin(case)
                await flow.act(case)
                return await self._reach(case, wanted, REACHED_SECONDS + more), case
            finally:
                player.cancel()
                await asyncio.gather(player, return_exceptions=True)
                await case.close()

    async def _reach(self, case: Case, wanted: Manifest | None, seconds: float) -> Manifest:
        deadline = time.monotonic() + seconds
        seen: Manifest = {}
        while time.monotonic() < deadline:
            writes = len(case.script.writes)
            seen = await case.picture()
            if wanted is None or seen == wanted:
                await asyncio.sleep(STAYS_SECONDS)
                if await case.picture() == seen and len(case.script.writes) == writes and not _is_moving(seen):
                    return seen
            await asyncio.sleep(0.3)
        raise TimeoutError(f"not reached within {seconds:.0f} s: {difference(wanted or {}, seen)}")

    async def _rest(self, case: Case) -> None:
        """Wait until the operator writes nothing more, so that the faults begin with the flow."""
        before = -1
        while before != len(case.script.writes):
            before = len(case.script.writes)
            await asyncio.sleep(1.0)

    async def _wait_for_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        while True:
            with contextlib.suppress(NotFoundError):
                await self._person.call("GET", path)
                return
            await asyncio.sleep(0.05)


class Fault(Script):
    """A script that knows its case, and looks after each write whether predictions go on."""

    case: Case | None = None

    def __init__(self) -> None:
        super().__init__()
        self.begun = False

    def begin(self, case: Case) -> None:
        """The flow begins."""
        self.writes.clear()
        self.case, self.begun = case, True

    async def done(self, asked: Asked) -> None:
        """See that what is live has a pod."""
        if self.case is not None and asked.plural in {"services", "deployments"}:
            await self.case.check_served(asked)


def difference(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """Where two pictures differ, in words."""
    return "; ".join(
        f"{name} is {seen.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted({*wanted, *seen})
        if wanted.get(name) != seen.get(name)
    )


def _is_moving(picture: Mapping[str, Any]) -> bool:
    if "left" in picture:
        return bool(picture["left"])
    return bool(picture["conditions"].get("Reconciling", ["True"])[0] == "True")


def _settings(plane: Plane) -> Manifest:
    found: Manifest = yaml.safe_load(plane.settings.read_text())
    return found


def numbers(total: int, *, all_of_them: bool, sample: int) -> Iterator[int]:
    """Which writes of a flow are disturbed: each, or some spread over it."""
    if all_of_them or total <= sample:
        yield from range(1, total + 1)
    elif sample == 1:
        yield (total + 1) // 2
    else:
        yield from sorted({1 + round(step * (total - 1) / (sample - 1)) for step in range(sample)})
