"""The status: what is true at this moment of the way, in words.

`verdicts` says where it stands; here is the rest of what status shows, and how
conditions tell it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slipway_operator.domain.conditions import (
    AVAILABLE,
    LOG_INTACT,
    READY,
    RECONCILING,
    ROLLBACK_READY,
    SERVED_NATIVELY,
    STALLED,
    Condition,
    clipped,
    find_condition,
    with_condition,
)
from slipway_operator.domain.digests import short10
from slipway_operator.domain.labels import CANARY, RETRY
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.requests import Built, Exported, Trained
from slipway_operator.plan.attempts import StepResult
from slipway_operator.plan.chain import Chain
from slipway_operator.plan.decisions import rows_of
from slipway_operator.plan.holds import active_holds
from slipway_operator.plan.native import is_native
from slipway_operator.plan.observed import Manifest, Observed
from slipway_operator.plan.proof import Proof, State
from slipway_operator.plan.rollout import live_since
from slipway_operator.plan.serving import deployment_name, selector_text
from slipway_operator.plan.story import Story, Verdict
from slipway_operator.plan.verdicts import verdict_of
from slipway_operator.plan.watch import figures_of
from slipway_operator.plan.wishes import ref_of_source

SUMMARY_LIMIT = 100
_LOUD: dict[str, str] = {Reason.ROLLED_BACK: "ROLLED BACK", Reason.ABORTED: "ABORTED"}
"""What a person should not overlook in a list."""
_HELD_ROWS = 16
_KEPT = (
    "source",
    "steps",
    "training",
    "export",
    "standby",
    "held",
    "rollout",
    "replicas",
    "readyReplicas",
)


def status_for(story: Story) -> Manifest:
    """The whole status."""
    seen, verdict = story.seen, verdict_of(story)
    told = (_available(story), _rollback_ready(story), _log_intact(story), _served_natively(story))
    more = [c for c in told if c is not None]
    conditions = conditions_for(seen.status.get("conditions") or (), verdict, more, seen=seen)
    live = story.entries[-1].entry if story.entries else None
    body: dict[str, Any] = {
        "observedGeneration": seen.generation,
        "summary": summary_of(verdict),
        "retryOf": seen.annotations.get(RETRY),
        "source": _source(story),
        "steps": _steps(story),
        "training": _training(story.chain),
        "export": _export(story.chain),
        "standby": _standby(story),
        "held": _held(story),
        "rollout": _rollout(story),
        "requests": rows_of(seen, story.decisions.answers) or None,
        "replicas": story.rollout.live.replicas,
        "readyReplicas": story.rollout.live.ready,
        "conditions": conditions,
    }
    if story.spec is None:
        # Nothing is known of what is wanted: what was true of the rest stays as it was told.
        body.update({field: seen.status.get(field) for field in _KEPT})
    if live is not None:
        lane = live.digests.short
        body["url"] = _url(story)
        body["selector"] = selector_text(seen.key.name, lane)
        body["live"] = {
            "content": lane,
            "revision": live.number,
            "since": live_since(story.entries),
            "commit": live.digests.commit,
        }
    return {name: value for name, value in body.items() if value is not None}


def conditions_for(
    old: Sequence[Mapping[str, Any]], verdict: Verdict, more: Sequence[Condition], *, seen: Observed
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
        *more,
    ]
    conditions = [dict(c) for c in old]
    for condition in new:
        conditions = with_condition(conditions, condition, generation=seen.generation, now=seen.now)
    return conditions


def summary_of(verdict: Verdict) -> str:
    """One line for ``kubectl get``."""
    loud = _LOUD.get(str(verdict.reason))
    if loud is not None:
        return clipped(" ".join(f"{loud} {verdict.message}".split()), SUMMARY_LIMIT)
    words = str(verdict.reason)
    text = (
        verdict.message if verdict.state == "Settled" else f"{words}: {verdict.message}" if verdict.message else words
    )
    return clipped(" ".join(text.split()), SUMMARY_LIMIT)


def _served_natively(story: Story) -> Condition | None:
    """Said as long as it is so, and once when it is so no more."""
    live = story.entries[-1].entry if story.entries else None
    if live is None or not is_native(live.digests):
        before = find_condition(story.seen.status.get("conditions") or (), SERVED_NATIVELY)
        words = "the live content is answered by ONNX Runtime"
        return Condition(SERVED_NATIVELY, "False", "Onnx", words) if before is not None else None
    answers = [r.answer for r in live.steps if r.name == "Export"]
    why = str(answers[-1].get("why") or "") if answers else ""
    words = (
        "the model itself answers, in the project's environment beside the runtime, as it cannot be ONNX"
        f"{f' ({why})' if why else ''}. What that costs: one prediction at a time in each pod, a larger image and more "
        "memory, a slower start, and no export to other languages"
    )
    return Condition(SERVED_NATIVELY, "True", "NotOnnx", words)


def _url(story: Story) -> str:
    """Where predictions are answered; as it was told while nobody knows what the spec wants."""
    seen = story.seen
    if story.spec is None and seen.status.get("url"):
        return str(seen.status["url"])
    scheme = "https" if story.spec is not None and story.spec.serving.tls is not None else "http"
    return f"{scheme}://{seen.key.name}.{seen.key.namespace}.svc/v2/models/{seen.key.name}"


def _log_intact(story: Story) -> Condition | None:
    if story.faults:
        return Condition(LOG_INTACT, "False", Reason.LOG_BROKEN, "; ".join(story.faults))
    if not story.entries:
        return None
    return Condition(LOG_INTACT, "True", "Intact", "every entry follows from the one before")


def _rollback_ready(story: Story) -> Condition | None:
    if not story.entries or story.spec is None:
        return None
    standby = story.rollout.standby
    if standby is None:
        words = "the log has no other content that was healthy and is not held"
        return Condition(ROLLBACK_READY, "False", "NothingToGoBackTo", words)
    words = f"revision {standby.number} (content {standby.entry.digests.short})"
    if story.proof is None:
        words += ": spec.serving.replicas is 0, so that no pod answers its example rows and the registry is not asked"
        return Condition(ROLLBACK_READY, "Unknown", "ScaledToZero", words)
    return _proven(story, story.proof, words)


def _proven(story: Story, proof: Proof, words: str) -> Condition:
    """Whether the standby could take over: by its pods, and by what the registry said."""
    ready, size = story.rollout.standby_ready, story.rollout.standby_size
    pods = f"{min(ready, size)} of {size} standby pods answer (live: {story.rollout.live.size})"
    if ready < size:
        return Condition(ROLLBACK_READY, "False", "StandbyNotReady", f"{words}: {pods}")
    if proof.state is State.PROVEN:
        words += f" can take over: {pods}, they answered the example rows, {proof.message}"
        return Condition(ROLLBACK_READY, "True", "Proven", words)
    if proof.state is State.UNPROVEN:
        return Condition(ROLLBACK_READY, "Unknown", "NotProven", f"{words}: {proof.message}")
    reason = "ArtifactsMissing" if proof.missing else "SchemaChanged"
    return Condition(ROLLBACK_READY, "False", reason, f"{words}: {proof.message}")


def _standby(story: Story) -> Manifest | None:
    standby = story.rollout.standby
    if standby is None:
        return None
    return {
        "content": standby.entry.digests.short,
        "revision": standby.number,
        "readyReplicas": story.rollout.standby_ready,
    }


def _held(story: Story) -> list[Manifest] | None:
    rows = [
        {
            "content": short10(hold.content),
            "revision": by.number,
            "since": by.entry.at,
            "why": clipped(by.entry.why),
        }
        for by, hold in reversed(active_holds(story.entries))
    ]
    return rows[:_HELD_ROWS] or None


def _rollout(story: Story) -> Manifest | None:
    rollout, content = story.rollout, story.candidate
    if content is None or rollout.candidate is None:
        return None
    row: Manifest = {"content": content.short, "state": "Paused" if rollout.paused else "RollingOut"}
    canary = rollout.canary
    if canary is not None and canary.ready > 0:
        figures = figures_of(story.seen, label=CANARY, value=content.short)
        row |= {
            "state": "Paused" if rollout.paused else "Canary",
            "pods": canary.ready,
            "of": canary.of,
            "since": canary.since,
            "requests": figures.requests,
            "errorRate": round(figures.error_rate, 6) if figures.error_rate is not None else None,
            "refusalRate": round(figures.refusal_rate, 6) if figures.refused and figures.refusal_rate else None,
            "p99LatencyMillis": round(figures.p99_millis, 3) if figures.p99_millis is not None else None,
        }
    return {name: value for name, value in row.items() if value is not None}


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
    if story.look is not None and story.look.step is not None:
        steps.insert(0, story.look.step)
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
        **({"engine": exported.engine, "why": exported.why} if exported.engine is not None else {}),
    }


def _step(chain: Chain | None, name: str) -> StepResult | None:
    return next((s for s in chain.steps if s.name == name), None) if chain is not None else None


def _answer(chain: Chain | None, name: str) -> Any:
    step = _step(chain, name)
    return step.answer if step is not None else None
