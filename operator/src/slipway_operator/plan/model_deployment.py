"""Plans one ModelDeployment: the only door into this room for that kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slipway_operator.api import ModelDeploymentSpec, RollBackOn
from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.directives import Directive
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.errors import Blocked, SlipwayError, Waiting
from slipway_operator.domain.revisions import LoggedEntry, read_log
from slipway_operator.plan.attempts import jobs_of, obsolete_jobs
from slipway_operator.plan.chain import Chain, Look, look_at_source, pinned_commit, remembered, walk
from slipway_operator.plan.cleanup import Cleanup, emptied, plan_cleanup, usable
from slipway_operator.plan.decisions import Decisions, Return, decide, wait_for_spec
from slipway_operator.plan.entries import Situation, next_entry
from slipway_operator.plan.events import events_for
from slipway_operator.plan.holds import Held, held, other_good
from slipway_operator.plan.observed import Event, Manifest, Observed, Plan, Trouble, ref_of, soonest
from slipway_operator.plan.policies import jobs_policy_for, obsolete_policies
from slipway_operator.plan.proof import Proof, prove, unneeded
from slipway_operator.plan.rollout import Aim, Wanted, plan_rollout, prunable
from slipway_operator.plan.serving import deployment_name, repository_for, settings_for
from slipway_operator.plan.status import conditions_for, status_for, summary_of
from slipway_operator.plan.steps import Way
from slipway_operator.plan.story import Story, Verdict
from slipway_operator.plan.watch import LOOK_SECONDS, breach, figures_of, watched_for
from slipway_operator.plan.wishes import (
    Platform,
    deciding_part,
    follow_seconds_text,
    parse_spec,
    platform_for,
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
    held: Held | None = None
    """What is wanted was rolled back or given up: it is neither made nor served."""
    sure: bool = False
    """What the source names is known, not only remembered."""


def plan_model_deployment(seen: Observed) -> Plan:
    """Decide what the cluster should hold for one ModelDeployment.

    Pure: equal input gives an equal Plan.
    """
    log, faults = read_log(seen.entries)
    faults = (*faults, *_lost(seen, log))
    # An entry whose images are being removed is still there, and counts for nothing else any more.
    entries = usable(seen, log)
    try:
        spec = parse_spec(seen.resource)
    except Blocked as error:
        # Nothing is known of what is wanted: everything stays as it is, and what is live keeps serving.
        waiting = wait_for_spec(seen, entries, error.message)
        story = Story(seen=seen, spec=None, entries=entries, faults=faults, decisions=waiting, blocked=_trouble(error))
        status = status_for(story)
        return Plan(status=status, events=events_for(seen, status, None))

    spent = emptied(seen, log)
    seen = _without(seen, spent)
    path = _path(seen, spec, entries)
    wanted = _wanted(seen, path)
    candidate = _candidate(entries, wanted)
    limits = spec.rollout.roll_back_on
    asked = decide(seen, spec, entries, candidate=candidate).rollback or _passed_limit(seen, limits, entries)
    proofs = _proofs(seen, spec, entries, asked)
    gone = {content: proof.message for content, proof in proofs.items() if proof.missing}
    decisions = decide(seen, spec, entries, candidate=candidate, gone=gone)
    given_up = _given_up(seen, limits, decisions, candidate)
    back, barred = _due(decisions, asked, gone)
    aim = Aim(
        wanted=wanted,
        back=back if back is not None and _may_begin(seen, back, proofs) else None,
        promoted=decisions.promote is not None,
        given_up=given_up is not None,
    )
    rollout = plan_rollout(seen, spec, entries, aim)
    situation = Situation(
        seen=seen,
        spec=spec,
        deciding=deciding_part(spec),
        entries=entries,
        chain=None if path.held is not None else path.chain,
        logged=path.logged,
        candidate=candidate,
        decisions=decisions,
        rollout=rollout,
        returned=path.sure and wanted is not None and candidate is None,
        rolled_back=aim.back if rollout.may_return else None,
        given_up=given_up,
    )
    entry = next_entry(situation)
    started = [s.create for s in path.chain.steps if s.create is not None] if path.chain is not None else []
    if path.look is not None and path.look.create is not None:
        started.append(path.look.create)
    tidy = _cleanup(seen, spec, log, path, (wanted, back))
    story = Story(
        seen=seen,
        spec=spec,
        entries=entries,
        faults=faults,
        chain=path.chain,
        look=path.look,
        held=path.held,
        decisions=decisions,
        back=back,
        barred=barred,
        rollout=rollout,
        proof=proofs.get(rollout.standby.entry.content) if rollout.standby is not None else None,
        candidate=candidate,
        commit=path.commit,
        blocked=path.blocked,
        new_entry=entry["data"] if entry is not None else None,
    )
    status = status_for(story)
    again = [s.requeue_after for s in path.chain.steps] if path.chain is not None else []
    watched = rollout.canary is not None or (limits is not None and watched_for(limits, entries, seen.now) > 0)
    checks = [p.create for p in proofs.values() if p.create is not None]
    return Plan(
        apply=(settings_for(seen, path.package_list), jobs_policy_for(seen), *_adopted(seen, log), *rollout.apply),
        create=(
            *((entry,) if entry is not None else ()),
            *started,
            *checks,
            *((tidy.create,) if tidy.create is not None else ()),
        ),
        delete=(
            *rollout.delete,
            *(ref_of(p) for p in obsolete_policies(seen)),
            # Before the entries: as long as those are there, the next look finds these too.
            *(ref_of(j) for j in spent),
            *(ref_of(j) for j in _obsolete(seen, path)),
            *(ref_of(j) for p in proofs.values() for j in p.delete),
            *(ref_of(j) for j in (*unneeded(seen, proofs.values()), *tidy.delete)),
            *(ref_of(_revision(seen, e)) for e in tidy.prune),
        ),
        status=status,
        events=(*events_for(seen, status, entry), *_cleanup_events(tidy)),
        requeue_after=soonest(
            rollout.requeue_after,
            path.look.requeue_after if path.look else None,
            LOOK_SECONDS if watched else None,
            tidy.requeue_after,
            *(p.requeue_after for p in proofs.values()),
            *again,
        ),
        refuses=decisions.refuses,
    )


def status_after_error(seen: Observed, error: SlipwayError) -> Manifest:
    """The status when a plan could not be carried out: told as it was, but for what keeps it."""
    stalled = not isinstance(error, Waiting)
    verdict = Verdict(error.reason, error.message, "Stalled" if stalled else "Moving")
    old = dict(seen.status)
    old["conditions"] = conditions_for(old.get("conditions") or (), verdict, (), seen=seen)
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
    sure = not followed or (look is not None and look.commit is not None)
    hold = held(entries, deciding, commit)
    if hold is not None:
        # What was given up is not made again either; the steps tell of what is live.
        live = remembered(entries[-1], seen.jobs)
        return _Path(chain=live, look=look, commit=hold.hold.commit, held=hold, sure=sure)
    logged = _logged(entries, deciding, commit)
    if logged is not None:
        # What is live (or was) is never made again, whatever the platform offers now.
        chain = remembered(logged, seen.jobs)
        return _Path(chain=chain, look=look, commit=logged.entry.digests.commit, logged=logged, sure=sure)
    if platform is None:
        return _Path(blocked=blocked, commit=commit)
    package_list = platform.package_list.requirements if platform.package_list is not None else None
    if followed and commit is None:
        return _Path(look=look, package_list=package_list)
    chain = walk(Way(seen, spec, platform, commit, followed=followed), entries)
    return _Path(chain=chain, look=look, commit=commit, package_list=package_list, sure=sure)


def _logged(entries: Sequence[LoggedEntry], deciding: dict[str, Any], commit: str | None) -> LoggedEntry | None:
    for logged in reversed(entries):
        entry = logged.entry
        if entry.spec == deciding and commit in {None, entry.digests.commit}:
            return logged
    return None


def _wanted(seen: Observed, path: _Path) -> Wanted | None:
    if path.held is not None:
        return None
    if path.logged is not None:
        entry = path.logged.entry
        return Wanted(content=entry.digests, repository=entry.repository or repository_for(seen))
    if path.chain is None or path.chain.content is None:
        return None
    return Wanted(
        content=path.chain.content,
        repository=repository_for(seen),
        since=path.chain.steps[-1].finished_at,
    )


def _candidate(entries: Sequence[LoggedEntry], wanted: Wanted | None) -> Content | None:
    """What is wanted, where it is complete and not live."""
    if wanted is None or (entries and wanted.content.digest == entries[-1].entry.content):
        return None
    return wanted.content


def _proofs(
    seen: Observed, spec: ModelDeploymentSpec, entries: Sequence[LoggedEntry], asked: Return | None
) -> dict[str, Proof]:
    """What the registry says of the content to go back to, and of one that somebody asks for."""
    targets = [other_good(entries), asked.to if asked is not None else None]
    if spec.serving.replicas == 0:
        targets = targets[1:]
    live = _went_live(entries)
    return {t.entry.content: prove(seen, t, live) for t in targets if t is not None}


def _went_live(entries: Sequence[LoggedEntry]) -> LoggedEntry | None:
    """The entry by which the live content went live; later ones are about what did not."""
    found = None
    for entry in reversed(entries):
        if found is not None and entry.entry.content != found.entry.content:
            break
        found = entry
    return found


def _due(decisions: Decisions, asked: Return | None, gone: Mapping[str, str]) -> tuple[Return | None, str | None]:
    """The rollback that is due, and why one by a limit is not: what is gone is no place to go back to."""
    if decisions.rollback is not None or asked is None or asked.directive is not None:
        return decisions.rollback, None
    missing = gone.get(asked.to.entry.content)
    if missing is None:
        return asked, None
    return None, f"{asked.why}; revision {asked.to.number} cannot take over: {missing}"


def _may_begin(seen: Observed, back: Return, proofs: Mapping[str, Proof]) -> bool:
    """Pods that are there can take over; others are started once the registry has been asked for their images."""
    proof = proofs.get(back.to.entry.content)
    return (proof is not None and proof.is_decided) or seen.deployment(
        deployment_name(seen.key.name, back.to.entry.digests)
    ) is not None


def _cleanup(
    seen: Observed,
    spec: ModelDeploymentSpec,
    log: Sequence[LoggedEntry],
    path: _Path,
    named: tuple[Wanted | None, Return | None],
) -> Cleanup:
    """What may go: entries beyond the limit, and with the last use of a content what it has in the registry."""
    wanted, back = named
    needed = [e.entry.digests for e in (other_good(log), back.to if back is not None else None) if e is not None]
    if wanted is not None:
        needed.append(wanted.content)
    on_its_way = (path.logged, back.to if back is not None else None)
    pruned = prunable(log, spec.revision_history_limit, keep=[e.number for e in on_its_way if e is not None])
    return plan_cleanup(seen, log, pruned, needed=needed, chain=path.chain, elsewhere=seen.elsewhere)


def _cleanup_events(tidy: Cleanup) -> tuple[Event, ...]:
    if not tidy.prune or tidy.trouble is None:
        return ()
    return (Event("Warning", str(tidy.trouble.reason), tidy.trouble.message),)


def _given_up(
    seen: Observed, limits: RollBackOn | None, decisions: Decisions, candidate: Content | None
) -> tuple[str, Directive | None] | None:
    """Why a new content on its way is given up, and who asked."""
    if candidate is None:
        return None
    if decisions.abort is not None:
        return decisions.abort.why or "asked for", decisions.abort
    passed = breach(limits, figures_of(seen, label=labels.CANARY, value=candidate.short))
    return (f"the canary passed a limit: {passed}", None) if passed is not None else None


def _passed_limit(seen: Observed, limits: RollBackOn | None, entries: Sequence[LoggedEntry]) -> Return | None:
    """One step back, where what went live passed a limit; never from a rollback."""
    if limits is None or watched_for(limits, entries, seen.now) <= 0:
        return None
    target = other_good(entries)
    passed = breach(limits, figures_of(seen, label=labels.CONTENT, value=entries[-1].entry.digests.short))
    if target is None or passed is None:
        return None
    return Return(to=target, directive=None, why=f"it passed a limit: {passed}", since=entries[-1].entry.at)


def _without(seen: Observed, jobs: Sequence[Manifest]) -> Observed:
    """These Jobs count as on their way out: nothing is read from them, and their numbers are taken."""
    names = {j["metadata"]["name"] for j in jobs}
    out = {"deletionTimestamp": format_time(seen.now)}
    marked = ({**j, "metadata": {**j["metadata"], **out}} if j["metadata"]["name"] in names else j for j in seen.jobs)
    return replace(seen, jobs=tuple(marked)) if names else seen


def _obsolete(seen: Observed, path: _Path) -> Sequence[Manifest]:
    looks = path.look.delete if path.look is not None else tuple(jobs_of(seen, step="resolve"))
    if path.chain is None:
        return looks
    keys = {s.name.lower(): s.key for s in path.chain.steps}
    # A step that is not asked for (any more) has no wanted key, but what runs for it ends with its chain.
    return (*looks, *obsolete_jobs(seen, wanted=keys, chain=path.chain.key))


def _adopted(seen: Observed, entries: Sequence[LoggedEntry]) -> list[Manifest]:
    """Entries without our owner reference (restored from a backup) get it; their data stays as it is."""
    if seen.settings.log.keep_after_deletion:
        return []
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


def _lost(seen: Observed, entries: Sequence[LoggedEntry]) -> tuple[str, ...]:
    """The newest entry leaves no gap when it goes; what status said last tells."""
    told = int((seen.status.get("live") or {}).get("revision") or 0)
    newest = entries[-1].number if entries else 0
    return (f"the newest entry, number {told}, is missing",) if told > newest else ()


def _trouble(error: SlipwayError) -> Trouble:
    return Trouble(reason=error.reason, message=error.message, stalled=True)


def without_status(plan: Plan) -> Plan:
    """The plan's deeds alone, for comparing two plans."""
    return replace(plan, status={}, events=())
