"""Runs cases of faults beside each other on one API server, each in a namespace that nobody had before."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from lab.cases import Case
from lab.faults import Fault
from lab.flows import Flow
from lab.pictures import difference, is_moving
from lab.plane import Plane
from lab.player import Player
from lab.proxy import Proxy, proxy
from slipway_operator.cluster.client import KubernetesCluster, NotFoundError
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Ref

REACHED_SECONDS = 60.0
STAYS_SECONDS = 1.5
AT_ONCE = 16
WAITING_AT_ONCE = 48
"""Cases that wait most of the time."""
PREPARED_AT_ONCE = 10


@dataclass(frozen=True)
class Trial:
    """One flow with one fault."""

    what: str
    """The fault, for people."""
    fault: Callable[[], Fault]
    where: str = ""
    """At what it happens, for people."""
    process: bool = False
    """The operator is a process of its own, with kopf."""

    def __str__(self) -> str:
        return f"{self.what} {self.where}".strip()


@contextlib.asynccontextmanager
async def opened(plane: Plane) -> AsyncIterator[Bench]:
    """A bench with a proxy before the plane's API server."""
    configuration = Configuration()
    await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
        str(plane.kube.kubeconfig), context=plane.kube.context, client_configuration=configuration
    )
    configuration.connection_pool_maxsize = 0
    async with proxy(plane.server, plane.authority) as served, ApiClient(configuration) as api:
        yield Bench(plane, served, KubernetesCluster(api))


class Bench:
    """Where cases run."""

    def __init__(self, plane: Plane, served: Proxy, person: KubernetesCluster) -> None:
        self._plane = plane
        self._proxy = served
        self._person = person
        self._preparing = asyncio.Semaphore(PREPARED_AT_ONCE)
        self._settings = Settings.model_validate(yaml.safe_load(plane.settings.read_text()))

    async def undisturbed(self, flow: Flow) -> tuple[Manifest, int]:
        """Run a flow that nothing disturbs, once on a control plane.

        Returns:
            What it ends in, and the number of the operator's writes.

        Raises:
            AssertionError: something was wrong even so.
        """
        if flow.name not in self._plane.ends:
            reached, case = await self.run(flow, Trial("nothing", Fault), None)
            if case.wrong:
                raise AssertionError(f"{flow.name}, undisturbed: {case.wrong}")
            self._plane.ends[flow.name] = reached, case.counted
        known: tuple[Manifest, int] = self._plane.ends[flow.name]
        return known

    async def failures(
        self, flow: Flow, trials: Sequence[Trial], wanted: Manifest, *, at_once: int = AT_ONCE
    ) -> list[str]:
        """Run a flow with each of some faults, and say what was not as it must be."""
        gate = asyncio.Semaphore(at_once)

        async def one(trial: Trial) -> list[str]:
            async with gate:
                try:
                    _, case = await self.run(flow, trial, wanted)
                except (TimeoutError, AssertionError) as error:
                    return [f"{flow.name}, {trial}: {error}"]
                return [f"{flow.name}, {trial}: {wrong}" for wrong in case.wrong]

        return [failure for found in await asyncio.gather(*map(one, trials)) for failure in found]

    async def run(self, flow: Flow, trial: Trial, wanted: Manifest | None) -> tuple[Manifest, Case]:
        """Run one case.

        Args:
            flow: What is done.
            trial: What disturbs it.
            wanted: What must be reached; None: whatever it settles in.

        Returns:
            What was reached, and the case.

        Raises:
            TimeoutError: it was not reached in time.
            AssertionError: it did not stay, or something was wrong on the way.
        """
        fault = trial.fault()
        async with contextlib.AsyncExitStack() as stack:
            async with self._preparing:
                case = await stack.enter_async_context(self.case(flow.name, fault, process=trial.process))
                await flow.prepare(case)
                await self.rest(case)
            case.patience = REACHED_SECONDS + fault.lasts + (30 if trial.process else 0)
            deadline = time.monotonic() + case.patience
            fault.begin(case)
            await flow.act(case)
            reached = await self._reach(case, wanted, deadline)
            case.counted = len(fault.writes)
            if not trial.process:
                await self.require_rest(case, reached)
            # What was made by whoever ended meanwhile counts too.
            case.wrong += case.made_twice()
            return reached, case

    @contextlib.asynccontextmanager
    async def case(self, name: str, fault: Fault, *, process: bool = False) -> AsyncIterator[Case]:
        """A namespace, an operator, and a player of its pods."""
        namespace = f"{name}-{next(self._plane.numbers)}"
        fresh = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        if await self._person.create(fresh) is None:
            raise AssertionError(f"namespace {namespace} is there already")
        settings = self._settings.model_copy(update={"namespaces": (namespace,)})
        player = Player(self._person, namespace)
        case = Case(self._plane, self._proxy, self._person, namespace, fault, settings, player, process)
        self._proxy.scripts[namespace] = fault
        playing = None if self._plane.has_nodes else asyncio.create_task(player.play())
        await self._wait_for_account(namespace)
        case.start()
        try:
            yield case
        finally:
            if playing is not None:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            try:
                await case.close()
            finally:
                if self._plane.has_nodes:
                    await self._person.delete(Ref("v1", "Namespace", "", namespace))

    async def rest(self, case: Case) -> None:
        """Wait until the operator writes nothing more, so that the faults begin with the flow."""
        before = -1
        while before != len(case.script.writes):
            before = len(case.script.writes)
            await asyncio.sleep(1.0)

    async def _reach(self, case: Case, wanted: Manifest | None, deadline: float) -> Manifest:
        seen: Manifest = {}
        began = time.monotonic()
        if wanted is None:
            # What was settled before the flow is not what it ends in.
            await asyncio.sleep(STAYS_SECONDS)
        while time.monotonic() < deadline:
            writes = len(case.script.writes)
            # One read tells of most looks that they come too early.
            if not await case.may_be_in(wanted):
                await asyncio.sleep(0.3)
                continue
            seen = await case.picture()
            if (wanted is None or seen == wanted) and not is_moving(seen):
                found = time.monotonic()
                await asyncio.sleep(STAYS_SECONDS)
                if await case.picture() == seen and len(case.script.writes) == writes:
                    case.seconds = found - began
                    return seen
            await asyncio.sleep(0.3)
        seen = await case.picture()
        told = (await self._person.get(case.ref) or {}).get("status", {}).get("summary")
        last = [str(w) for w in case.script.writes[-3:]]
        _, objects = await case.there_is()
        jobs = {o["metadata"]["name"]: o.get("status") for o in objects if o["kind"] == "Job"}
        raise TimeoutError(
            f"not reached within {case.patience:.0f} s: {difference(wanted or {}, seen)} ({told!r}; {last}; {jobs})"
        )

    async def require_rest(self, case: Case, reached: Manifest) -> None:
        """It stays, also for an operator that starts anew and remembers nothing."""
        case.script.begun = False
        case.script.writes.clear()
        looked = case.restart()
        async with asyncio.timeout(REACHED_SECONDS):
            await looked()
        await asyncio.sleep(0.6)
        seen = await case.picture()
        if seen != reached:
            raise AssertionError(f"it did not stay: {difference(reached, seen)}")
        if case.script.writes:
            raise AssertionError(f"a new operator writes {[str(w) for w in case.script.writes]}")

    async def _wait_for_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        while True:
            with contextlib.suppress(NotFoundError):
                await self._person.call("GET", path)
                return
            await asyncio.sleep(0.05)
