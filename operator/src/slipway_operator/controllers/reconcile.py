"""One look at one object: observe, plan, act, tell. Never decides from an event."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog

from slipway_operator.cluster.act import carry_out
from slipway_operator.cluster.client import NotFoundError
from slipway_operator.cluster.errors import GoneError
from slipway_operator.cluster.observe import (
    AskPods,
    observe_model_deployment,
    observe_retrain_job,
    with_elsewhere,
    with_figures,
)
from slipway_operator.cluster.protocol import Cluster, ConflictError
from slipway_operator.domain.conditions import is_true
from slipway_operator.domain.errors import SlipwayError, Waiting
from slipway_operator.domain.keys import Key
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.model_deployment import plan_model_deployment, status_after_error
from slipway_operator.plan.observed import Manifest, Observed, Plan
from slipway_operator.plan.retrain_job import plan_retrain_job

RESYNC_SECONDS = 300.0
"""Everything is looked at this often even if no event came."""
AGAIN_AT_ONCE = 0.0
AFTER_WRITES = 0.5
"""What was written is looked at once more: settled is what a look leaves as it is."""
WAITING_SECONDS = 20.0
"""What waits for something is looked at this often, as the event that would ring may be lost."""
BLOCKED_SECONDS = 60.0
"""A refusal is asked for again this often: what a person changes may be nothing that we watch."""
ROUNDS = 5
"""Plans in one run, where one follows from what the last one created."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a reconciler works with."""

    cluster: Cluster
    settings: Settings
    now: Callable[[], datetime]
    image_volumes: Callable[[], Awaitable[bool | None]]
    ask_pods: AskPods
    told: Callable[[Key, Manifest | None], None] = lambda _key, _status: None
    """Learns each status, and (None) that an object is gone."""


class _Turn(NamedTuple):
    """How a round ended."""

    again: float
    """Seconds until the next one."""
    applied: bool = False


class Reconciler:
    """Reconciles ModelDeployments and RetrainJobs."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def model_deployment(self, key: Key) -> float | None:
        """Look at one ModelDeployment.

        Returns:
            Seconds until the next look; None: it is gone.

        Raises:
            Waiting: the caller's back-off decides when to look again.
        """
        try:
            applied = False
            for _ in range(ROUNDS):
                seen = await observe_model_deployment(
                    self._room.cluster,
                    key,
                    self._room.settings,
                    now=self._room.now(),
                    image_volumes=await self._room.image_volumes(),
                )
                if seen is None:
                    self._room.told(key, None)
                    return None
                seen = await with_figures(seen, self._room.ask_pods)
                seen = await with_elsewhere(seen, self._room.cluster)
                plan = plan_model_deployment(seen)
                if plan.refuses and not self._room.cluster.is_certain(key):
                    continue
                self._room.told(key, plan.status)
                again, applied = await self._carry_out(seen, plan, again=applied)
                if again > AGAIN_AT_ONCE:
                    return again
        except BaseException:
            self._room.cluster.doubt(key)
            raise
        self._room.cluster.doubt(key)
        return 1.0

    async def retrain_job(self, key: Key) -> float | None:
        """Look at one RetrainJob; as `model_deployment`."""
        seen = await observe_retrain_job(self._room.cluster, key, self._room.settings, now=self._room.now())
        if seen is None:
            return None
        return (await self._carry_out(seen, plan_retrain_job(seen))).again

    async def _carry_out(self, seen: Observed, plan: Plan, *, again: bool = False) -> _Turn:
        """Act and tell.

        Args:
            seen: What the plan was made on.
            plan: What to do.
            again: The round before has applied something already.
        """
        cluster = self._room.cluster

        async def require_newest() -> None:
            if not await cluster.is_newest(seen.key, seen.entries):
                raise ConflictError("the log went on since it was read")

        try:
            done = await carry_out(cluster, plan, seen.objects(), before=require_newest)
            if done.applied and not (done.created or plan.events or again):
                # What was applied is in the answers: the next round says how things stand, in one status for both.
                return _Turn(AGAIN_AT_ONCE, applied=True)
            await self._tell(seen, plan.status)
            for event in plan.events:
                await cluster.emit(seen.resource, event)
        except ConflictError:
            cluster.doubt(seen.key)
            return _Turn(AGAIN_AT_ONCE)
        except (GoneError, NotFoundError):
            # The namespace or the object is on its way out: nothing is left to do, and nothing to complain about.
            log.info("gone while at work")
            return _Turn(BLOCKED_SECONDS)
        except SlipwayError as error:
            await self._tell_error(seen, error)
            if isinstance(error, Waiting):
                raise
            return _Turn(BLOCKED_SECONDS)
        if done.created and any(m["kind"] == "ControllerRevision" for m in plan.create):
            # The entry is the decision; the Service follows it at once.
            return _Turn(AGAIN_AT_ONCE)
        waits = is_true(plan.status.get("conditions") or (), "Reconciling")
        cluster.tell(seen.key, waits=waits)
        return _Turn(min(_patience(plan, waits=waits), AFTER_WRITES if done.applied else RESYNC_SECONDS), done.applied)

    async def _tell(self, seen: Observed, status: Manifest) -> None:
        if status != seen.status:
            await self._room.cluster.write_status(seen.resource, status)
            log.info("status", summary=status.get("summary"))

    async def _tell_error(self, seen: Observed, error: SlipwayError) -> None:
        log.warning("cannot carry out", reason=error.reason, message=error.message)
        if error.reason == "ApiServerUnavailable":
            return
        try:
            await self._tell(seen, status_after_error(seen, error))
        except (SlipwayError, ConflictError, GoneError, NotFoundError) as second:
            log.warning("status not written", error=str(second))


def _patience(plan: Plan, *, waits: bool) -> float:
    """Seconds until the next look, if nothing rings before."""
    if plan.requeue_after is not None:
        return min(plan.requeue_after, RESYNC_SECONDS)
    # Thousands are not to be looked at together.
    return WAITING_SECONDS if waits else RESYNC_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
