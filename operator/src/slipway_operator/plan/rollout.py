"""Which contents have pods, how many, and when the log gets its next entry.

The log's newest entry decides what is live; everything here follows from it. A
content that is wanted gets pods of its own first, and its entry once they answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from slipway_operator.api import ModelDeploymentSpec, parse_duration
from slipway_operator.domain import labels
from slipway_operator.domain.conditions import find_condition
from slipway_operator.domain.contents import Content
from slipway_operator.domain.durations import parse_time
from slipway_operator.domain.reasons import Reason, well_formed
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.observed import Manifest, Observed, Ref, Trouble, ref_of, soonest
from slipway_operator.plan.outcomes import failed_message
from slipway_operator.plan.serving import (
    Served,
    autoscaler_for,
    budget_for,
    deployment_for,
    deployment_name,
    has_image_volume,
    network_policies_for,
    puller_of,
    service_for,
)
from slipway_operator.plan.troubles import containers_of, refused_replicas, trouble_of, waits_of

PROBE_SECONDS = 60.0
"""How long a new content waits for the nodes' answer on image volumes, before it takes the safe way."""
CRASHES = 3
"""Restarts after which a runtime that ends by itself is a person's matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A content that should be live."""

    content: Content
    prefix: str
    since: str | None = None
    """When it was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How the pods of one content are."""

    replicas: int = 0
    ready: int = 0
    updated: int = 0
    size: int = 0
    complete: bool = False
    """All of its pods are of its newest template and answer."""
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What to apply and delete for serving."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    live: Readiness = field(default_factory=Readiness)
    candidate: Readiness | None = None
    """None: what is wanted is live."""
    switched: bool = False
    """The Service selects the live lane."""
    probing: bool = False
    requeue_after: float | None = None


def plan_rollout(
    seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry], wanted: Wanted | None
) -> Rollout:
    """Pods for the live, the standby and the wanted content; nothing for any other."""
    live = entries[-1] if entries else None
    standby = standby_of(entries)
    names: set[str] = set()
    apply: list[Manifest] = []
    again: float | None = None
    candidate: Readiness | None = None
    probing = False
    live_ready = Readiness()

    if live is not None:
        served = _served(seen, live.entry.digests, live.entry.registry, replicas=live_size(seen, spec, live))
        names.add(deployment_name(seen.key.name, live.entry.digests))
        apply += _live_objects(seen, spec, live, served)
        live_ready = readiness_of(seen, live.entry.digests, size=served.replicas)

    is_new = wanted is not None and (live is None or wanted.content.digest != live.entry.content)
    if wanted is not None and is_new:
        size = candidate_size(seen, spec, live)
        names.add(deployment_name(seen.key.name, wanted.content))
        probing = _must_wait_for_probe(seen, wanted)
        if probing:
            again = 2.0
        else:
            apply.append(deployment_for(seen, spec, _served(seen, wanted.content, wanted.prefix, replicas=size)))
        candidate = readiness_of(seen, wanted.content, size=size)

    if standby is not None and deployment_name(seen.key.name, standby.entry.digests) not in names:
        size, left = standby_size(seen, spec, entries, standby)
        again = soonest(again, left)
        names.add(deployment_name(seen.key.name, standby.entry.digests))
        apply.append(
            deployment_for(seen, spec, _served(seen, standby.entry.digests, standby.entry.registry, replicas=size))
        )

    deployed = [m for m in apply if m["kind"] == "Deployment"]
    if deployed:
        pods_pull = any(not has_image_volume(d) for d in deployed)
        apply += network_policies_for(seen, pods_pull=pods_pull)
    delete = [ref_of(d) for d in seen.deployments if d["metadata"]["name"] not in names]
    if spec.serving.autoscaling is None or live is None:
        delete += [ref_of(a) for a in seen.autoscalers]
    return Rollout(
        apply=tuple(apply),
        delete=tuple(delete),
        live=live_ready,
        candidate=candidate,
        switched=live is not None and _selects(seen, live.entry.digests),
        probing=probing,
        requeue_after=again,
    )


def standby_of(entries: Sequence[LoggedEntry]) -> LoggedEntry | None:
    """The newest entry of another content than the live one."""
    if not entries:
        return None
    live = entries[-1].entry.content
    return next((e for e in reversed(entries) if e.entry.content != live), None)


def live_since(entries: Sequence[LoggedEntry]) -> str:
    """When the live content went live: the first of its entries with no other content after it."""
    since = entries[-1].entry
    for logged in reversed(entries):
        if logged.entry.content != since.content:
            break
        since = logged.entry
    return since.at


def live_size(seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry) -> int:
    """Pods of the live content; with an autoscaler, what it has now, never dropped and never reset."""
    scaling = spec.serving.autoscaling
    if scaling is None:
        return 1 if spec.serving.replicas is None else spec.serving.replicas
    deployment = seen.deployment(deployment_name(seen.key.name, live.entry.digests))
    if deployment is None:
        return scaling.min_replicas
    # Below the minimum the autoscaler is off (0) or has not looked yet.
    return max(int(deployment["spec"].get("replicas", 1)), scaling.min_replicas)


def candidate_size(seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry | None) -> int:
    """A new content starts with as many pods as the live one has now, and at least one that proves it."""
    scaling = spec.serving.autoscaling
    if scaling is None:
        return max(1, 1 if spec.serving.replicas is None else spec.serving.replicas)
    now = live_size(seen, spec, live) if live is not None else scaling.min_replicas
    return min(max(now, scaling.min_replicas), scaling.max_replicas)


def standby_size(
    seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry], standby: LoggedEntry
) -> tuple[int, float | None]:
    """Pods of the standby, and the seconds until that changes."""
    if spec.serving.autoscaling is None and spec.serving.replicas == 0:
        return 0, None
    switch = parse_time(live_since(entries))
    left = (switch + timedelta(seconds=parse_duration(spec.standby.full_for)) - seen.now).total_seconds()
    if left <= 0:
        return 1, None
    deployment = seen.deployment(deployment_name(seen.key.name, standby.entry.digests))
    size = int(deployment["spec"].get("replicas", 1)) if deployment is not None else 1
    return max(1, size), left


def readiness_of(seen: Observed, content: Content, *, size: int) -> Readiness:
    """How the pods of a content are, by its Deployment's own word."""
    deployment = seen.deployment(deployment_name(seen.key.name, content))
    if deployment is None:
        return Readiness(size=size)
    status = deployment.get("status") or {}
    meta = deployment["metadata"]
    current = int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 1))
    asked = int(deployment["spec"].get("replicas", 1))
    ready = int(status.get("availableReplicas", 0))
    total = int(status.get("replicas", 0))
    updated = int(status.get("updatedReplicas", 0))
    complete = current and asked >= size and updated >= size and ready >= size and total == updated
    return Readiness(
        replicas=total,
        ready=ready,
        updated=updated,
        size=size,
        complete=complete,
        trouble=None if complete else _trouble(seen, deployment, content),
    )


def prunable(entries: Sequence[LoggedEntry], limit: int) -> list[LoggedEntry]:
    """Entries beyond the limit; the newest of the live and the standby content stay."""
    standby = standby_of(entries)
    kept = {entries[-1].number, standby.number if standby is not None else 0} if entries else set()
    return [e for e in entries[: -(limit + 1)] if e.number not in kept]


def _live_objects(seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry, served: Served) -> list[Manifest]:
    lane = live.entry.digests.short
    scaling = spec.serving.autoscaling
    existing = seen.deployment(deployment_name(seen.key.name, live.entry.digests))
    if scaling is not None and existing is not None:
        # The autoscaler writes replicas too: apply only onto what was read, else look again.
        served = replace(served, resource_version=existing["metadata"].get("resourceVersion"))
    return [
        deployment_for(seen, spec, served),
        service_for(seen, lane),
        budget_for(seen, lane),
        *([autoscaler_for(seen, scaling, live.entry.digests)] if scaling is not None else []),
    ]


def _served(seen: Observed, content: Content, prefix: str | None, *, replicas: int) -> Served:
    existing = seen.deployment(deployment_name(seen.key.name, content))
    return Served(
        content=content,
        prefix=prefix or seen.settings.registry.prefix,
        replicas=replicas,
        image_volume=_by_image_volume(seen, content),
        puller=puller_of(existing) if existing is not None else None,
    )


def _by_image_volume(seen: Observed, content: Content) -> bool:
    """How the model gets into the pod; pods that work are not moved for a nicer way."""
    if seen.settings.model_delivery != "Auto":
        return seen.settings.model_delivery == "ImageVolume"
    existing = seen.deployment(deployment_name(seen.key.name, content))
    if existing is not None and not (has_image_volume(existing) and seen.image_volumes is False):
        return has_image_volume(existing)
    return seen.image_volumes is True


def _must_wait_for_probe(seen: Observed, wanted: Wanted) -> bool:
    if seen.settings.model_delivery != "Auto" or seen.image_volumes is not None or wanted.since is None:
        return False
    if seen.deployment(deployment_name(seen.key.name, wanted.content)) is not None:
        return False
    return (seen.now - parse_time(wanted.since)).total_seconds() < PROBE_SECONDS


def _selects(seen: Observed, content: Content) -> bool:
    service = next((s for s in seen.services if s["metadata"]["name"] == seen.key.name), None)
    return service is not None and (service["spec"].get("selector") or {}).get(labels.LANE) == content.short


def _trouble(seen: Observed, deployment: Manifest, content: Content) -> Trouble | None:
    """What keeps pods from answering, the most telling first."""
    refused = refused_replicas(deployment)
    if refused is not None:
        return trouble_of(refused, seen.now)
    pods = [
        p
        for p in seen.pods
        if p["metadata"]["labels"].get(labels.CONTENT) == content.short and not p["metadata"].get("deletionTimestamp")
    ]
    for pod in pods:
        crash = _crash(pod)
        if crash is not None:
            return crash
    for pod in pods:
        waits = waits_of(pod, seen.events)
        if waits is not None:
            return trouble_of(waits, seen.now)
    progressing = find_condition((deployment.get("status") or {}).get("conditions") or (), "Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Trouble(
            reason=Reason.ROLLOUT_TIMED_OUT,
            message=f"pods of content {content.short} did not become ready: kubectl logs "
            f"deployment/{deployment['metadata']['name']} shows why",
            stalled=True,
        )
    return None


def _crash(pod: Manifest) -> Trouble | None:
    for container in containers_of(pod):
        state = container.get("state") or {}
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if ended is None or ended.get("exitCode", 0) == 0 or container.get("ready"):
            continue
        stalled = int(container.get("restartCount", 0)) >= CRASHES
        if ended.get("reason") == "OOMKilled":
            text = "a serving pod needed more memory than its limit: raise spec.serving.resources.limits.memory"
            return Trouble(reason=Reason.SERVING_OUT_OF_MEMORY, message=text, stalled=stalled)
        told = failed_message(ended.get("message") or "")
        if told is not None:
            reason = well_formed(told.reason, otherwise=Reason.RUNTIME_FAILED)
            return Trouble(reason=reason, message=told.message, stalled=stalled and not told.retry)
        said = (ended.get("message") or "").strip().splitlines()
        words = said[-1] if said else f"exit code {ended.get('exitCode')}"
        text = f"container {container['name']} of pod {pod['metadata']['name']} ended: {words[:400]}"
        return Trouble(reason=Reason.RUNTIME_FAILED, message=text, stalled=stalled)
    return None
