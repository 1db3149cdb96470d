"""Plans one ModelDeployment: the only door into this room for that kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.errors import Blocked, SlipwayError, Waiting
from slipway_operator.domain.revisions import Cause, Entry, LoggedEntry, entry_manifest, read_log
from slipway_operator.plan.attempts import jobs_of, obsolete_jobs
from slipway_operator.plan.chain import Chain, Look, look_at_source, pinned_commit, records_of, remembered, walk
from slipway_operator.plan.observed import Event, Manifest, Observed, Plan, Trouble, owner_reference_of, ref_of, soonest
from slipway_operator.plan.rollout import Rollout, Wanted, plan_rollout, prunable
from slipway_operator.plan.serving import settings_for
from slipway_operator.plan.status import Story, Verdict, conditions_for, events_for, status_for, summary_of
from slipway_operator.plan.steps import Way
from slipway_operator.plan.wishes import (
    Platform,
    deciding_part,
    follow_seconds_text,
    parse_spec,
    platform_for,
    ref_of_source,
    source_key,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """What the way led to."""

    chain: Chain | None = None
    look: Look | None = None
    commit: str | None = None
    blocked: Trouble | None = None
    package_list: str | None = None
    logged: LoggedEntry | None = None
    """The entry that has what is wanted already."""


def plan_model_deployment(seen: Observed) -> Plan:
    """Decide what the cluster should hold for one ModelDeployment.

    Pure: equal input gives an equal Plan.
    """
    entries, faults = read_log(seen.entries)
    try:
        spec = parse_spec(seen.resource)
    except Blocked as error:
        # Nothing is known of what is wanted: everything stays as it is, and what is live keeps serving.
        story = Story(seen=seen, spec=None, entries=entries, blocked=_trouble(error))
        status = status_for(story)
        return Plan(status=status, events=events_for(seen, status, None))

    path = _path(seen, spec, entries)
    wanted = _wanted(seen, path)
    rollout = plan_rollout(seen, spec, entries, wanted)
    entry = _next_entry(seen, spec, entries, path=path, rollout=rollout)
    created = [entry] if entry is not None else []
    started = [s.create for s in path.chain.steps if s.create is not None] if path.chain is not None else []
    if path.look is not None and path.look.create is not None:
        started.append(path.look.create)
    story = Story(
        seen=seen,
        spec=spec,
        entries=entries,
        chain=path.chain,
        look=path.look,
        rollout=rollout,
        commit=path.commit,
        blocked=path.blocked,
        new_entry=entry["revision"] if entry is not None else None,
    )
    status = status_for(story)
    again = [s.requeue_after for s in path.chain.steps] if path.chain is not None else []
    return Plan(
        apply=(settings_for(seen, path.package_list), *_adopted(seen, entries), *rollout.apply),
        create=(*created, *started),
        delete=(
            *rollout.delete,
            *(ref_of(j) for j in _obsolete(seen, path)),
            *(ref_of(_revision(seen, e)) for e in prunable(entries, spec.revision_history_limit)),
        ),
        status=status,
        events=(*events_for(seen, status, entry), *_fault_events(seen, faults)),
        requeue_after=soonest(rollout.requeue_after, path.look.requeue_after if path.look else None, *again),
    )


def status_after_error(seen: Observed, error: SlipwayError) -> Manifest:
    """The status when a plan could not be carried out: told as it was, but for what keeps it."""
    stalled = not isinstance(error, Waiting)
    verdict = Verdict(error.reason, error.message, "Stalled" if stalled else "Moving")
    old = dict(seen.status)
    old["conditions"] = conditions_for(old.get("conditions") or (), verdict, None, seen=seen)
    old["observedGeneration"] = seen.generation
    old["summary"] = summary_of(verdict)
    return old


def _path(seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry]) -> _Path:
    """Find what is wanted in the log, or go the way there."""
    deciding = deciding_part(spec)
    followed = follow_seconds_text(spec) is not None
    key = source_key(seen.key.namespace, seen.key.name, spec)
    commit = pinned_commit(seen, key, entries, deciding["source"])
    look: Look | None = None
    platform: Platform | None = None
    try:
        platform = platform_for(spec, seen.settings)
    except Blocked as error:
        blocked: Trouble | None = _trouble(error)
    else:
        blocked = None
        if followed:
            way = Way(seen, spec, platform, commit, followed=True)
            look = look_at_source(way)
            commit = look.commit or commit
    logged = _logged(entries, deciding, commit)
    if logged is not None:
        # What is live (or was) is never made again, whatever the platform offers now.
        chain = remembered(logged, seen.jobs)
        return _Path(chain=chain, look=look, commit=logged.entry.digests.commit, logged=logged)
    if platform is None:
        return _Path(blocked=blocked, commit=commit)
    package_list = platform.package_list.requirements if platform.package_list is not None else None
    if followed and commit is None:
        return _Path(look=look, package_list=package_list)
    chain = walk(Way(seen, spec, platform, commit, followed=followed), entries)
    return _Path(chain=chain, look=look, commit=commit, package_list=package_list)


def _logged(entries: Sequence[LoggedEntry], deciding: dict[str, Any], commit: str | None) -> LoggedEntry | None:
    for logged in reversed(entries):
        entry = logged.entry
        if entry.spec == deciding and commit in {None, entry.digests.commit}:
            return logged
    return None


def _wanted(seen: Observed, path: _Path) -> Wanted | None:
    if path.logged is not None:
        entry = path.logged.entry
        return Wanted(content=entry.digests, prefix=entry.registry or seen.settings.registry.prefix)
    if path.chain is None or path.chain.content is None:
        return None
    return Wanted(
        content=path.chain.content,
        prefix=seen.settings.registry.prefix,
        since=path.chain.steps[-1].finished_at,
    )


def _next_entry(
    seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry], *, path: _Path, rollout: Rollout
) -> Manifest | None:
    """The log's next entry, once what is wanted answers and is not what the newest entry says."""
    chain = path.chain
    if chain is None or chain.content is None or (rollout.candidate is not None and not rollout.candidate.complete):
        return None
    last = entries[-1] if entries else None
    deciding = deciding_part(spec)
    if last is not None and rollout.candidate is None and last.entry.spec == deciding:
        return None
    who, who_by = _who(seen, last, deciding)
    logged = path.logged.entry if path.logged is not None else None
    entry = Entry(
        number=last.number + 1 if last is not None else 1,
        previous=last.digest if last is not None else None,
        cause=Cause.SPEC_CHANGE,
        who=who,
        who_by=who_by,
        why=_why(spec, last, chain.content.commit, generation=seen.generation),
        at=format_time(seen.now),
        content=chain.content.digest,
        digests=chain.content,
        spec=deciding,
        registry=(logged.registry if logged is not None else None) or seen.settings.registry.prefix,
        steps=logged.steps if logged is not None else records_of(chain),
    )
    return entry_manifest(
        entry,
        owner_name=seen.key.name,
        namespace=seen.key.namespace,
        owner_reference=owner_reference_of(seen.resource),
    )


def _why(spec: ModelDeploymentSpec, last: LoggedEntry | None, commit: str, *, generation: int) -> str:
    short = commit.removeprefix("sha256:")[:12]
    ref = ref_of_source(spec)
    # A ref that is the commit itself is not said twice.
    where = f"commit {short}" if ref.removeprefix("sha256:").startswith(short) else f"{ref} at {short}"
    if last is None:
        return f"first content, from {where}"
    if last.entry.spec == deciding_part(spec):
        return f"{ref} moved to {short}"
    return f"the spec changed (generation {generation}), from {where}"


def _who(seen: Observed, last: LoggedEntry | None, deciding: dict[str, Any]) -> tuple[str, str]:
    """Who asked for it, as far as the resource tells: the field manager is a hint, and is logged as one."""
    if last is not None and last.entry.spec == deciding:
        return "slipway", "Operator"
    writers = [
        f
        for f in seen.resource["metadata"].get("managedFields") or ()
        if not f.get("subresource") and "f:spec" in (f.get("fieldsV1") or {})
    ]
    newest = max(writers, key=lambda f: str(f.get("time", "")), default=None)
    return (str(newest["manager"]), "FieldManager") if newest is not None else ("unknown", "Nobody")


def _obsolete(seen: Observed, path: _Path) -> Sequence[Manifest]:
    looks = path.look.delete if path.look is not None else tuple(jobs_of(seen, step="resolve"))
    if path.chain is None:
        return looks
    keys = {s.name.lower(): s.key for s in path.chain.steps}
    # A step that is not asked for (any more) has no wanted key, but what runs for it ends with its chain.
    return (*looks, *obsolete_jobs(seen, wanted=keys, chain=path.chain.key))


def _adopted(seen: Observed, entries: Sequence[LoggedEntry]) -> list[Manifest]:
    """Entries without our owner reference (restored from a backup) get it; their data stays as it is."""
    uid = seen.resource["metadata"]["uid"]
    return [
        {**_revision(seen, e), "revision": e.number, "metadata": _adoption(seen, e)}
        for e in entries
        if uid not in e.owners
    ]


def _adoption(seen: Observed, entry: LoggedEntry) -> Manifest:
    return {
        "name": entry.name,
        "namespace": seen.key.namespace,
        "ownerReferences": [seen.owner_reference],
    }


def _revision(seen: Observed, entry: LoggedEntry) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": entry.name, "namespace": seen.key.namespace},
    }


def _fault_events(seen: Observed, faults: Sequence[str]) -> tuple[Event, ...]:
    """A broken log is said once for each generation that sees it; the API server joins equal events."""
    if not faults or seen.status.get("observedGeneration") == seen.generation:
        return ()
    return (Event("Warning", "LogBroken", "; ".join(faults)[:900]),)


def _trouble(error: SlipwayError) -> Trouble:
    return Trouble(reason=error.reason, message=error.message, stalled=True)


def without_status(plan: Plan) -> Plan:
    """The plan's deeds alone, for comparing two plans."""
    return replace(plan, status={}, events=())
