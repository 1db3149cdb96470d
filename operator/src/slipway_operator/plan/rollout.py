"""Which contents have pods, and how many.

The log's newest entry decides what is live; everything here follows from it. A
content that is wanted gets pods of its own first (where the spec asks for it, a few
among the live ones before that), and its entry once they answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from slipway_operator.api import Canary, ModelDeploymentSpec, parse_duration
from slipway_operator.domain import labels
from slipway_operator.domain.conditions import find_condition
from slipway_operator.domain.contents import Content
from slipway_operator.domain.durations import parse_time
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.decisions import Return
from slipway_operator.plan.holds import active_holds, other_good
from slipway_operator.plan.observed import Manifest, Observed, Ref, ref_of, soonest
from slipway_operator.plan.policies import serving_policy_for
from slipway_operator.plan.readiness import Readiness, readiness_of
from slipway_operator.plan.serving import (
    Served,
    autoscaler_for,
    budget_for,
    canary_name,
    deployment_for,
    deployment_name,
    has_image_volume,
    puller_of,
    repository_for,
    service_for,
)

PROBE_SECONDS = 60.0
"""How long a new content waits for the nodes' answer on image volumes, before it takes the safe way."""
PATIENCE_SECONDS = 30.0
"""How long a rollback waits for all of its pods, before it goes ahead with those that answer."""
ROUTES_WITHIN_SECONDS = 2.0
"""Until every node routes to a new Service: kube-proxy's period of 1 s, and a creation time in whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be live, as far as it is known."""

    content: Content
    repository: str
    """Where its images are."""
    since: str | None = None
    """When it was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Where the rollout goes."""

    wanted: Wanted | None = None
    """What the spec wants; None: not known, or held."""
    back: Return | None = None
    """A rollback, which comes before what the spec wants."""
    promoted: bool = False
    """A canary is not waited for."""
    given_up: bool = False
    """What the spec wants is about to be held: it gets no pods any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryState:
    """A few pods of a new content among the live ones."""

    ready: int
    of: int
    """All pods that answer in the live lane, these among them."""
    since: str | None
    """Since when all of them answer."""
    left: float | None
    """Seconds until the new content goes live; None: not yet counting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What to apply and delete for serving."""

    apply: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    live: Readiness = field(default_factory=Readiness)
    candidate: Readiness | None = None
    """None: what is wanted is live."""
    canary: CanaryState | None = None
    paused: bool = False
    may_skip_canary: bool = False
    """Somebody asked to go live without waiting."""
    may_go_live: bool = False
    """Nothing keeps what is wanted from the log."""
    returning: Readiness | None = None
    """How a rollback's target is."""
    may_return: bool = False
    standby: LoggedEntry | None = None
    standby_ready: int = 0
    standby_size: int = 0
    """Pods that the standby is to have now."""
    switched: bool = False
    """The Service selects the live lane."""
    routed_in: float = 0.0
    """Seconds until a new Service is surely known to every node; 0: it is."""
    probing: bool = False
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pods:
    """Deployments for one role."""

    apply: tuple[Manifest, ...] = ()
    names: frozenset[str] = frozenset()
    again: float | None = None


def plan_rollout(seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry], aim: Aim) -> Rollout:
    """Pods for the live, the standby and the wanted content; nothing for any other."""
    live = entries[-1] if entries else None
    rollout = Rollout(paused=is_paused(seen, spec))
    pods: list[_Pods] = []
    if live is not None:
        served = _served(seen, live.entry.digests, live.entry.repository, replicas=live_size(seen, spec, live))
        name = deployment_name(seen.key.name, live.entry.digests)
        pods.append(_Pods(apply=tuple(_live_objects(seen, spec, live, served)), names=frozenset({name})))
        rollout = replace(
            rollout,
            live=readiness_of(seen, name, size=served.replicas),
            switched=_selects(seen, live.entry.digests),
            routed_in=_routed_in(seen) if served.replicas else 0.0,
        )
    if aim.back is not None and live is not None:
        rollout, some = _return(seen, spec, live, aim.back, rollout)
        pods.append(some)
    elif aim.wanted is not None and not aim.given_up:
        if live is None or aim.wanted.content.digest != live.entry.content:
            rollout = replace(rollout, may_skip_canary=aim.promoted)
            rollout, some = _advance(seen, spec, live, aim.wanted, rollout)
            pods.append(some)
        else:
            rollout = replace(rollout, may_go_live=True)

    standby = other_good(entries)
    taken = frozenset[str]().union(*(p.names for p in pods))
    if standby is not None:
        name = deployment_name(seen.key.name, standby.entry.digests)
        size, left = standby_size(seen, spec, entries, standby)
        ready = readiness_of(seen, name, size=size).ready
        rollout = replace(rollout, standby=standby, standby_ready=ready, standby_size=size)
        if name not in taken:
            served = _served(seen, standby.entry.digests, standby.entry.repository, replicas=size)
            pods.append(_Pods(apply=(deployment_for(seen, spec, served),), names=frozenset({name}), again=left))

    apply = [m for p in pods for m in p.apply]
    names = frozenset[str]().union(*(p.names for p in pods))
    deployed = [m for m in apply if m["kind"] == "Deployment"]
    if deployed:
        apply.append(_policy_for(seen, spec, deployed))
    delete = [ref_of(d) for d in seen.deployments if d["metadata"]["name"] not in names]
    if spec.serving.autoscaling is None or live is None:
        delete += [ref_of(a) for a in seen.autoscalers]
    again = soonest(rollout.routed_in or None, *(p.again for p in pods))
    return replace(rollout, apply=tuple(apply), delete=tuple(delete), requeue_after=again)


def is_paused(seen: Observed, spec: ModelDeploymentSpec) -> bool:
    """Whether nothing should go further for now, by the spec or by the annotation."""
    return spec.rollout.paused or seen.annotations.get(labels.PAUSED) == "true"


def _return(
    seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry, back: Return, rollout: Rollout
) -> tuple[Rollout, _Pods]:
    """Pods for what a rollback goes back to; what is on its way beside it gets none."""
    content = back.to.entry.digests
    name = deployment_name(seen.key.name, content)
    size = candidate_size(seen, spec, live)
    ready = readiness_of(seen, name, size=size)
    waited = (seen.now - parse_time(back.since)).total_seconds()
    some = ready.ready > 0 and waited >= PATIENCE_SECONDS
    nobody_asks = spec.serving.autoscaling is None and spec.serving.replicas == 0
    served = _served(seen, content, back.to.entry.repository, replicas=size)
    again = max(PATIENCE_SECONDS - waited, 1.0) if ready.ready and not ready.complete else None
    return (
        replace(rollout, returning=ready, may_return=ready.complete or some or nobody_asks),
        _Pods(apply=(deployment_for(seen, spec, served),), names=frozenset({name}), again=again),
    )


def _advance(
    seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry | None, wanted: Wanted, rollout: Rollout
) -> tuple[Rollout, _Pods]:
    """Pods for a new content: a canary first where the spec asks for one, then as many as are live."""
    name, canary_named = (f(seen.key.name, wanted.content) for f in (deployment_name, canary_name))
    if _must_wait_for_probe(seen, wanted):
        waiting = replace(rollout, candidate=Readiness(size=1), probing=True)
        return waiting, _Pods(names=frozenset({name, canary_named}), again=2.0)

    applied: list[Manifest] = []
    names: set[str] = set()
    again: float | None = None
    canary: CanaryState | None = None
    # A content that has pods already is one that was good before, or whose canary is over.
    begun = seen.deployment(name) is not None
    wish = spec.rollout.canary if not begun or seen.deployment(canary_named) is not None else None
    if wish is not None and live is not None and rollout.live.size > 0:
        canary, some = _canary(seen, spec, wish, wanted, (live, rollout.live))
        applied.append(some)
        names.add(canary_named)
        over = canary.left is not None and canary.left <= 0 and not rollout.paused
        if not (begun or over or rollout.may_skip_canary):
            again = canary.left if canary.left is not None and canary.left > 0 else None
            ready = readiness_of(seen, canary_named, size=wish.pods)
            waiting = replace(rollout, candidate=ready, canary=canary)
            return waiting, _Pods(apply=tuple(applied), names=frozenset(names), again=again)
    size = candidate_size(seen, spec, live)
    applied.append(deployment_for(seen, spec, _served(seen, wanted.content, wanted.repository, replicas=size)))
    names.add(name)
    ready = readiness_of(seen, name, size=size)
    return (
        replace(
            rollout,
            candidate=ready,
            canary=canary,
            may_go_live=ready.complete and not rollout.paused,
        ),
        _Pods(apply=tuple(applied), names=frozenset(names)),
    )


def _canary(
    seen: Observed, spec: ModelDeploymentSpec, wish: Canary, wanted: Wanted, live: tuple[LoggedEntry, Readiness]
) -> tuple[CanaryState, Manifest]:
    """The canary as it is, and its Deployment as it should be."""
    name = canary_name(seen.key.name, wanted.content)
    served = replace(
        _served(seen, wanted.content, wanted.repository, replicas=wish.pods, name=name),
        canary_of=live[0].entry.digests.short,
    )
    ready = readiness_of(seen, name, size=wish.pods)
    existing = seen.deployment(name) or {}
    answers = find_condition((existing.get("status") or {}).get("conditions") or (), "Available")
    since = (
        str(answers["lastTransitionTime"]) if answers and answers.get("status") == "True" and ready.complete else None
    )
    left: float | None = None
    if since is not None:
        until = parse_time(since) + timedelta(seconds=parse_duration(wish.for_))
        left = (until - seen.now).total_seconds()
    counted = CanaryState(ready=ready.ready, of=live[1].ready + ready.ready, since=since, left=left)
    return counted, deployment_for(seen, spec, served)


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


def prunable(entries: Sequence[LoggedEntry], limit: int, *, keep: Collection[int] = ()) -> list[LoggedEntry]:
    """The oldest entries beyond the limit, up to the first that is needed: the chain gets no gap.

    Needed are the newest entries of the standby and of what is held, those that hold it, and what is on its way
    (``keep``).
    """
    standby, holds = other_good(entries), active_holds(entries)
    newest = {e.entry.content: e.number for e in entries}
    needed = {by.number for by, _ in holds} | {newest[h.content] for _, h in holds if h.content in newest}
    needed |= {*keep, *([standby.number] if standby is not None else [])}
    beyond = entries[: max(len(entries) - (limit + 1), 0)]
    first = min((e.number for e in beyond if e.number in needed), default=None)
    return [e for e in beyond if first is None or e.number < first]


def _live_objects(seen: Observed, spec: ModelDeploymentSpec, live: LoggedEntry, served: Served) -> list[Manifest]:
    lane = live.entry.digests.short
    scaling = spec.serving.autoscaling
    existing = seen.deployment(deployment_name(seen.key.name, live.entry.digests))
    if scaling is not None and existing is not None:
        # The autoscaler writes replicas too: apply only onto what was read, else look again.
        served = replace(served, resource_version=existing["metadata"].get("resourceVersion"))
    return [
        deployment_for(seen, spec, served),
        service_for(seen, spec.serving, lane),
        budget_for(seen, lane),
        *([autoscaler_for(seen, scaling, live.entry.digests)] if scaling is not None else []),
    ]


def _policy_for(seen: Observed, spec: ModelDeploymentSpec, deployed: Sequence[Manifest]) -> Manifest:
    return serving_policy_for(seen, spec.serving, pods_pull=any(not has_image_volume(d) for d in deployed))


def _served(
    seen: Observed, content: Content, repository: str | None, *, replicas: int, name: str | None = None
) -> Served:
    existing = seen.deployment(name or deployment_name(seen.key.name, content))
    return Served(
        content=content,
        repository=repository or repository_for(seen),
        replicas=replicas,
        image_volume=_by_image_volume(seen, existing),
        puller=puller_of(existing) if existing is not None else None,
    )


def _by_image_volume(seen: Observed, existing: Manifest | None) -> bool:
    """How the model gets into the pod; pods that work are not moved for a nicer way."""
    if seen.settings.model_delivery != "Auto":
        return seen.settings.model_delivery == "ImageVolume"
    if existing is not None and not (has_image_volume(existing) and seen.image_volumes is False):
        return has_image_volume(existing)
    return seen.image_volumes is True


def _must_wait_for_probe(seen: Observed, wanted: Wanted) -> bool:
    if seen.settings.model_delivery != "Auto" or seen.image_volumes is not None or wanted.since is None:
        return False
    if seen.deployment(deployment_name(seen.key.name, wanted.content)) is not None:
        return False
    return (seen.now - parse_time(wanted.since)).total_seconds() < PROBE_SECONDS


def _service(seen: Observed) -> Manifest | None:
    return next((s for s in seen.services if s["metadata"]["name"] == seen.key.name), None)


def _selects(seen: Observed, content: Content) -> bool:
    service = _service(seen)
    return service is not None and (service["spec"].get("selector") or {}).get(labels.LANE) == content.short


def _routed_in(seen: Observed) -> float:
    service = _service(seen)
    made = service["metadata"].get("creationTimestamp") if service is not None else None
    if made is None:
        return 0.0
    age = (seen.now - parse_time(str(made))).total_seconds()
    return max(ROUTES_WITHIN_SECONDS - age, 0.0)
