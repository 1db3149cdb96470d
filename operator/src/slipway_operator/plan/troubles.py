"""Reads from pods, Jobs and events what keeps them from going on, in words that help.

The cluster says the same thing in many places: a waiting container, a pod's
conditions, an event of a Job that has no pod. This module is the table of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from slipway_operator.domain.conditions import find_condition, is_true
from slipway_operator.domain.durations import parse_time
from slipway_operator.domain.reasons import Reason
from slipway_operator.plan.observed import Manifest, Trouble

PATIENCE = 300.0
"""Seconds after which what may still pass by itself counts as stalled: a person should look."""
PUZZLING_AFTER = 5.0
"""Seconds after which a pod that has not started is worth asking the events about."""

_PULL = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError"})
_START = frozenset({"CreateContainerError", "RunContainerError", "StartError"})


class Waits(NamedTuple):
    """Something that does not start, and since when."""

    reason: Reason
    message: str
    since: datetime


def containers_of(pod: Mapping[str, Any]) -> Iterator[Manifest]:
    """States of a pod's containers in the order in which they run."""
    status = pod.get("status") or {}
    ranks = {
        c["name"]: rank
        for rank, c in enumerate(
            [*(pod.get("spec", {}).get("initContainers") or ()), *(pod.get("spec", {}).get("containers") or ())]
        )
    }
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    yield from sorted(states, key=lambda s: ranks.get(s["name"], len(ranks)))


def age(manifest: Mapping[str, Any], now: datetime) -> float:
    """Seconds since an object was created."""
    return (now - parse_time(manifest["metadata"]["creationTimestamp"])).total_seconds()


def puzzling(jobs: Sequence[Manifest], pods: Sequence[Manifest], now: datetime) -> tuple[str, ...]:
    """UIDs of Jobs and pods of which only events can say why they do not start."""
    owners = {o["uid"] for p in pods for o in p["metadata"].get("ownerReferences", ())}
    stuck_jobs = [
        j["metadata"]["uid"]
        for j in jobs
        if j["metadata"]["uid"] not in owners and not is_finished(j) and age(j, now) > PUZZLING_AFTER
    ]
    stuck_pods = [p["metadata"]["uid"] for p in pods if _has_not_started(p) and age(p, now) > PUZZLING_AFTER]
    return (*stuck_jobs, *stuck_pods)


def is_finished(job: Mapping[str, Any]) -> bool:
    """Whether a Job has ended, either way."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return is_true(conditions, "Complete") or is_true(conditions, "Failed")


def waits_of(pod: Mapping[str, Any], events: Iterable[Manifest]) -> Waits | None:
    """Why a pod does not start or go on, if something keeps it."""
    since = parse_time(pod["metadata"]["creationTimestamp"])
    conditions = (pod.get("status") or {}).get("conditions") or ()
    scheduled = find_condition(conditions, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        told = str(scheduled.get("message") or "")
        if "persistentvolumeclaim" in told and "not found" in told:
            text = f"a claim that the pod needs is not in its namespace: {told}. Create it, or name another"
            return Waits(Reason.CLAIM_NOT_FOUND, text, since)
        message = f"no node can take the pod: {scheduled.get('message') or scheduled.get('reason') or 'unschedulable'}"
        return Waits(Reason.UNSCHEDULABLE, message, since)
    for container in containers_of(pod):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting is not None:
            found = _waits_of_container(container, waiting, since)
            if found is not None:
                return found
    return _waits_of_mounts(pod, events, since) if _has_not_started(pod) else None


def refusal_of(text: str) -> tuple[Reason, str]:
    """What a refused pod (or Job) was refused for, by the API server's words."""
    if "exceeded quota" in text:
        return Reason.QUOTA_EXCEEDED, (
            f"the namespace's quota does not allow the pod: {text}. Raise the ResourceQuota, or ask for less"
        )
    if "violates PodSecurity" in text:
        return Reason.POD_REFUSED, f"the namespace's Pod Security refuses the pod: {text}"
    return Reason.POD_REFUSED, f"the cluster refuses the pod: {text}"


def waits_without_pod(job: Mapping[str, Any], events: Iterable[Manifest]) -> Waits | None:
    """Why a Job has no pod, by its newest event."""
    uid = job["metadata"]["uid"]
    texts = [
        e for e in events if e.get("reason") == "FailedCreate" and (e.get("involvedObject") or {}).get("uid") == uid
    ]
    if not texts:
        return None
    reason, message = refusal_of(_newest(texts).get("message", ""))
    return Waits(reason, message, parse_time(job["metadata"]["creationTimestamp"]))


def trouble_of(waits: Waits, now: datetime) -> Trouble:
    """A wait as trouble: for a while it may pass by itself, then a person should look."""
    lasted = (now - waits.since).total_seconds()
    return Trouble(reason=waits.reason, message=waits.message, stalled=lasted >= PATIENCE)


def refused_replicas(deployment: Mapping[str, Any]) -> Waits | None:
    """Why a Deployment's ReplicaSet cannot make pods."""
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    failure = find_condition(conditions, "ReplicaFailure")
    if failure is None or failure.get("status") != "True":
        return None
    reason, message = refusal_of(str(failure.get("message") or failure.get("reason")))
    return Waits(reason, message, parse_time(str(failure["lastTransitionTime"])))


def _waits_of_container(container: Mapping[str, Any], waiting: Mapping[str, Any], since: datetime) -> Waits | None:
    reason, message = waiting.get("reason", ""), waiting.get("message") or ""
    if reason in _PULL:
        # The kubelet says the same with and without "Back-off pulling image …: ErrImagePull: " in turns.
        cause = message.rpartition("ErrImagePull: ")[2] or reason
        text = f"image {container.get('image')} cannot be pulled: {cause}"
        return Waits(Reason.IMAGE_CANNOT_BE_PULLED, text, since)
    if reason in _CONFIG:
        text = f"container {container['name']} cannot be set up: {message or reason}"
        return Waits(Reason.SECRET_NOT_FOUND if "secret" in message else Reason.CONTAINER_CANNOT_START, text, since)
    if reason in _START:
        text = f"container {container['name']} cannot start: {message or reason}"
        return Waits(Reason.CONTAINER_CANNOT_START, text, since)
    return None


def _waits_of_mounts(pod: Mapping[str, Any], events: Iterable[Manifest], since: datetime) -> Waits | None:
    uid = pod["metadata"]["uid"]
    mounts = [
        e
        for e in events
        if (e.get("involvedObject") or {}).get("uid") == uid
        and e.get("reason") in {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
    ]
    if not mounts:
        return None
    message = str(_newest(mounts).get("message", ""))
    if "secret" in message and "not found" in message:
        return Waits(
            Reason.SECRET_NOT_FOUND,
            f"a Secret that the pod needs is not in namespace {pod['metadata']['namespace']}: {message}. "
            "Create it, or name another; the pod starts by itself then",
            since,
        )
    absent = message.rpartition("references non-existent secret key: ")
    if absent[1]:
        return Waits(
            Reason.SECRET_KEY_MISSING,
            f"a Secret that the pod needs has no key {absent[2]}: {message}. "
            "Add it, or name another Secret; the pod starts by itself then",
            since,
        )
    return Waits(Reason.CONTAINER_CANNOT_START, f"the pod cannot start: {message}", since)


def _has_not_started(pod: Mapping[str, Any]) -> bool:
    if (pod.get("status") or {}).get("phase", "Pending") != "Pending":
        return False
    return all(
        "running" not in (c.get("state") or {}) and "terminated" not in (c.get("state") or {})
        for c in containers_of(pod)
    )


def _newest(events: Sequence[Manifest]) -> Manifest:
    return max(events, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
