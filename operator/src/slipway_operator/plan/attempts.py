"""Runs one step by attempts: finds how the newest went, and says whether to start another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from slipway_operator.domain import labels
from slipway_operator.domain.durations import format_time, parse_time, words_of
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.requests import Message
from slipway_operator.plan.jobs import JobSpec, attempt_of, job_for
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.outcomes import (
    NO_POD,
    STARTS,
    Broken,
    Held,
    Lost,
    Outcome,
    Running,
    StepKind,
    Succeeded,
    read_job,
)
from slipway_operator.plan.troubles import PATIENCE, is_finished, trouble_of

State = Literal["Pending", "Running", "Waiting", "Succeeded", "Failed", "Skipped"]
MAKING = frozenset({"build", "train", "export"})
"""Steps that push to the registry."""
REMOVE = "remove"
"""The step that deletes from it."""
LOOK_AGAIN = 60.0
"""Seconds at most until a question that failed for a passing reason is asked again."""
STARTING = 3.0
"""Seconds after which a Job that has just started is looked at again, as a safety net for a lost event."""
RUNNING = 30.0
"""The same of one that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How one step stands."""

    name: str
    state: State
    key: str | None = None
    message: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    job: str | None = None
    builder: str | None = None
    """Image of the container that answered."""
    answer: Message | None = None
    trouble: Trouble | None = None
    create: Manifest | None = None
    """A Job to create now."""
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is known of something that is asked again and again."""

    answer: Message | None = None
    """The newest that was given."""
    at: str | None = None
    """When it was given."""
    job: str | None = None
    """The newest Job."""
    create: Manifest | None = None
    trouble: Trouble | None = None
    requeue_after: float | None = None
    delete: tuple[Manifest, ...] = ()
    """Jobs whose answers are history."""


def jobs_of(seen: Observed, *, step: str, key: str | None = None) -> list[Manifest]:
    """Jobs of a step (with a key), oldest attempt first, those on their way out left out."""
    found = [
        j
        for j in seen.jobs
        if j["metadata"]["labels"].get(labels.STEP) == step
        and (key is None or j["metadata"]["labels"].get(labels.KEY) == key)
        and not j["metadata"].get("deletionTimestamp")
    ]
    return sorted(found, key=attempt_of)


def next_attempt(seen: Observed, *, step: str, key: str) -> int:
    """The number after the highest that any Job of this step has, also one that is being deleted."""
    numbers = [
        attempt_of(j)
        for j in seen.jobs
        if j["metadata"]["labels"].get(labels.STEP) == step and j["metadata"]["labels"].get(labels.KEY) == key
    ]
    return max(numbers, default=0) + 1


def run_step(seen: Observed, spec: JobSpec, kind: StepKind) -> StepResult:
    """How the step stands by its newest Job, and the Job to create if another attempt is due."""
    name = kind.name
    attempts = jobs_of(seen, step=spec.step, key=spec.key)
    if not attempts:
        return _start(seen, spec, name=name, message="starting")
    job = attempts[-1]
    outcome = read_job(job, kind, pods=seen.pods, events=seen.events, now=seen.now)
    if isinstance(outcome, Lost):
        return _start(seen, spec, name=name, message="starting again: the last attempt left no answer")
    retried = (job["metadata"].get("annotations") or {}).get(labels.TRY) != spec.token
    if retried and isinstance(outcome, Held | Broken):
        return _start(seen, spec, name=name, message="starting again")
    if isinstance(outcome, Broken) and outcome.retry:
        return _after_passing_failure(seen, spec, outcome, name=name, job=job)
    return _result(seen, spec, outcome, name=name, job=job)


def ask_again(seen: Observed, spec: JobSpec, kind: StepKind, *, wait_after: Callable[[Message | None], float]) -> Asked:
    """What is known by the Jobs of one key, and the next one when it is due: its attempts are ticks.

    Args:
        seen: What was observed.
        spec: The question.
        kind: Its kind.
        wait_after: Seconds from an answer to the next look; after None: from a failure that stays.
    """
    looks = jobs_of(seen, step=spec.step, key=spec.key)
    outcomes = [(j, read_job(j, kind, pods=seen.pods, events=seen.events, now=seen.now)) for j in looks]
    good = next(((j, o) for j, o in reversed(outcomes) if isinstance(o, Succeeded)), None)
    newest = outcomes[-1][1] if outcomes else None
    # A pod that a node rejected or evicted has not ended by its containers: no time stands beside them.
    made = str(outcomes[-1][0]["metadata"]["creationTimestamp"]) if outcomes else None
    trouble: Trouble | None = None
    due: float | None = 0.0
    match newest:
        case Succeeded(answer=answer, finished_at=finished):
            due = _left(seen, finished or made, wait_after(answer))
        case Broken(reason=reason, message=message, retry=passing, finished_at=finished):
            trouble = Trouble(reason=reason, message=message, stalled=not passing)
            retried = (outcomes[-1][0]["metadata"].get("annotations") or {}).get(labels.TRY) != spec.token
            wait = min(wait_after(None), LOOK_AGAIN) if passing else wait_after(None)
            due = 0.0 if retried else _left(seen, finished or made, wait)
        case Held(waits=waits):
            trouble, due = trouble_of(waits, seen.now), None
        case Running():
            due = RUNNING
    create = (
        job_for(seen, spec, next_attempt(seen, step=spec.step, key=spec.key)) if due is not None and due <= 0 else None
    )
    keep = {j["metadata"]["name"] for j in (*looks[-1:], *((good[0],) if good is not None else ()))}
    return Asked(
        answer=good[1].answer if good is not None else None,
        at=good[1].finished_at if good is not None else None,
        job=create["metadata"]["name"] if create is not None else looks[-1]["metadata"]["name"],
        create=create,
        trouble=trouble,
        requeue_after=2.0 if create is not None else due,
        delete=tuple(j for j in looks if j["metadata"]["name"] not in keep),
    )


def _left(seen: Observed, finished: str | None, wait: float) -> float:
    if finished is None:
        return 0.0
    return (parse_time(finished) + timedelta(seconds=wait) - seen.now).total_seconds()


def _start(seen: Observed, spec: JobSpec, *, name: str, message: str) -> StepResult:
    if spec.step in MAKING and is_removing(seen):
        # What is made may have the digest of what is being deleted.
        return StepResult(
            name=name,
            state="Waiting",
            key=spec.key,
            message="waits until the registry has removed what nothing needs any more",
            requeue_after=STARTING,
        )
    job = job_for(seen, spec, next_attempt(seen, step=spec.step, key=spec.key))
    return StepResult(
        name=name,
        state="Running",
        key=spec.key,
        message=message,
        job=job["metadata"]["name"],
        create=job,
        requeue_after=STARTING,
    )


def _result(seen: Observed, spec: JobSpec, outcome: Outcome, *, name: str, job: Manifest) -> StepResult:
    job_name = job["metadata"]["name"]
    match outcome:
        case Succeeded(answer=answer, started_at=started, finished_at=finished):
            return StepResult(
                name=name,
                state="Succeeded",
                key=spec.key,
                started_at=started,
                finished_at=finished,
                job=job_name,
                builder=job["spec"]["template"]["spec"]["containers"][0]["image"],
                answer=answer,
            )
        case Held(waits=waits, started_at=started):
            trouble = trouble_of(waits, seen.now)
            return StepResult(
                name=name,
                state="Waiting",
                key=spec.key,
                message=waits.message,
                started_at=started,
                job=job_name,
                trouble=trouble,
                requeue_after=PATIENCE / 10 if not trouble.stalled else None,
            )
        case Broken(reason=reason, message=message, started_at=started, finished_at=finished):
            return StepResult(
                name=name,
                state="Failed",
                key=spec.key,
                message=message,
                started_at=started,
                finished_at=finished,
                job=job_name,
                trouble=Trouble(reason=reason, message=message, stalled=True),
            )
        case Running(message=message, started_at=started):
            return StepResult(
                name=name,
                state="Running",
                key=spec.key,
                message=message,
                started_at=started,
                job=job_name,
                # What keeps a pod from starting may be told by an event alone, and events are not watched.
                requeue_after=STARTING if message in {STARTS, NO_POD} else RUNNING,
            )
        case Lost():  # pragma: no cover - handled by the caller
            return _start(seen, spec, name=name, message="starting again")


def _after_passing_failure(seen: Observed, spec: JobSpec, outcome: Broken, *, name: str, job: Manifest) -> StepResult:
    waits: Sequence[int] = seen.settings.jobs.transient_retries_seconds or (60,)
    attempt = attempt_of(job)
    wait = waits[min(attempt, len(waits)) - 1]
    ended = parse_time(outcome.finished_at or job["metadata"]["creationTimestamp"])
    due = ended + timedelta(seconds=wait)
    if seen.now >= due:
        return _start(seen, spec, name=name, message=f"attempt {attempt + 1}, as the last one met: {outcome.message}")
    exhausted = attempt > len(waits)
    message = f"{outcome.message} (tried {attempt}x, again at {format_time(due)[11:19]} UTC)"
    return StepResult(
        name=name,
        state="Waiting",
        key=spec.key,
        message=message,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
        job=job["metadata"]["name"],
        trouble=Trouble(
            reason=outcome.reason or Reason.WAITING_TO_RETRY,
            message=message + (f"; it goes on trying every {words_of(waits[-1])}" if exhausted else ""),
            stalled=exhausted,
        ),
        requeue_after=(due - seen.now).total_seconds(),
    )


def obsolete_jobs(seen: Observed, *, wanted: dict[str, str | None], chain: str | None) -> list[Manifest]:
    """Jobs that are not needed any more.

    Kept: the newest attempt of each wanted key, what runs for the wanted chain, and
    the newest finished Job of each step beside that, for its logs. Jobs of steps that are
    not named in ``wanted`` are none of its business: `proof` and `cleanup` see to their own.

    Args:
        seen: What was observed.
        wanted: Key by step name (lower case); None: not known yet, so nothing that runs in
            the chain is ended.
        chain: Key of the wanted build; None: not known, nothing that runs is ended.
    """
    gone: list[Manifest] = []
    for step, key in wanted.items():
        mine = jobs_of(seen, step=step)
        current = [j for j in mine if key is not None and j["metadata"]["labels"].get(labels.KEY) == key]
        gone.extend(current[:-1])
        others = [j for j in mine if j not in current]
        finished = sorted((j for j in others if is_finished(j)), key=lambda j: str(j["metadata"]["creationTimestamp"]))
        gone.extend(finished[:-1])
        for job in others:
            if is_finished(job) or chain is None:
                continue
            if key is not None or job["metadata"]["labels"].get(labels.CHAIN) != chain:
                gone.append(job)
    return gone


def is_removing(seen: Observed) -> bool:
    """Whether a Job may be deleting from the registry at this moment, also one that is on its way out."""
    return any(j["metadata"]["labels"].get(labels.STEP) == REMOVE and not is_finished(j) for j in seen.jobs)
