"""A deployment at one moment: its contents with their share of the traffic and digests, its pods, its steps.

Plain data, as ``-o json`` prints it; `tree` makes lines of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slipway_cli.views.words import age, condition, is_paused, source_words
from slipway_cli.views.world import World
from slipway_operator.domain import labels

_DIGESTS = ("commit", "package", "environment", "model", "onnx", "modelImage", "runtime")
_ORDER = ("live", "canary", "rolling out", "standby", "held", "off")


def overview(world: World, now: datetime) -> dict[str, Any]:
    """All that ``get`` shows of one deployment."""
    resource = world.resource
    status = resource.get("status") or {}
    meta = resource["metadata"]
    ready = condition(resource, "Ready")
    return {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "age": age(meta.get("creationTimestamp"), now),
        "summary": status.get("summary") or "the operator has not looked at it yet",
        "state": _state(resource),
        "ready": ready.get("status", "Unknown"),
        "reason": ready.get("reason", ""),
        "message": ready.get("message", ""),
        "source": source_words(resource.get("spec") or {}),
        "commit": (status.get("source") or {}).get("commit"),
        "url": status.get("url"),
        "live": status.get("live"),
        "requests": list(status.get("requests") or ()),
        "rollout": status.get("rollout"),
        "held": list(status.get("held") or ()),
        "steps": [_step(step, world, now) for step in status.get("steps") or ()],
        "contents": _contents(world, now),
        "unseen": list(world.unseen),
    }


def _state(resource: Mapping[str, Any]) -> str:
    """``Ready``, ``Moving``, ``Paused``, ``Held``, ``Stalled`` or ``Unseen``."""
    status = resource.get("status") or {}
    if status.get("observedGeneration") != resource["metadata"].get("generation"):
        return "Unseen"
    ready, stalled = condition(resource, "Ready"), condition(resource, "Stalled")
    if ready.get("status") == "True":
        return "Ready"
    if stalled.get("status") == "True":
        return "Held" if stalled.get("reason") in {"RolledBack", "Aborted"} else "Stalled"
    return "Paused" if is_paused(resource) else "Moving"


def _contents(world: World, now: datetime) -> list[dict[str, Any]]:
    status = world.resource.get("status") or {}
    live = (status.get("live") or {}).get("content") or _logged_live(world.entries)
    roles: dict[str, str] = {}
    for deployment in world.deployments:
        content = deployment["metadata"].get("labels", {}).get(labels.CONTENT)
        if content:
            roles[content] = "off"
    for held in status.get("held") or ():
        roles[held["content"]] = "held"
    for entry in ("standby", "rollout"):
        found = status.get(entry) or {}
        if found.get("content"):
            roles[found["content"]] = "standby" if entry == "standby" else _rollout_role(found)
    for content in [content for content, role in roles.items() if role == "off"]:
        if _pods(world, content):
            roles[content] = "standby" if _revision(world.entries, content) else "rolling out"
    if live:
        roles[live] = "live"
    taking = {content: _taking(world, content, live) for content in roles}
    total = sum(taking.values())
    shown = [
        _content(world, content, role, share=taking[content] / total if total else 0.0, now=now)
        for content, role in roles.items()
    ]
    return sorted(shown, key=lambda c: (_ORDER.index(c["role"]), -(c["revision"] or 0), c["content"]))


def _rollout_role(rollout: Mapping[str, Any]) -> str:
    return "rolling out" if rollout.get("state") == "RollingOut" else "canary"


def _content(world: World, content: str, role: str, *, share: float, now: datetime) -> dict[str, Any]:
    entry = _newest(world.entries, content)
    digests = dict((entry or {}).get("digests") or {})
    status = world.resource.get("status") or {}
    held: Mapping[str, Any] = next((h for h in status.get("held") or () if h["content"] == content), {})
    since = (status.get("live") or {}).get("since") if role == "live" else (entry or {}).get("at")
    pods = [_pod(pod, now) for pod in sorted(_pods(world, content), key=lambda pod: str(pod["metadata"]["name"]))]
    return {
        "content": content,
        "role": role,
        "share": round(share, 4),
        "revision": entry["number"] if entry else None,
        "since": since,
        "age": age(since, now),
        "digests": {name: digests[name] for name in _DIGESTS if digests.get(name)},
        "held": held.get("why"),
        "pods": pods,
    }


def _pods(world: World, content: str) -> list[Mapping[str, Any]]:
    return [
        pod
        for pod in world.pods
        if content in {_label(pod, labels.CONTENT), _label(pod, labels.CANARY)} and not _label(pod, labels.STEP)
    ]


def _taking(world: World, content: str, live: str | None) -> int:
    """Pods of a content that take part of the Service's traffic: ready, and in the lane that it selects."""
    selector = ((world.service or {}).get("spec") or {}).get("selector") or {}
    lane = selector.get(labels.LANE) or live
    return sum(1 for pod in _pods(world, content) if _label(pod, labels.LANE) == lane and _is_ready(pod))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready").get("status") == "True"


def _pod(pod: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    wanted = len((pod.get("spec") or {}).get("containers") or states)
    return {
        "name": pod["metadata"]["name"],
        "status": pod_word(pod),
        "ready": _is_ready(pod),
        "containers": f"{sum(1 for state in states if state.get('ready'))}/{wanted}",
        "restarts": sum(int(state.get("restartCount", 0)) for state in states),
        "age": age(pod["metadata"].get("creationTimestamp"), now),
        "node": (pod.get("spec") or {}).get("nodeName"),
        "canary": bool(_label(pod, labels.CANARY)),
    }


def pod_word(pod: Mapping[str, Any]) -> str:
    """A pod's state in one word, as ``kubectl get pods`` says it."""
    status = pod.get("status") or {}
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for group, prefix in (("initContainerStatuses", "Init:"), ("containerStatuses", "")):
        for container in status.get(group) or ():
            state = container.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            if waiting.get("reason") and waiting["reason"] != "PodInitializing":
                return f"{prefix}{waiting['reason']}"
            if ended and (prefix == "" or ended.get("exitCode")):
                return f"{prefix}{ended.get('reason') or ended.get('exitCode')}"
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _step(step: Mapping[str, Any], world: World, now: datetime) -> dict[str, Any]:
    pods = [pod for pod in world.pods if step.get("job") and _label(pod, "batch.kubernetes.io/job-name") == step["job"]]
    started, finished = step.get("startedAt"), step.get("finishedAt")
    took = age(started, datetime.fromisoformat(finished) if finished else now) if started else ""
    return {
        "name": step["name"],
        "state": step.get("state", "Pending"),
        "took": took,
        "message": step.get("message"),
        "job": step.get("job"),
        "pods": [_pod(pod, now) for pod in pods],
    }


def _logged_live(entries: Sequence[Mapping[str, Any]]) -> str | None:
    return short_content(entries[-1]) if entries else None


def short_content(entry: Mapping[str, Any]) -> str:
    """The short digest of an entry's content, as pods and answers carry it."""
    return str(entry.get("content", "")).removeprefix("sha256:")[:10]


def _newest(entries: Sequence[Mapping[str, Any]], content: str) -> Mapping[str, Any] | None:
    return next((entry for entry in reversed(entries) if short_content(entry) == content), None)


def _revision(entries: Sequence[Mapping[str, Any]], content: str) -> int | None:
    entry = _newest(entries, content)
    return int(entry["number"]) if entry else None


def _label(thing: Mapping[str, Any], name: str) -> str | None:
    value = (thing["metadata"].get("labels") or {}).get(name)
    return str(value) if value is not None else None
