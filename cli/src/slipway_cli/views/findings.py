"""What `doctor` finds: each check a pure function from what was seen to findings with an advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from slipway_cli.views.overview import overview, short_content
from slipway_cli.views.words import condition
from slipway_cli.views.world import World

Level = Literal["ok", "note", "warning", "fault"]

OLDEST = (1, 30)
_SEEN_SECONDS = 30
_RESTARTS = 3

_DO: dict[str, str] = {
    "RolledBack": "it goes on by itself with a new commit or another spec; `kubectl slipway resume {name}` releases "
    "what is held",
    "Aborted": "push a new commit, or `kubectl slipway resume {name}` to try the same content again",
    "Paused": "`kubectl slipway pause {name} --off` goes on, unless spec.rollout.paused is true",
    "Canary": "wait, or `kubectl slipway promote {name}`, or `kubectl slipway abort {name}`",
    "NothingLive": "the first content is on its way: see its steps",
    "ScaledToZero": "set spec.serving.replicas, or `kubectl scale modeldeployment {name} --replicas=2`",
    "NoPodAnswers": "see its pods: `kubectl slipway get {name}` and `kubectl slipway logs {name}`",
    "LogBroken": "somebody changed or deleted an entry of the log: restore it from a backup; what is live goes on",
    "ImageCannotBePulled": "give the namespace the registry's Secret, or see whether the nodes reach the registry",
    "Unschedulable": "free resources, or add nodes, or ask for less in spec.serving.resources",
    "QuotaExceeded": "raise the namespace's quota, or ask for less",
    "ImageNotFound": "somebody deleted it from the registry: push a new commit, or restore it",
    "RegistryUnavailable": "see whether the registry is up; it is tried again by itself",
    "SecretNotFound": "create the Secret that the spec names",
}
_STEP_OF_REASON = {"Build": "build", "Training": "train", "Train": "train", "Export": "export", "Parity": "export"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: fault: something does not work; warning: it will not for long, or not for all; note: worth knowing.
        what: What was seen.
        advice: What to do; empty where nothing is.
    """

    level: Level
    what: str
    advice: str = ""


def of_version(version: Mapping[str, Any]) -> list[Finding]:
    """Whether the cluster is new enough."""
    digits = ["".join(c for c in str(version.get(part, "")) if c.isdigit()) for part in ("major", "minor")]
    shown = str(version.get("gitVersion", "unknown"))
    if not all(digits):
        return [Finding("note", f"the API server says it is {shown}")]
    if (int(digits[0]), int(digits[1])) < OLDEST:
        return [Finding("fault", f"Kubernetes {shown} is too old", "Slipway needs 1.30 or newer")]
    return [Finding("ok", f"Kubernetes {shown}")]


def of_crd(name: str, crd: Mapping[str, Any] | None) -> list[Finding]:
    """Whether a kind is installed and usable."""
    if crd is None:
        return [Finding("fault", f"the kind {name} is not installed", "install the chart, or apply crds/")]
    if condition(crd, "Established").get("status") != "True":
        said = condition(crd, "NamesAccepted").get("message") or "it is not established"
        return [Finding("fault", f"the kind {name} is not usable: {said}", "see `kubectl describe crd " + name + "`")]
    served = [v["name"] for v in (crd.get("spec") or {}).get("versions") or () if v.get("served")]
    if "v1alpha1" not in served:
        return [Finding("fault", f"the kind {name} has the versions {served} only", "install this release's chart")]
    return [Finding("ok", f"the kind {name} is installed")]


def of_operators(found: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Whether one operator runs."""
    if not found:
        return [Finding("fault", "no operator is installed", "install the chart (docs/install.md)")]
    findings = []
    for operator in found:
        where = f"{operator['metadata']['namespace']}/{operator['metadata']['name']}"
        status, wanted = operator.get("status") or {}, (operator.get("spec") or {}).get("replicas", 1)
        if wanted == 0:
            findings.append(Finding("fault", f"the operator {where} is scaled to 0", "scale it to 1: nobody acts now"))
        elif status.get("readyReplicas", 0) < wanted:
            logs = (
                f"see `kubectl -n {operator['metadata']['namespace']} logs deployment/{operator['metadata']['name']}`"
            )
            findings.append(Finding("fault", f"the operator {where} is not ready", logs))
        else:
            findings.append(Finding("ok", f"the operator {where} is ready"))
    for pod in pods:
        restarts = sum(int(s.get("restartCount", 0)) for s in (pod.get("status") or {}).get("containerStatuses") or ())
        if restarts >= _RESTARTS:
            words = f"the operator's pod {pod['metadata']['name']} was restarted {restarts} times"
            findings.append(Finding("warning", words, "see its log with --previous, and its memory limit"))
    return findings


def of_rights(allowed: Mapping[str, bool | None]) -> list[Finding]:
    """What this person may do."""
    missing = [what for what, may in allowed.items() if may is False]
    if not missing:
        return [Finding("ok", "you may do all that these commands need")]
    advice = "ask for view in this namespace, and for edit, or the role slipway-rollback, to change something"
    return [Finding("warning", f"you may not {', '.join(missing)}", advice)]


def of_deployment(world: World, log_faults: Sequence[str], now: datetime) -> list[Finding]:
    """What is wrong with one deployment."""
    resource = world.resource
    name = resource["metadata"]["name"]
    findings = _of_attention(resource, now)
    findings += [Finding("fault", f"the log of {name}: {fault}", _DO["LogBroken"]) for fault in log_faults]
    findings += _of_conditions(resource)
    findings += _of_traffic(world)
    for content in overview(world, now)["contents"]:
        for pod in content["pods"]:
            where = f"pod {pod['name']} of content {content['content']} ({content['role']})"
            if pod["restarts"] >= _RESTARTS:
                advice = f"see `kubectl slipway logs {name} --previous`, and the memory limit of spec.serving"
                findings.append(Finding("warning", f"{where} was restarted {pod['restarts']} times", advice))
            if not pod["ready"] and pod["status"] not in {"Running", "Pending", "Terminating", "ContainerCreating"}:
                advice = f"see `kubectl describe pod {pod['name']}`"
                findings.append(Finding("warning", f"{where}: {pod['status']}", advice))
    if all(finding.level in {"ok", "note"} for finding in findings):
        live = (resource.get("status") or {}).get("live") or {}
        words = f"{name} answers: revision {live.get('revision')}, content {live.get('content')}"
        findings.insert(0, Finding("ok", words if live else f"{name} is on its way"))
    return findings


def _of_attention(resource: Mapping[str, Any], now: datetime) -> list[Finding]:
    meta, status = resource["metadata"], resource.get("status") or {}
    if status.get("observedGeneration") == meta.get("generation"):
        return []
    changed = max(
        (str(f["time"]) for f in meta.get("managedFields") or () if f.get("time") and f.get("subresource") != "status"),
        default=str(meta.get("creationTimestamp")),
    )
    waited = (now - datetime.fromisoformat(changed)).total_seconds()
    if waited < _SEEN_SECONDS:
        return [Finding("note", f"{meta['name']} was changed {waited:.0f} s ago and will be looked at in a moment")]
    advice = "see whether the operator runs and serves this namespace (its setting `namespaces`)"
    return [Finding("fault", f"nobody has looked at {meta['name']} since it was changed {waited:.0f} s ago", advice)]


def _of_conditions(resource: Mapping[str, Any]) -> list[Finding]:
    name, findings = resource["metadata"]["name"], []
    available, ready, stalled = (condition(resource, kind) for kind in ("Available", "Ready", "Stalled"))
    if available.get("status") == "False":
        # A first content that is on its way is no fault.
        young = available.get("reason") == "NothingLive" and stalled.get("status") != "True"
        findings.append(_told(name, "note" if young else "fault", "answers nothing", available))
    if stalled.get("status") == "True":
        findings.append(
            _told(name, "fault" if available.get("status") != "True" else "warning", "stands still", stalled)
        )
    elif ready.get("status") == "False":
        findings.append(_told(name, "note", "is not at what its spec asks for", ready))
    intact = condition(resource, "LogIntact")
    if intact.get("status") == "False":
        findings.append(_told(name, "fault", "has a log that was tampered with", intact))
    back = condition(resource, "RollbackReady")
    if back.get("status") == "False":
        findings.append(_told(name, "warning", "could not be rolled back now", back))
    return findings


def _told(name: str, level: Level, words: str, found: Mapping[str, Any]) -> Finding:
    reason = str(found.get("reason", ""))
    advice = _DO.get(reason, "").format(name=name)
    step = next((step for word, step in _STEP_OF_REASON.items() if reason.startswith(word)), None)
    if not advice and step:
        advice = f"see `kubectl slipway logs {name} {step}`"
    return Finding(level, f"{name} {words}: {reason}: {found.get('message', '')}".rstrip(": "), advice)


def _of_traffic(world: World) -> list[Finding]:
    name = world.resource["metadata"]["name"]
    if not world.entries or "services" in world.unseen:
        return []
    if world.service is None:
        return [Finding("fault", f"{name} has no Service", "the operator makes it again: see whether it runs")]
    lane = ((world.service.get("spec") or {}).get("selector") or {}).get("slipway.dev/lane")
    live = short_content(world.entries[-1])
    if lane != live:
        advice = "the operator turns it within seconds: see whether it runs"
        return [Finding("fault", f"the Service of {name} selects {lane}, and the log says {live} is live", advice)]
    return []
