"""How the pods of one Deployment are, by the cluster's own word, and what keeps them from answering."""

from __future__ import annotations

from dataclasses import dataclass

from slipway_operator.domain.conditions import find_condition
from slipway_operator.domain.reasons import Reason, well_formed
from slipway_operator.plan.native import NAME as WORKER
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.outcomes import failed_message
from slipway_operator.plan.troubles import containers_of, refused_replicas, trouble_of, waits_of

CRASHES = 3
"""Restarts after which a runtime that ends by itself is a person's matter."""


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


def readiness_of(seen: Observed, name: str, *, size: int) -> Readiness:
    """How the pods of a Deployment are, by its own word."""
    deployment = seen.deployment(name)
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
    # Where no pod is asked for and none is there, nothing has to be waited for: not even for somebody to notice.
    complete = complete or size == asked == total == 0
    return Readiness(
        replicas=total,
        ready=ready,
        updated=updated,
        size=size,
        complete=complete,
        trouble=None if complete else _trouble(seen, deployment),
    )


def _trouble(seen: Observed, deployment: Manifest) -> Trouble | None:
    """What keeps pods from answering, the most telling first."""
    refused = refused_replicas(deployment)
    if refused is not None:
        return trouble_of(refused, seen.now)
    chosen = deployment["spec"]["selector"]["matchLabels"].items()
    pods = [
        p for p in seen.pods if chosen <= p["metadata"]["labels"].items() and not p["metadata"].get("deletionTimestamp")
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
        name = deployment["metadata"]["name"]
        words = f"the pods did not become ready: kubectl logs deployment/{name} shows why"
        return Trouble(reason=Reason.ROLLOUT_TIMED_OUT, message=words, stalled=True)
    return None


def _crash(pod: Manifest) -> Trouble | None:
    for container in containers_of(pod):
        state = container.get("state") or {}
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if ended is None or ended.get("exitCode", 0) == 0 or container.get("ready"):
            continue
        stalled = int(container.get("restartCount", 0)) >= CRASHES
        if ended.get("reason") == "OOMKilled":
            field = "spec.serving.native.resources" if container["name"] == WORKER else "spec.serving.resources"
            text = f"a serving pod needed more memory than its limit: raise {field}.limits.memory"
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
