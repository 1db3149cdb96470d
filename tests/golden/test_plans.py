"""A few whole plans as YAML, read as diffs: `make golden` rewrites them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway_operator.plan.observed import Plan

PLANS = Path(__file__).parent / "plans"


def text_of(plan: Plan) -> str:
    """A plan as people read it."""
    parts: dict[str, Any] = {
        "apply": list(plan.apply),
        "create": list(plan.create),
        "delete": [f"{r.kind} {r.namespace}/{r.name}" for r in plan.delete],
        "status": plan.status,
        "events": [f"{e.type} {e.reason}: {e.message}" for e in plan.events],
        "requeueAfter": plan.requeue_after,
    }
    return yaml.dump(parts, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Plan], None]:
    def check(name: str, plan: Plan) -> None:
        path = PLANS / f"{name}.yaml"
        text = text_of(plan)
        if request.config.getoption("--golden-update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, "read the difference; if it is meant, run make golden"

    return check


async def upto(world: Any, key: Any, rounds: int) -> Plan:
    for _ in range(rounds):
        wait = await world.look(key)
        world.play()
        world.wait_a_moment(wait)
    return await world.plan(key)


@pytest.mark.parametrize(
    ("name", "rounds"),
    [("1-first-look", 0), ("2-train", 1), ("3-export", 2), ("4-roll-out", 3), ("5-go-live", 4), ("6-settled", 6)],
)
async def test_the_way_of_a_first_content(world, golden, name, rounds):
    golden(name, await upto(world, world.add(), rounds))


async def test_a_switch_with_a_standby_and_an_autoscaler(world, golden):
    key = world.add()
    world.edit(key, "serving", {"autoscaling": {"maxReplicas": 4}, "resources": {"requests": {"cpu": "250m"}}})
    await world.settle(key)
    world.commit = "beef" * 10
    world.edit(key, "source.git.ref", "v2.0.0")
    await world.settle(key)

    golden("7-after-a-switch", await world.plan(key))


async def test_an_init_container_and_secrets(world, golden):
    settings = world.settings.model_dump(mode="json", by_alias=True)
    settings["registry"]["secretName"] = "registry"
    settings["modelDelivery"] = "InitContainer"
    world.settings = type(world.settings).model_validate(settings)
    key = world.add()

    golden("8-init-container", await upto(world, key, 3))


async def test_a_guarded_door_with_records_and_traces(world, golden):
    key = world.add()
    world.edit(
        key,
        "serving",
        {
            "tls": {"secretName": "model-tls", "clientCASecretName": "callers"},
            "apiKeys": {"secretName": "model-keys"},
            "records": {"url": "http://records.audit.svc:9000/in", "ratio": 0.25, "redact": ["passenger"]},
            "traces": {"endpoint": "http://otel.observability.svc:4318/v1/traces"},
            "accessLog": True,
            "workers": 2,
            "limits": {"connectionAge": "1m"},
        },
    )

    golden("9-guarded", await upto(world, key, 6))


async def test_a_model_that_answers_by_itself(world, golden):
    key = world.add()
    world.edit(key, "export", {"onFailure": "ServeNative", "function": "flights.answers:predict"})

    golden("10-native", await upto(world, key, 6))
