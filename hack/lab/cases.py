"""One case of faults: a namespace with a ModelDeployment, an operator that may be killed, and what a person does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lab.faults import Fault
from lab.lives import Life, Process
from lab.pictures import conditions_of, picture_of
from lab.plane import Plane
from lab.player import MERGE, Player
from lab.proxy import Asked, Proxy
from slipway_operator.cluster.client import KubernetesCluster, NotFoundError
from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, OWNED, Where, object_path
from slipway_operator.domain import labels
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.attempts import MAKING
from slipway_operator.plan.observed import Manifest, Ref

NAME = "flight-delay"
APPLY = "application/apply-patch+yaml"
PREPARED_SECONDS = 60.0
SPEC: Manifest = {
    "source": {"git": {"url": "https://git.test/airline/flight-delay.git", "ref": "v1.0.0"}},
    "model": {"path": "model.joblib", "example": "data/sample.csv"},
    "serving": {"replicas": 1},
}


@dataclass
class Case:
    """One namespace with its operator, its player and its faults."""

    plane: Plane
    proxy: Proxy
    person: KubernetesCluster
    namespace: str
    script: Fault
    settings: Settings
    player: Player
    process: bool = False
    life: Life | Process | None = None
    patience: float = PREPARED_SECONDS
    """Seconds that a state is waited for."""
    counted: int = 0
    """The operator's writes."""
    seconds: float = 0.0
    """From the flow to its end."""
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
            # The proxy learns only by the next event that nobody listens.
            self.script.watches.clear()
            asyncio.get_running_loop().call_soon(self.start)

    def restart(self) -> Callable[[], Awaitable[None]]:
        """Kill the operator and start another; gives what waits for its first look."""
        if self.life is not None:
            self.life.kill()
        self.start()
        started = self.life

        async def looked() -> None:
            if isinstance(started, Life):
                await started.looked()

        return looked

    def disturb(self, fault: Fault) -> None:
        """From now on this goes wrong, and no longer what went wrong before."""
        fault.take_over(self.script)
        self.script = self.proxy.scripts[self.namespace] = fault
        fault.begin(self)

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

    async def apply(self, spec: Manifest) -> None:
        """Make this the spec, as tools do that have it in a file."""
        body = {"apiVersion": MODEL_DEPLOYMENT[0], "kind": MODEL_DEPLOYMENT[1], "spec": spec}
        body["metadata"] = {"name": NAME, "namespace": self.namespace}
        query = [("fieldManager", "somebody"), ("force", "true")]
        await self.person.call("PATCH", object_path(self.ref), query=query, body=body, media=APPLY)

    async def version(self, ref: str) -> None:
        """Ask for another version."""
        await self.edit({"source": {"git": {"ref": ref}}})

    async def annotate(self, verb: str, value: str) -> None:
        """Ask for something by annotation; what is gone is asked nothing."""
        body = {"metadata": {"annotations": {f"slipway.dev/{verb}": value}}}
        with contextlib.suppress(NotFoundError):
            await self.person.call("PATCH", object_path(self.ref), body=body, media=MERGE)

    async def until(self, reason: str, *, revision: int | None = None) -> None:
        """Wait until Ready has a reason (and a revision is live), or there is nothing that could.

        Raises:
            TimeoutError: it never had.
        """
        deadline = time.monotonic() + self.patience
        while True:
            found = await self.person.get(self.ref)
            if found is None:
                return
            status = found.get("status") or {}
            ready: Manifest = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
            live = (status.get("live") or {}).get("revision")
            observed = status.get("observedGeneration") == found["metadata"]["generation"]
            if ready.get("reason") == reason and observed and revision in {None, live}:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited for {reason} (revision {revision}), and it is {status.get('summary')!r}")
            await asyncio.sleep(0.2)

    # What there is

    async def there_is(self) -> tuple[Manifest | None, list[Manifest]]:
        """The ModelDeployment, and all that carries its label."""
        resource = await self.person.get(self.ref)
        lists = await asyncio.gather(
            *(self.person.list(Where(api, kind, self.namespace), selector=labels.OWNER) for api, kind in OWNED)
        )
        return resource, [item for found in lists for item in found]

    async def picture(self) -> Manifest:
        """What there is, but for times and for names that hold a hash."""
        resource, objects = await self.there_is()
        if resource is None:
            return {"left": sorted(f"{o['kind']}/{o['metadata']['name']}" for o in objects if o["kind"] != "Pod")}
        return picture_of(resource, objects)

    async def may_be_in(self, wanted: Manifest | None) -> bool:
        """Whether the conditions, which are cheap to read, are those of a picture; None: of any end."""
        resource = await self.person.get(self.ref)
        if resource is None:
            return wanted is None or "left" in wanted
        told = conditions_of(resource)
        return told == wanted.get("conditions") if wanted is not None else told.get("Reconciling", [""])[0] == "False"

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

    def made_twice(self) -> list[str]:
        """Steps that more than one Job ran for, of those that must be run once."""
        return [
            f"{step} was run by {sorted(jobs)}"
            for (step, _), jobs in self.player.played.items()
            if step in MAKING and len(jobs) > 1
        ]
