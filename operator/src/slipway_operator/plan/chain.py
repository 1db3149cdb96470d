"""The way from a source to a content: Build, Train, Export, each once for its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway_operator.api import parse_duration
from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import Built, Exported, Message, Resolved, Trained
from slipway_operator.domain.revisions import LoggedEntry, StepRecord
from slipway_operator.plan.attempts import Asked, State, StepResult, ask_again, jobs_of, run_step
from slipway_operator.plan.jobs import JobSpec
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.outcomes import StepKind, Succeeded, read_job
from slipway_operator.plan.steps import (
    BUILD,
    EXPORT,
    RESOLVE,
    TRAIN,
    Way,
    build_spec,
    export_spec,
    resolve_spec,
    train_spec,
)
from slipway_operator.plan.wishes import follow_seconds_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """How far the way is."""

    steps: tuple[StepResult, ...]
    """Build, Train, Export; always all of them."""
    content: Content | None = None
    """What the way ends in, once it has."""
    key: str | None = None
    """Key of the build."""

    @property
    def stuck(self) -> StepResult | None:
        """The step that is not done yet."""
        return next((s for s in self.steps if s.state not in {"Succeeded", "Skipped", "Pending"}), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a followed source."""

    commit: str | None = None
    at: str | None = None
    create: Manifest | None = None
    trouble: Trouble | None = None
    requeue_after: float | None = None
    delete: tuple[Manifest, ...] = ()
    step: StepResult | None = None
    """What the status shows of it. Equal as long as only time has passed, so that a look writes no status."""


def walk(way: Way, entries: Sequence[LoggedEntry]) -> Chain:
    """Go the way as far as answers are there, and start what is next."""
    build = build_spec(way)
    first = _step(way, build, entries, BUILD)
    built = first.answer
    if not isinstance(built, Built):
        trains = way.spec.model.train is not None
        return Chain(steps=(first, _pending("Train", skipped=not trains), _pending("Export")), key=build.key)

    trained: Trained | None = None
    second = _pending("Train", skipped=True)
    if way.spec.model.train is not None:
        training = train_spec(way, built, chain=build.key)
        second = _step(way, training, entries, TRAIN)
        if not isinstance(second.answer, Trained):
            return Chain(steps=(first, second, _pending("Export")), key=build.key)
        trained = second.answer

    exporting = export_spec(way, built, trained, chain=build.key)
    third = _step(way, exporting, entries, EXPORT)
    content = None
    if isinstance(third.answer, Exported):
        content = content_of(built, trained, third.answer, runtime=way.seen.settings.images.runtime)
    return Chain(steps=(first, second, third), content=content, key=build.key)


def content_of(built: Built, trained: Trained | None, exported: Exported, *, runtime: str) -> Content:
    """The content that the answers make."""
    return Content(
        commit=built.commit,
        package=built.package,
        lock=built.lock,
        environment=built.environment,
        image=built.image,
        trained=trained.artifact if trained is not None else None,
        model=exported.model,
        onnx=exported.onnx,
        model_image=exported.image,
        artifact=exported.artifact,
        signature=exported.signature,
        runtime=runtime,
        engine=exported.engine,
        worker=built.export_image if exported.engine is not None else None,
        file=exported.file,
    )


def records_of(chain: Chain) -> tuple[StepRecord, ...]:
    """The steps as a log entry keeps them."""
    return tuple(
        StepRecord(
            name=s.name,
            key=s.key,
            started_at=s.started_at,
            finished_at=s.finished_at,
            builder=s.builder,
            answer=s.answer.model_dump(mode="json", by_alias=True, exclude_none=True),
        )
        for s in chain.steps
        if s.key is not None and s.answer is not None
    )


def remembered(entry: LoggedEntry, jobs: Sequence[Manifest]) -> Chain:
    """The way to a content that is in the log: nothing of it runs again."""
    by_name = {r.name: r for r in entry.entry.steps}
    steps = []
    for name, kind in (("Build", Built), ("Train", Trained), ("Export", Exported)):
        record = by_name.get(name)
        steps.append(_from_record(record, kind, jobs) if record is not None else _pending(name, skipped=True))
    build = by_name.get("Build")
    return Chain(steps=tuple(steps), content=entry.entry.digests, key=build.key if build is not None else None)


def pinned_commit(seen: Observed, key: str, entries: Sequence[LoggedEntry], source: dict[str, Any]) -> str | None:
    """The commit that was found for a source before: by a build that is still there, or by the log."""
    for job in sorted(seen.jobs, key=lambda j: str(j["metadata"]["creationTimestamp"]), reverse=True):
        marks = job["metadata"]["labels"]
        if marks.get(labels.STEP) != "build" or marks.get(labels.SOURCE) != key:
            continue
        outcome = read_job(job, BUILD, pods=seen.pods, events=(), now=seen.now)
        if isinstance(outcome, Succeeded) and isinstance(outcome.answer, Built):
            return outcome.answer.commit
    logged = next((e for e in reversed(entries) if e.entry.spec.get("source") == source), None)
    return logged.entry.digests.commit if logged is not None else None


def look_at_source(way: Way) -> Look:
    """For a followed source: the newest commit that is known, and the next look when it is due."""
    interval = float(parse_duration(follow_seconds_text(way.spec) or "5m"))
    spec = resolve_spec(way)
    asked = ask_again(way.seen, spec, RESOLVE, wait_after=lambda _answer: interval)
    stray = tuple(j for j in jobs_of(way.seen, step=spec.step) if j["metadata"]["labels"].get(labels.KEY) != spec.key)
    return Look(
        commit=asked.answer.commit if isinstance(asked.answer, Resolved) else None,
        at=asked.at,
        create=asked.create,
        trouble=asked.trouble,
        requeue_after=asked.requeue_after,
        delete=(*asked.delete, *stray),
        step=_shown(asked, spec.key, f"asks again every {follow_seconds_text(way.spec) or '5m'}"),
    )


def _shown(asked: Asked, key: str, settled: str) -> StepResult:
    if asked.trouble is not None:
        state: State = "Failed" if asked.trouble.stalled else "Waiting"
        return StepResult(name=RESOLVE.name, state=state, key=key, message=asked.trouble.message, job=asked.job)
    if asked.answer is None:
        message = "asking the repository what the ref names"
        return StepResult(name=RESOLVE.name, state="Running", key=key, message=message, job=asked.job)
    return StepResult(name=RESOLVE.name, state="Succeeded", key=key, message=settled)


def _step(way: Way, spec: JobSpec, entries: Sequence[LoggedEntry], kind: StepKind) -> StepResult:
    for entry in reversed(entries):
        for record in entry.entry.steps:
            if record.name == kind.name and record.key == spec.key:
                return _from_record(record, kind.answer, way.seen.jobs)
    return run_step(way.seen, spec, kind)


def _from_record(record: StepRecord, expected: type[Message], jobs: Sequence[Manifest]) -> StepResult:
    mine = [
        j["metadata"]["name"]
        for j in jobs
        if j["metadata"]["labels"].get(labels.KEY) == record.key
        and j["metadata"]["labels"].get(labels.STEP) == record.name.lower()
    ]
    return StepResult(
        name=record.name,
        state="Succeeded",
        key=record.key,
        started_at=record.started_at,
        finished_at=record.finished_at,
        message=record.message,
        job=max(mine, default=None),
        builder=record.builder,
        answer=expected.model_validate(record.answer),
    )


def _pending(name: str, *, skipped: bool = False) -> StepResult:
    return StepResult(name=name, state="Skipped" if skipped else "Pending")
