"""A RetrainJob says truly that nothing is done with it yet."""

from __future__ import annotations

from slipway_operator.api import RetrainJobStatus
from slipway_operator.controllers.reconcile import Reconciler
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Ref

REF = Ref("slipway.dev/v1alpha1", "RetrainJob", "airline", "weekly")


async def test_it_says_so_once_and_writes_nothing_more(world):
    world.cluster.add(
        {
            "apiVersion": REF.api_version,
            "kind": REF.kind,
            "metadata": {"name": REF.name, "namespace": REF.namespace},
            "spec": {"modelDeployment": "flight-delay", "schedule": "0 3 * * 1"},
        }
    )

    async def unknown() -> bool | None:
        return None

    reconciler = Reconciler(world.room(unknown))
    await reconciler.retrain_job(Key("airline", "weekly"))
    await reconciler.retrain_job(Key("airline", "weekly"))

    status = world.cluster.objects[REF]["status"]
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Ready": ("False", "NotYetSupported"),
        "Reconciling": ("False", "NotYetSupported"),
        "Stalled": ("True", "NotYetSupported"),
    }
    assert RetrainJobStatus.model_validate(status).to_wire() == status
    assert [verb for verb, _ in world.cluster.writes] == ["status"]
    assert [e.reason for e in world.cluster.emitted] == ["NotYetSupported"]


async def test_one_that_is_gone_needs_no_more_looks(world):
    async def unknown() -> bool | None:
        return None

    reconciler = Reconciler(world.room(unknown))

    assert await reconciler.retrain_job(Key("airline", "weekly")) is None
