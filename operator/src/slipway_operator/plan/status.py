"""The status: what is true at this moment of the way, in words.

Three questions in order: is something wrong, is something under way, or has all
settled. The first answer is the one that ``Ready`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.conditions import (
    AVAILABLE,
    READY,
    RECONCILING,
    STALLED,
    Condition,
    clipped,
    find_condition,
    with_condition,
)
from slipway_operator.domain.labels import RETRY
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.requests import Built, Exported, Trained
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.attempts import StepResult
from slipway_operator.plan.chain import Chain, Look
from slipway_operator.plan.observed import Event, Manifest, Observed, Trouble
from slipway_operator.plan.rollout import Rollout, live_since
from slipway_operator.plan.serving import deployment_name, selector_text
from slipway_operator.plan.wishes import ref_of_source

SUMMARY_LIMIT = 100
_DOING = {"Build": Reason.BUILDING, "Train": Reason.TRAINING, "Export": Reason.EXPORTING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that the status is told from."""

    seen: Observed
    spec: ModelDeploymentSpec | None
    entries: Sequence[LoggedEntry]
    chain: Chain | None = None
    look: Look | None = None
    rollout: Rollout = field(default_factory=Rollout)
    commit: str | None = None
    blocked: Trouble | None = None
    new_entry: int | None = None
    """Number of the entry that this plan writes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where it stands."""

    reason: Reason | str
    message: str
    state: str
    """``Settled``, ``Moving`` or ``Stalled``."""


def status_for(story: Story) -> Manifest:
    """The whole status."""
    seen, verdict = story.seen, _verdict(story)
    conditions = conditions_for(seen.status.get("conditions") or (), verdict, _available(story), seen=seen)
    live = story.entries[-1].entry if story.entries else None
    body: dict[str, Any] = {
        "observedGeneration": seen.generation,
        "summary": summary_of(verdict),
        "retryOf": seen.annotations.get(RETRY),
        "source": _source(story),
        "steps": _steps(story),
        "training": _training(story.chain),
        "export": _export(story.chain),
        "replicas": story.rollout.live.replicas,
        "readyReplicas": story.rollout.live.ready,
        "conditions": conditions,
    }
    if story.spec is None:
        # Nothing is known of what is wanted: what was true of the rest stays as it was told.
        kept = ("source", "steps", "training", "export", "replicas", "readyReplicas")
        body.update({field: seen.status.get(field) for field in kept})
    if live is not None:
        lane = live.digests.short
        body["url"] = f"http://{seen.key.name}.{seen.key.namespace}.svc/v2/models/{seen.key.name}"
        body["selector"] = selector_text(seen.key.name, lane)
        body["live"] = {
            "content": lane,
            "revision": live.number,
            "since": live_since(story.entries),
            "commit": live.digests.commit,
        }
    return {name: value for name, value in body.items() if value is not None}


def conditions_for(
    old: Sequence[Mapping[str, Any]], verdict: Verdict, available: Condition | None, *, seen: Observed
) -> list[dict[str, Any]]:
    """The conditions that tell a verdict."""
    settled, stalled = verdict.state == "Settled", verdict.state == "Stalled"
    reason, message = str(verdict.reason), verdict.message
    new = [
        Condition(READY, "True" if settled else "False", reason, message),
        Condition(RECONCILING, "True", reason, message)
        if verdict.state == "Moving"
        else Condition(RECONCILING, "False", reason if stalled else Reason.SETTLED, ""),
        Condition(STALLED, "True", reason, message)
        if stalled
        else Condition(STALLED, "False", Reason.SETTLED if settled else reason, ""),
        *([available] if available is not None else []),
    ]
    conditions = [dict(c) for c in old]
    for condition in new:
        conditions = with_condition(conditions, condition, generation=seen.generation, now=seen.now)
    return conditions


def summary_of(verdict: Verdict) -> str:
    """One line for ``kubectl get``."""
    words = str(verdict.reason)
    text = (
        verdict.message if verdict.state == "Settled" else f"{words}: {verdict.message}" if verdict.message else words
    )
    return clipped(" ".join(text.split()), SUMMARY_LIMIT)


def events_for(seen: Observed, status: Mapping[str, Any], created: Mapping[str, Any] | None) -> tuple[Event, ...]:
    """What changed since the last status, in words."""
    events: list[Event] = []
    old_steps = {s["name"]: s.get("state") for s in seen.status.get("steps") or ()}
    for step in status.get("steps") or ():
        before = old_steps.get(step["name"])
        if step.get("state") == "Succeeded" and before not in {None, "Succeeded"} and step["name"] != "Rollout":
            events.append(Event("Normal", f"{step['name']}Succeeded", step.get("message") or f"{step['name']} is done"))
    if created is not None:
        data = created["data"]
        words = f"revision {data['number']} is live: content {created['metadata']['labels']['slipway.dev/content']}, "
        events.append(Event("Normal", "WentLive", words + data["why"]))
    old, new = (
        find_condition(seen.status.get("conditions") or (), STALLED),
        find_condition(status.get("conditions") or (), STALLED),
    )
    if new is not None and new["status"] == "True":
        if old is None or (old.get("status"), old.get("reason")) != (new["status"], new["reason"]):
            events.append(Event("Warning", str(new["reason"]), str(new["message"])))
    elif old is not None and old.get("status") == "True":
        ready = find_condition(status.get("conditions") or (), READY) or {}
        events.append(Event("Normal", "GoesOn", f"goes on: {ready.get('message', '')}"))
    return tuple(events)


def _verdict(story: Story) -> Verdict:
    if story.blocked is not None:
        return _told(story.blocked)
    look, chain = story.look, story.chain
    if look is not None and look.trouble is not None and (look.trouble.stalled or story.commit is None):
        return _told(look.trouble)
    if chain is None:
        return Verdict(Reason.RESOLVING, "asking the repository what the ref names", "Moving")
    stuck = chain.stuck
    if stuck is not None:
        if stuck.trouble is not None:
            return _told(stuck.trouble)
        return Verdict(_DOING[stuck.name], stuck.message or "", "Moving")
    return _verdict_on_rollout(story, chain)


def _verdict_on_rollout(story: Story, chain: Chain) -> Verdict:
    return _verdict_on_candidate(story, chain) or _verdict_on_live(story)


def _verdict_on_candidate(story: Story, chain: Chain) -> Verdict | None:
    rollout, content = story.rollout, chain.content
    candidate = rollout.candidate
    if story.new_entry is not None:
        return Verdict(Reason.GOING_LIVE, f"revision {story.new_entry} goes live", "Moving")
    if rollout.probing:
        return Verdict(Reason.PROBING_NODES, "asking the nodes whether they can mount images", "Moving")
    if candidate is not None and content is not None:
        if candidate.trouble is not None:
            return _told(candidate.trouble)
        words = f"{candidate.ready} of {candidate.size} pods of content {content.short} answer"
        return Verdict(Reason.ROLLING_OUT, words, "Moving")
    return None


def _verdict_on_live(story: Story) -> Verdict:
    rollout = story.rollout
    if not story.entries or not rollout.switched:
        return Verdict(Reason.GOING_LIVE, "the Service turns to the new content", "Moving")
    live, entry = rollout.live, story.entries[-1].entry
    if not live.complete:
        if live.trouble is not None:
            return _told(live.trouble)
        if live.updated < live.size <= live.ready:
            return Verdict(Reason.SCALING, f"{live.updated} of {live.size} pods are replaced by newer ones", "Moving")
        return Verdict(Reason.SCALING, f"{live.ready} of {live.size} pods answer", "Moving")
    return Verdict(Reason.SERVING, f"revision {entry.number} answers (content {entry.digests.short})", "Settled")


def _told(trouble: Trouble) -> Verdict:
    return Verdict(trouble.reason, trouble.message, "Stalled" if trouble.stalled else "Moving")


def _available(story: Story) -> Condition | None:
    if not story.entries:
        return Condition(AVAILABLE, "False", Reason.NOTHING_LIVE, "no content is live yet")
    if story.spec is None:
        return None if find_condition(story.seen.status.get("conditions") or (), AVAILABLE) else _by_deployment(story)
    if story.spec.serving.replicas == 0:
        return Condition(AVAILABLE, "False", "ScaledToZero", "spec.serving.replicas is 0")
    if not story.rollout.switched:
        return Condition(AVAILABLE, "False", Reason.GOING_LIVE, "the Service does not select the live content yet")
    return _by_deployment(story)


def _by_deployment(story: Story) -> Condition:
    live = story.entries[-1].entry.digests
    deployment = story.seen.deployment(deployment_name(story.seen.key.name, live)) or {}
    ready = int((deployment.get("status") or {}).get("availableReplicas", 0))
    if ready > 0:
        return Condition(AVAILABLE, "True", Reason.SERVING, f"content {live.short} answers predictions")
    return Condition(AVAILABLE, "False", "NoPodAnswers", f"no pod of content {live.short} answers")


def _source(story: Story) -> Manifest | None:
    if story.spec is None:
        return None
    built = _answer(story.chain, "Build")
    commit = built.commit if isinstance(built, Built) else story.commit
    before = story.seen.status.get("source") or {}
    step = _step(story.chain, "Build")
    at = story.look.at if story.look is not None else None
    found = {
        "commit": commit,
        "ref": ref_of_source(story.spec),
        "resolvedAt": before.get("resolvedAt")
        if before.get("commit") == commit and before.get("resolvedAt")
        else (at or (step.finished_at if step is not None else None))
        if commit is not None
        else None,
        "package": built.package if isinstance(built, Built) else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _steps(story: Story) -> list[Manifest]:
    steps = (
        list(story.chain.steps)
        if story.chain is not None
        else [StepResult(name=n, state="Pending") for n in ("Build", "Train", "Export")]
    )
    steps.append(_rollout_step(story))
    shown = []
    for step in steps:
        fields = {
            "name": step.name,
            "state": step.state,
            "key": step.key,
            "startedAt": step.started_at,
            "finishedAt": step.finished_at,
            "message": clipped(step.message) if step.message else None,
            "job": step.job,
        }
        shown.append({name: value for name, value in fields.items() if value is not None})
    return shown


def _rollout_step(story: Story) -> StepResult:
    content = story.chain.content if story.chain is not None else None
    if content is None:
        return StepResult(name="Rollout", state="Pending")
    deployment = story.seen.deployment(deployment_name(story.seen.key.name, content))
    started = deployment["metadata"].get("creationTimestamp") if deployment is not None else None
    candidate = story.rollout.candidate
    if candidate is None:
        at = live_since(story.entries) if story.entries else None
        return StepResult(name="Rollout", state="Succeeded", key=content.short, started_at=started, finished_at=at)
    trouble = candidate.trouble
    message = trouble.message if trouble is not None else f"{candidate.ready} of {candidate.size} pods answer"
    if trouble is None:
        return StepResult(name="Rollout", state="Running", key=content.short, started_at=started, message=message)
    state = "Failed" if trouble.stalled else "Waiting"
    return StepResult(name="Rollout", state=state, key=content.short, started_at=started, message=message)  # type: ignore[arg-type]


def _training(chain: Chain | None) -> Manifest | None:
    trained = _answer(chain, "Train")
    if not isinstance(trained, Trained):
        return None
    return {"seconds": trained.seconds, "metrics": dict(trained.metrics)}


def _export(chain: Chain | None) -> Manifest | None:
    exported = _answer(chain, "Export")
    if not isinstance(exported, Exported):
        return None
    return {
        "rows": exported.rows,
        "maxAbsoluteDifference": exported.max_absolute_difference,
        "labelFlips": exported.label_flips,
    }


def _step(chain: Chain | None, name: str) -> StepResult | None:
    return next((s for s in chain.steps if s.name == name), None) if chain is not None else None


def _answer(chain: Chain | None, name: str) -> Any:
    step = _step(chain, name)
    return step.answer if step is not None else None
