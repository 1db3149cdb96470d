"""Gathers what a planner looks at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from slipway_operator.cluster.kinds import MODEL_DEPLOYMENT, RETRAIN_JOB
from slipway_operator.cluster.protocol import Cluster
from slipway_operator.domain import labels
from slipway_operator.domain.errors import Blocked
from slipway_operator.domain.keys import Key
from slipway_operator.domain.revisions import read_log
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.cleanup import digests_in
from slipway_operator.plan.observed import Manifest, Observed, Ref, Sample
from slipway_operator.plan.troubles import puzzling
from slipway_operator.plan.watch import pods_to_ask
from slipway_operator.plan.wishes import parse_spec

AskPods = Callable[[Sequence[Manifest]], Awaitable[Mapping[str, Sample]]]
"""Gives figures of serving pods, by the pod's name."""


async def observe_model_deployment(
    cluster: Cluster, key: Key, settings: Settings, *, now: datetime, image_volumes: bool | None
) -> Observed | None:
    """Read one ModelDeployment and all that belongs to it; None: it is gone or going.

    A ``now`` from before the reads never makes something look older than it is. What
    belongs to the resource may be remembered (see `cluster.cached`); the resource itself is not.
    """
    resource = await cluster.get(Ref(*MODEL_DEPLOYMENT, key.namespace, key.name))
    if resource is None or resource["metadata"].get("deletionTimestamp"):
        return None
    owned = await cluster.list_owned(key.namespace, key.name)
    if _is_behind(resource, owned):
        # Asked once more; if it stays so, an entry is lost, and the planner says that.
        owned = await cluster.list_owned(key.namespace, key.name, anew=True)
    jobs, pods = _of(owned, "Job"), _of(owned, "Pod")
    uids = puzzling(jobs, pods, now)
    events = await cluster.list_events(key.namespace, uids) if uids else ()
    return Observed(
        key=key,
        now=now,
        settings=settings,
        resource=resource,
        jobs=tuple(j for j in jobs if labels.STEP in (j["metadata"].get("labels") or {})),
        pods=pods,
        deployments=_of(owned, "Deployment"),
        services=_of(owned, "Service"),
        autoscalers=_of(owned, "HorizontalPodAutoscaler"),
        budgets=_of(owned, "PodDisruptionBudget"),
        policies=_of(owned, "NetworkPolicy"),
        config_maps=_of(owned, "ConfigMap"),
        entries=tuple(
            e for e in _of(owned, "ControllerRevision") if (e["metadata"]["labels"] or {}).get(labels.LOG) == "true"
        ),
        events=tuple(events),
        image_volumes=image_volumes,
    )


async def with_figures(seen: Observed, ask_pods: AskPods) -> Observed:
    """Add the figures of the pods that are watched, where there are any."""
    try:
        limits = parse_spec(seen.resource).rollout.roll_back_on
    except Blocked:
        return seen
    pods = pods_to_ask(limits, seen.pods, read_log(seen.entries)[0], seen.now)
    return replace(seen, samples=await ask_pods(pods)) if pods else seen


async def with_elsewhere(seen: Observed, cluster: Cluster) -> Observed:
    """Add what other deployments use, where entries are to go: their images may be somebody else's too.

    In namespaced mode other namespaces cannot be seen, and what may be shared is kept.
    """
    limit = int((seen.resource.get("spec") or {}).get("revisionHistoryLimit") or 10)
    if seen.settings.namespaces or len(seen.entries) <= limit + 1:
        return seen
    own = seen.resource["metadata"]["uid"]
    everything = await cluster.list_everywhere()
    others = [m for m in everything if m["metadata"]["uid"] != own and not _is_of(m, seen.key)]
    return replace(seen, elsewhere=digests_in(others))


async def observe_retrain_job(cluster: Cluster, key: Key, settings: Settings, *, now: datetime) -> Observed | None:
    """Read one RetrainJob; None: it is gone or going."""
    resource = await cluster.get(Ref(*RETRAIN_JOB, key.namespace, key.name))
    if resource is None or resource["metadata"].get("deletionTimestamp"):
        return None
    return Observed(key=key, now=now, settings=settings, resource=resource)


def _is_of(manifest: Manifest, key: Key) -> bool:
    meta = manifest["metadata"]
    return (meta.get("namespace"), (meta.get("labels") or {}).get(labels.OWNER)) == tuple(key)


def _is_behind(resource: Manifest, owned: Sequence[Manifest]) -> bool:
    """Whether status tells of a newer entry than the log has: the log was then read from something old."""
    told = ((resource.get("status") or {}).get("live") or {}).get("revision") or 0
    newest = max((int(e.get("revision") or 0) for e in owned if e["kind"] == "ControllerRevision"), default=0)
    return int(told) > newest


def _of(owned: Sequence[Manifest], kind: str) -> tuple[Manifest, ...]:
    found = (o for o in owned if o["kind"] == kind)
    return tuple(sorted(found, key=lambda o: str(o["metadata"]["name"])))
