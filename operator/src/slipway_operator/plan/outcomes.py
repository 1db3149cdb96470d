"""Reads how a Job is doing from the Job, its pod and their events.

The answer of a step is the termination message of its last container; the pod is
believed before the Job's own status, which follows a second or two later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from slipway_operator.domain.conditions import clipped, find_condition, is_true
from slipway_operator.domain.durations import parse_time
from slipway_operator.domain.reasons import Reason, well_formed
from slipway_operator.domain.requests import Failed, Message
from slipway_operator.plan.observed import Manifest
from slipway_operator.plan.troubles import Waits, age, containers_of, waits_of, waits_without_pod

ANSWERING = "push"
"""The container whose termination message is the answer."""
LONG_START = 3.0
STARTS = "starting"
NO_POD = "waiting for a pod"
LOST_AFTER = 30.0
"""Seconds after a Job's end in which its pod may still be missing from what was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The Job gave its answer."""

    answer: Message
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The Job goes on; ``message`` says which container since when, and its place among them."""

    message: str
    started_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The Job's pod cannot start or go on now."""

    waits: Waits
    started_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The Job failed."""

    reason: str
    message: str
    retry: bool
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """The Job ended and nobody knows how: its pod is gone. It is run again."""


Outcome = Succeeded | Running | Held | Broken | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKind:
    """What one kind of step answers, and how it speaks of its own failures."""

    name: str
    answer: type[Message]
    noun: str
    timed_out: str
    out_of_memory: str
    raise_timeout: str
    raise_memory: str


def read_job(
    job: Manifest, words: StepKind, *, pods: Sequence[Manifest], events: Sequence[Manifest], now: datetime
) -> Outcome:
    """How a Job is doing."""
    uid = job["metadata"]["uid"]
    mine = [p for p in pods if any(o.get("uid") == uid for o in p["metadata"].get("ownerReferences", ()))]
    pod = max(mine, key=lambda p: str(p["metadata"]["creationTimestamp"]), default=None)
    conditions = (job.get("status") or {}).get("conditions") or ()
    started = (job.get("status") or {}).get("startTime")
    ended = next((c for c in conditions if c["type"] in {"Complete", "Failed"} and c["status"] == "True"), None)

    late = next((c for c in conditions if c.get("reason") == "DeadlineExceeded" and c.get("status") == "True"), None)
    if late is not None:
        # What its containers say then is only that they were told to end.
        return _timed_out(words, started=started, finished=late.get("lastTransitionTime"))
    if pod is not None:
        spoken = _spoken(pod, words=words, started=started)
        if spoken is not None:
            return spoken
    if is_true(conditions, "Failed"):
        return _failed_job(job, words=words, started=started)
    if ended is not None:
        since_end = (now - parse_time(ended["lastTransitionTime"])).total_seconds()
        return Lost() if since_end > LOST_AFTER else Running(message="reading the answer", started_at=started)
    held = waits_of(pod, events) if pod is not None else waits_without_pod(job, events)
    if held is not None:
        return Held(waits=held, started_at=started)
    return Running(message=_progress(job, pod, now), started_at=started)


def _spoken(pod: Manifest, *, words: StepKind, started: str | None) -> Outcome | None:
    """What the pod's containers say: the first that failed, or the answer."""
    for container in containers_of(pod):
        ended = (container.get("state") or {}).get("terminated")
        if ended is None:
            continue
        if ended.get("exitCode", 0) != 0:
            return _failed_container(pod, container["name"], ended, words=words, started=started)
        if container["name"] == ANSWERING:
            return _answer(ended, words=words, started=started)
    if (pod.get("status") or {}).get("phase") == "Failed":
        return _failed_pod(pod, words=words, started=started)
    return None


def _answer(ended: Mapping[str, Any], *, words: StepKind, started: str | None) -> Outcome:
    text = ended.get("message") or ""
    try:
        answer = words.answer.model_validate_json(text)
    except ValidationError:
        return Broken(
            reason=Reason.STEP_FAILED,
            message=f"the {words.noun} ended without an answer that can be read: {clipped(text, 200) or 'nothing'}",
            retry=False,
            started_at=started,
            finished_at=ended.get("finishedAt"),
        )
    return Succeeded(answer=answer, started_at=started, finished_at=ended.get("finishedAt"))


def _failed_container(
    pod: Manifest, name: str, ended: Mapping[str, Any], *, words: StepKind, started: str | None
) -> Outcome:
    finished = ended.get("finishedAt")
    said = failed_message(ended.get("message") or "")
    if said is not None:
        return Broken(
            reason=well_formed(said.reason, otherwise=Reason.STEP_FAILED),
            message=said.message,
            retry=said.retry,
            started_at=started,
            finished_at=finished,
        )
    if ended.get("reason") == "OOMKilled":
        return Broken(
            reason=words.out_of_memory,
            message=f"container {name} of the {words.noun} needed more memory than its limit "
            f"({_memory_limit(pod, name)}) and was killed: {words.raise_memory}",
            retry=False,
            started_at=started,
            finished_at=finished,
        )
    if (pod.get("status") or {}).get("reason"):
        return _failed_pod(pod, words=words, started=started)
    if pod["metadata"].get("deletionTimestamp"):
        return Lost()
    tail = clipped((ended.get("message") or "").strip()[-300:], 300)
    return Broken(
        reason=Reason.STEP_FAILED,
        message=f"container {name} of the {words.noun} ended with code {ended.get('exitCode')}"
        + (f": {tail}" if tail else f"; kubectl logs {pod['metadata']['name']} -c {name} shows its output"),
        retry=False,
        started_at=started,
        finished_at=finished,
    )


def failed_message(text: str) -> Failed | None:
    """The failure that a container of ours wrote as its termination message, if it did."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    if not isinstance(parsed, dict) or parsed.get("ok") is not False:
        return None
    try:
        return Failed.model_validate(parsed)
    except ValidationError:
        return None


def _failed_pod(pod: Manifest, *, words: StepKind, started: str | None) -> Outcome:
    status = pod.get("status") or {}
    reason, message = status.get("reason") or "", status.get("message") or ""
    if "emptydir" in message.lower() or "ephemeral" in message:
        return Broken(
            reason=Reason.WORK_VOLUME_FULL,
            message=f"the {words.noun} needed more disk than it may use: {message}. Make the project smaller, or ask "
            "the platform to raise jobs.workVolumeLimit",
            retry=False,
            started_at=started,
            finished_at=None,
        )
    if reason == "DeadlineExceeded":
        return _timed_out(words, started=started, finished=None)
    return Broken(
        reason=Reason.POD_LOST,
        message=f"the pod of the {words.noun} was ended by the cluster: {message or reason or 'no reason given'}",
        retry=True,
        started_at=started,
        finished_at=None,
    )


def _failed_job(job: Manifest, *, words: StepKind, started: str | None) -> Outcome:
    failed = find_condition(job["status"]["conditions"], "Failed") or {}
    finished = failed.get("lastTransitionTime")
    return Broken(
        reason=Reason.POD_LOST,
        message=f"the pod of the {words.noun} is gone before it could answer",
        retry=True,
        started_at=started,
        finished_at=finished,
    )


def _timed_out(words: StepKind, *, started: str | None, finished: str | None) -> Broken:
    return Broken(
        reason=words.timed_out,
        message=f"the {words.noun} did not end in time: {words.raise_timeout}",
        retry=False,
        started_at=started,
        finished_at=finished,
    )


def _memory_limit(pod: Manifest, name: str) -> str:
    spec = pod.get("spec") or {}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if container["name"] == name:
            return str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "the node's memory")
    return "unknown"


def _progress(job: Manifest, pod: Manifest | None, now: datetime) -> str:
    if pod is None:
        return NO_POD if age(job, now) > LONG_START else STARTS
    states = {c["name"]: c.get("state") or {} for c in containers_of(pod)}
    # The Job's own containers: a mesh may have put others into the pod.
    spec = job["spec"]["template"]["spec"]
    chain = [c["name"] for c in (*spec.get("initContainers", ()), *spec["containers"])]
    for place, name in enumerate(chain, start=1):
        running = states.get(name, {}).get("running")
        if running is not None:
            how_far = f" ({place} of {len(chain)})" if len(chain) > 1 else ""
            return f"{name} since {str(running.get('startedAt', ''))[11:19]} UTC{how_far}"
    return STARTS
