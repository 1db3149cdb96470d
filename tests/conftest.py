"""A small world for tests of the operator: a cluster in memory and a platform around it."""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings

from lab.player import answer_to, digest, request_of
from slipway_operator.cluster.fake import FakeCluster
from slipway_operator.cluster.observe import observe_model_deployment, with_figures
from slipway_operator.controllers.reconcile import Reconciler, Room
from slipway_operator.domain.keys import Key
from slipway_operator.domain.requests import Message
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.model_deployment import plan_model_deployment
from slipway_operator.plan.observed import Manifest, Observed, Plan, Ref, Sample
from slipway_operator.plan.rollout import ROUTES_WITHIN_SECONDS

# A machine that is busy is no fault of what is tested; and a gate asks what it asked the last time, while
# EXPLORE=1 looks for what nobody thought of.
settings.register_profile("gate", deadline=None, derandomize="EXPLORE" not in os.environ)
settings.load_profile("gate")

SETTINGS = {
    "images": {
        "builder": f"reg.test/slipway/builder@{digest('builder')}",
        "runtime": f"reg.test/slipway/runtime@{digest('runtime')}",
    },
    "interpreters": [
        {
            "python": "3.11",
            "base": f"reg.test/slipway/base@{digest('base')}",
            "tools": f"reg.test/slipway/tools@{digest('tools')}",
        },
    ],
    "registry": {"prefix": "reg.test/models", "insecure": True},
    "stamps": "Written",
    "packageLists": [{"name": "default", "version": "2026.11", "python": "3.11", "requirements": "numpy==2.3.5\n"}],
}

SPEC: Manifest = {
    "source": {"git": {"url": "https://git.test/airline/flight-delay.git", "ref": "v1.0.0"}},
    "model": {
        "train": {"command": ["python", "-m", "flight_delay.train"], "metrics": "metrics.json"},
        "path": "model.joblib",
        "example": "data/sample.csv",
    },
    "serving": {"replicas": 2},
}


class World:
    """A fake cluster, a platform's settings, and someone who plays the Jobs."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.settings = Settings.model_validate(SETTINGS)
        self.image_volumes: bool | None = True
        self.samples: dict[str, Sample] = {}
        """Figures that serving pods give, by the pod's name."""
        self.commit = "4f2a" * 10
        """What the repository's ref names now."""

    # A person's part

    def add(self, name: str = "flight-delay", namespace: str = "airline", spec: Manifest | None = None) -> Key:
        self.cluster.add(
            {
                "apiVersion": "slipway.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": copy.deepcopy(spec or SPEC),
            }
        )
        return Key(namespace, name)

    def ref(self, key: Key) -> Ref:
        return Ref("slipway.dev/v1alpha1", "ModelDeployment", key.namespace, key.name)

    def edit(self, key: Key, path: str, value: Any) -> None:
        """Set one field of the spec, by its dotted path."""

        def change(live: Manifest) -> None:
            *parents, last = path.split(".")
            place = live["spec"]
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value

        self.cluster.edit(self.ref(key), change)

    def annotate(self, key: Key, name: str, value: str | None) -> None:
        """Set an annotation, or take it away."""

        def change(live: Manifest) -> None:
            annotations = live["metadata"].setdefault("annotations", {})
            annotations[name] = value
            if value is None:
                del annotations[name]

        self.cluster.edit(self.ref(key), change)

    # What there is

    def status(self, key: Key) -> Manifest:
        return self.cluster.objects[self.ref(key)].get("status") or {}

    def condition(self, key: Key, kind: str) -> Manifest:
        return next(c for c in self.status(key)["conditions"] if c["type"] == kind)

    def ready(self, key: Key) -> tuple[str, str]:
        found = self.condition(key, "Ready")
        return found["status"], found["reason"]

    def steps(self, key: Key) -> dict[str, str]:
        return {s["name"]: s["state"] for s in self.status(key)["steps"]}

    def jobs(self, step: str | None = None) -> list[Manifest]:
        return [j for j in self.cluster.of_kind("Job") if step in {None, j["metadata"]["labels"]["slipway.dev/step"]}]

    def entries(self) -> list[Manifest]:
        return sorted(self.cluster.of_kind("ControllerRevision"), key=lambda e: e["data"]["number"])

    def deployments(self) -> dict[str, int]:
        """Pods asked for, by content."""
        return {
            d["metadata"]["labels"]["slipway.dev/content"]: d["spec"]["replicas"]
            for d in self.cluster.of_kind("Deployment")
            if "slipway.dev/content" in d["metadata"]["labels"]
        }

    def canary(self) -> Manifest | None:
        """The canary's Deployment."""
        found = [d for d in self.cluster.of_kind("Deployment") if "slipway.dev/canary" in d["metadata"]["labels"]]
        return found[0] if found else None

    async def deploy(self, key: Key, ref: str, commit: str) -> str:
        """Make a new version live; returns its lane."""
        self.commit = commit * 10
        self.edit(key, "source.git.ref", ref)
        await self.settle(key)
        return self.lane()

    def request(self, key: Key, verb: str) -> tuple[str, str]:
        """State and message of the newest request of a verb."""
        row = next(r for r in self.status(key)["requests"] if r["verb"] == verb)
        return row["state"], row["message"]

    def lane(self) -> str:
        (service,) = self.cluster.of_kind("Service")
        return service["spec"]["selector"]["slipway.dev/lane"]

    # The operator's part

    async def observe(self, key: Key) -> Observed:
        seen = await observe_model_deployment(
            self.cluster, key, self.settings, now=self.cluster.now, image_volumes=self.image_volumes
        )
        assert seen is not None
        return await with_figures(seen, self.figures)

    async def plan(self, key: Key) -> Plan:
        return plan_model_deployment(await self.observe(key))

    def room(self, image_volumes: Callable[[], Awaitable[bool | None]]) -> Room:
        """What a reconciler works with."""
        return Room(
            cluster=self.cluster,
            settings=self.settings,
            now=lambda: self.cluster.now,
            image_volumes=image_volumes,
            ask_pods=self.figures,
        )

    async def look(self, key: Key) -> float | None:
        async def image_volumes() -> bool | None:
            return self.image_volumes

        return await Reconciler(self.room(image_volumes)).model_deployment(key)

    async def figures(self, pods: Sequence[Manifest]) -> dict[str, Sample]:
        """What the asked pods say of their predictions."""
        names = {p["metadata"]["name"] for p in pods}
        return {name: sample for name, sample in self.samples.items() if name in names}

    # The cluster's part

    def answer(self, job: Manifest) -> Message:
        """What a Job would answer."""
        request = request_of(job["spec"]["template"]["spec"])
        return answer_to(job["metadata"]["labels"]["slipway.dev/step"], request, self.commit)

    def unfinished(self) -> list[Manifest]:
        return [j for j in self.jobs() if not (j.get("status") or {}).get("conditions")]

    def play(self) -> None:
        """Let every Job succeed and every pod become ready."""
        for job in self.unfinished():
            self.cluster.finish_job(job, self.answer(job))
        self.cluster.settle_deployments()

    def wait_a_moment(self, *waits: float | None) -> bool:
        """Let the shortest wait pass, where the nodes would have learned of a new Service meanwhile."""
        short = [w for w in waits if w is not None and w <= ROUTES_WITHIN_SECONDS]
        if short:
            self.cluster.pass_time(min(short))
        return bool(short)

    async def settle(self, *keys: Key, rounds: int = 12) -> None:
        """Look and play until nothing is written any more, nor will be by a moment's waiting."""
        for _ in range(rounds):
            before = len(self.cluster.writes), copy.deepcopy(self.cluster.objects)
            waits = [await self.look(key) for key in keys]
            self.play()
            if (len(self.cluster.writes), self.cluster.objects) != before:
                continue
            if not self.wait_a_moment(*waits):
                return
        raise AssertionError(f"not settled after {rounds} rounds: {self.cluster.writes[-5:]}")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def world_type() -> type[World]:
    """For tests that need many worlds."""
    return World


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-update", action="store_true", help="rewrite the golden plans instead of comparing")
