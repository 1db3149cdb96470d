"""What `kubectl slipway` shows of what the operator's own plans make: `make golden` rewrites the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway_cli.commands.requests import request_value
from slipway_cli.problem import Code
from slipway_cli.screen import table
from slipway_cli.views.node import lines_of
from slipway_cli.views.overview import overview
from slipway_cli.views.rows import deployment_row, deployment_table, history, history_table
from slipway_cli.views.tree import tree
from slipway_cli.views.verdict import outcome, verdict
from slipway_cli.views.world import World
from slipway_operator.domain.directives import Verb

VIEWS = Path(__file__).parent / "views"
CANARY = {"canary": {"pods": 1, "for": "10m"}, "rollBackOn": {"errorRate": 0.01, "minimumRequests": 100}}


def add_pods(world: Any) -> None:
    """Give each Deployment the pods that it asks for, ready as its status says."""
    for deployment in world.cluster.of_kind("Deployment"):
        template = deployment["spec"]["template"]
        ready = int((deployment.get("status") or {}).get("availableReplicas", 0))
        for number in range(deployment["spec"]["replicas"]):
            state = {"running": {}} if number < ready else {"waiting": {"reason": "ContainerCreating"}}
            meta = {"namespace": "airline", "labels": template["metadata"]["labels"]}
            world.cluster.add(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {**meta, "name": f"{deployment['metadata']['name']}-{number}"},
                    "spec": {"containers": [{"name": "runtime"}], "nodeName": "node-1"},
                    "status": {
                        "phase": "Running",
                        "conditions": [{"type": "Ready", "status": str(number < ready)}],
                        "containerStatuses": [
                            {"name": "runtime", "ready": number < ready, "restartCount": 0, "state": state}
                        ],
                    },
                }
            )


def seen(world: Any, key: Any) -> World:
    """What the command line would read of the cluster."""
    cluster = world.cluster
    return World(
        resource=cluster.objects[world.ref(key)],
        entries=tuple(entry["data"] for entry in world.entries()),
        deployments=tuple(cluster.of_kind("Deployment")),
        pods=tuple(cluster.of_kind("Pod")),
        jobs=tuple(cluster.of_kind("Job")),
        service=next(iter(cluster.of_kind("Service")), None),
    )


Shown = Callable[..., World]


@pytest.fixture
def shown(world: Any, request: pytest.FixtureRequest) -> Shown:
    """Compare all texts of a moment with those that are kept."""

    def check(name: str, key: Any, *, wide: bool = False) -> World:
        add_pods(world)
        found, now = seen(world, key), world.cluster.now
        parts: list[Sequence[str]] = [
            list(lines_of(tree(overview(found, now), wide=wide))),
            table(*deployment_table([deployment_row(found.resource, now)], wide=wide, everywhere=wide)).splitlines(),
            table(*history_table(history(found.resource, found.entries, now), wide=wide)).splitlines(),
            [f"exit code {int(verdict(found.resource).code)}: {verdict(found.resource).sentence}"],
        ]
        text = "\n\n".join("\n".join(part) for part in parts) + "\n"
        path = VIEWS / f"{name}.txt"
        if request.config.getoption("--golden-update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, "read the difference; if it is meant, run make golden"
        return found

    return check


async def test_nothing_has_happened_yet(world, shown):
    shown("1-new", world.add())


async def test_a_first_content_on_its_way(world, shown):
    key = world.add()
    await world.look(key)
    world.play()
    await world.look(key)
    world.cluster.pass_time(41)
    shown("2-training", key)


async def test_serving(world, shown):
    key = world.add()
    await world.settle(key)
    world.cluster.pass_time(7200)
    assert verdict(shown("3-serving", key, wide=True).resource).code is Code.OK


@pytest.fixture
async def canary(world):
    """One content live with three pods, a second one as a canary that answers."""
    key = world.add()
    world.edit(key, "serving.replicas", 3)
    world.edit(key, "rollout", CANARY)
    await world.settle(key)
    world.cluster.pass_time(3600)
    await world.deploy(key, "v2", "beef")
    return key


async def test_a_canary(world, canary, shown):
    world.cluster.pass_time(90)
    found = shown("4-canary", canary)

    shares = {c["role"]: c["share"] for c in overview(found, world.cluster.now)["contents"]}
    assert shares == {"live": 0.75, "canary": 0.25}


async def test_paused(world, canary, shown):
    world.annotate(canary, "slipway.dev/paused", "true")
    await world.settle(canary)
    assert verdict(shown("5-paused", canary).resource).code is Code.PAUSED


async def test_promoted(world, canary, shown):
    world.annotate(canary, "slipway.dev/promote", request_value("now", "p-1", "looks good"))
    await world.settle(canary)
    found = shown("6-promoted", canary)
    assert outcome(found.resource, found.entries, Verb.PROMOTE, "p-1").state == "Done"


async def test_aborted(world, canary, shown):
    world.annotate(canary, "slipway.dev/abort", request_value("now", "a-1", "wrong units"))
    await world.settle(canary)
    found = shown("7-aborted", canary)
    assert outcome(found.resource, found.entries, Verb.ABORT, "a-1").state == "Done"
    assert verdict(found.resource).code is Code.HELD


@pytest.fixture
async def back(world):
    """Rolled back from 2 to 1."""
    key = world.add()
    await world.settle(key)
    world.cluster.pass_time(3600)
    await world.deploy(key, "v2", "beef")
    world.cluster.pass_time(60)
    world.annotate(key, "slipway.dev/rollback", request_value("previous", "r-1", "delays\nof zero"))
    await world.settle(key)
    world.cluster.pass_time(30)
    return key


async def test_rolled_back(back, shown):
    found = shown("8-rolled-back", back, wide=True)

    assert verdict(found.resource).code is Code.HELD
    assert outcome(found.resource, found.entries, Verb.ROLLBACK, "r-1").sentence.endswith("that of revision 1")
    assert found.entries[-1]["why"] == "delays of zero"


async def test_resumed(world, back, shown):
    world.annotate(back, "slipway.dev/resume", request_value("now", "s-1", ""))
    await world.settle(back)
    found = shown("9-resumed", back)

    assert outcome(found.resource, found.entries, Verb.RESUME, "s-1").state == "Done"
    assert verdict(found.resource).code is Code.OK


@pytest.mark.parametrize(
    ("verb", "target", "words"),
    [
        ("rollback", "9", "the log has no revision 9"),
        ("resume", "now", "nothing is held"),
        ("promote", "now", "no new content is on its way"),
    ],
)
async def test_refused(world, verb, target, words):
    """The operator's own words on what cannot be done."""
    key = world.add()
    await world.settle(key)
    world.annotate(key, f"slipway.dev/{verb}", request_value(target, "x-1", ""))
    await world.settle(key)
    found = seen(world, key)

    ended = outcome(found.resource, found.entries, Verb(verb.capitalize()), "x-1")
    assert ended.state == "Refused"
    assert words in ended.sentence
