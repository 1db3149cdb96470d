"""What goes with the last use of a content: which images and artifacts nobody needs, and when entries may go.

An entry that is to go keeps its place in the log until a Job has deleted what it alone
used; so an operator that ends in between, or a registry that is down, loses nothing. From
the moment at which that Job is created the entry counts for nothing else any more
(`usable`): what it names may be gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.digests import short10, short_of
from slipway_operator.domain.requests import Built, Exported, Message, Registry, Removed, RemoveRequest, Trained
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.attempts import MAKING, REMOVE, jobs_of, run_step
from slipway_operator.plan.chain import Chain
from slipway_operator.plan.jobs import JobSpec
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.outcomes import StepKind, Succeeded, read_job
from slipway_operator.plan.serving import repository_for
from slipway_operator.plan.steps import BUILD, EXPORT, TRAIN, asks_registry, try_token
from slipway_operator.plan.troubles import is_finished

REMOVE_SECONDS = 600
BATCH = 20
"""Entries whose images one Job removes: its request has to fit an environment variable."""
_KINDS = {kind.name.lower(): kind for kind in (BUILD, TRAIN, EXPORT)}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

State = Literal["Idle", "Waiting", "Removing", "Failed"]


class CleanupReason(StrEnum):
    """Why nothing was removed."""

    TIMED_OUT = "RemoveTimedOut"
    OUT_OF_MEMORY = "RemoveOutOfMemory"
    REGISTRY_KEEPS = "RegistryKeepsAll"


REMOVING = StepKind(
    name="Remove",
    answer=Removed,
    noun="removal from the registry",
    timed_out=CleanupReason.TIMED_OUT,
    out_of_memory=CleanupReason.OUT_OF_MEMORY,
    raise_timeout="the registry answers too slowly; the annotation slipway.dev/retry tries again",
    raise_memory="tell Slipway's authors: it downloads nothing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What may go now, and what has to be removed before more may."""

    state: State
    prune: tuple[LoggedEntry, ...] = ()
    """Entries to delete now, oldest first."""
    create: Manifest | None = None
    """The remove Job to create now."""
    delete: tuple[Manifest, ...] = ()
    """Remove Jobs that are not needed any more."""
    message: str = ""
    """What is under way, or was done; empty: nothing."""
    trouble: Trouble | None = None
    """What keeps it from going on, or what stays in the registry; for an event, never for ``Ready``."""
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class Uses:
    """Digests that a content names: in the project's repository, and of its environment, which may be shared."""

    own: frozenset[str]
    environment: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """Both."""
        return self.own | self.environment


def usable(seen: Observed, entries: Sequence[LoggedEntry]) -> tuple[LoggedEntry, ...]:
    """The entries that may be gone back to or built upon: those whose removal has not begun."""
    going = _going(jobs_of(seen, step=REMOVE))
    return tuple(e for e in entries if e is entries[-1] or short10(e.digest) not in going)


def emptied(seen: Observed, entries: Sequence[LoggedEntry]) -> tuple[Manifest, ...]:
    """Finished Jobs whose answers name what the removal of an entry deletes: they are good for nothing any more.

    A Job that was made after the removal has made anew what it names.
    """
    waiting = {short10(e.digest) for e in entries[:-1]}
    removals = [j for j in jobs_of(seen, step=REMOVE) if _entries_of(j) & waiting]
    found = []
    for job in seen.jobs if removals else ():
        kind = _KINDS.get(job["metadata"]["labels"].get(labels.STEP))
        if kind is None or not is_finished(job):
            continue
        outcome = read_job(job, kind, pods=seen.pods, events=(), now=seen.now)
        gone = _asked_to_remove(r for r in removals if _made_at(r) >= _made_at(job))
        if isinstance(outcome, Succeeded) and digests_in([outcome.answer.model_dump(mode="json")]) & gone:
            found.append(job)
    return tuple(found)


def plan_cleanup(  # noqa: PLR0913 - each is a different reason to keep something
    seen: Observed,
    entries: Sequence[LoggedEntry],
    pruned: Iterable[LoggedEntry],
    *,
    needed: Iterable[Content] = (),
    chain: Chain | None,
    elsewhere: frozenset[str] | None = None,
) -> Cleanup:
    """Which entries may be deleted now, and the Job that has to succeed before others may.

    Args:
        seen: What was observed.
        entries: The whole log, oldest first, also what is not `usable`.
        pruned: The entries beyond the limit that nothing keeps.
        needed: Contents that are live, standby, held, named or on their way, whatever becomes of their entries.
        chain: The way that is gone now, whose results are in no entry yet.
        elsewhere: What other deployments use (`digests_in`); None: not known, so that what
            they could use (environments and packages) stays in the registry.
    """
    jobs = jobs_of(seen, step=REMOVE)
    begun, wanted = _going(jobs), {e.digest for e in pruned}
    going = [e for e in entries[:-1] if e.digest in wanted or short10(e.digest) in begun]
    if not going:
        return Cleanup(state="Idle", delete=_stale(jobs, ()))
    done, refused = _done(seen, jobs), _refused(seen, jobs)
    free = [e for e in going if short10(e.digest) in done or not seen.settings.clean_up.registry]
    rest = [e for e in going if e not in free]
    batch = rest[:BATCH]
    kept = [uses_of(e) for e in entries if e not in batch and e not in free]
    in_use = frozenset[str]().union(*(u.all for u in kept), *(_named_by(c) for c in needed), _made_by(chain))
    request = _request_for(seen, batch, in_use, elsewhere)
    if not request.digests and not request.environments:
        # Nothing of theirs is theirs alone. What is left of the rest follows at the next look.
        return Cleanup(
            state="Idle",
            prune=(*free, *batch),
            delete=_stale(jobs, going),
            trouble=refused if free else None,
            message=_told((*free, *batch)),
            requeue_after=1.0 if len(rest) > len(batch) else None,
        )
    spec = remove_spec(seen, request, batch)
    if _is_removing_else(seen, spec.key):
        return Cleanup(state="Removing", prune=tuple(free), message="an earlier removal is under way")
    if _is_making(seen, chain):
        words = "what is no longer needed is removed from the registry once nothing is being made"
        return Cleanup(state="Waiting", prune=tuple(free), delete=_stale(jobs, going), message=words)
    step = run_step(seen, spec, REMOVING)
    current = jobs_of(seen, step=REMOVE, key=spec.key)
    # The newest attempt tells by itself for which entries it has begun.
    others = [j for j in jobs if j not in current]
    return Cleanup(
        state="Failed" if step.state == "Failed" else "Waiting" if step.state == "Waiting" else "Removing",
        prune=tuple(free),
        create=step.create,
        delete=(*current[:-1], *_stale(others, free)),
        message=step.message or f"{len(request.digests) + len(request.environments)} manifests are being removed",
        trouble=step.trouble or (refused if free else None),
        requeue_after=step.requeue_after,
    )


def remove_spec(seen: Observed, request: RemoveRequest, batch: Sequence[LoggedEntry]) -> JobSpec:
    """Removes once; keyed by the entries that wait for it and by all that it removes."""
    names = [short10(e.digest) for e in batch]
    key = short_of([REMOVE, *seen.key, names, request.model_dump(mode="json")])
    return JobSpec(
        step=REMOVE,
        key=key,
        chain=key,
        source=key,
        token=try_token(seen, [seen.settings.registry.secret_name]),
        request=request,
        containers=(asks_registry(seen, REMOVE),),
        deadline_seconds=REMOVE_SECONDS,
        secrets={"registry": seen.settings.registry.secret_name},
        annotations={labels.ENTRIES: ",".join(names)},
    )


def uses_of(entry: LoggedEntry) -> Uses:
    """All that an entry's content has in the registry, with the image that its export ran in."""
    made = [str(r.answer.get("exportImage") or "") for r in entry.entry.steps if r.name == "Build"]
    content = entry.entry.digests
    own = {content.package, content.image, content.model_image, content.artifact, *made}
    own |= {content.trained or "", content.worker or ""}
    return Uses(frozenset(own - {""}), frozenset({content.environment}))


def digests_in(manifests: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every digest that any of these objects names: what other deployments use, by their specs, logs and pods."""
    return frozenset(d for m in manifests for d in _DIGEST.findall(json.dumps(m, default=str)))


def _request_for(
    seen: Observed, batch: Sequence[LoggedEntry], in_use: frozenset[str], elsewhere: frozenset[str] | None
) -> RemoveRequest:
    settings = seen.settings.registry
    own: set[str] = set()
    environments: set[str] = set()
    for entry in batch:
        if entry.entry.repository not in {None, repository_for(seen)}:
            # A registry that the platform moved away from is left as it is, and so is what a restored backup came from.
            continue
        uses, theirs = uses_of(entry), _pushed_by_people(entry)
        # An environment with packages that were built from source is in the project's repository.
        own |= (uses.all if elsewhere is not None else uses.all - {entry.entry.digests.package}) - theirs
        environments |= uses.environment if elsewhere is not None else frozenset()
    unused = in_use | (elsewhere or frozenset())
    return RemoveRequest(
        namespace=seen.key.namespace,
        name=seen.key.name,
        registry=Registry(prefix=settings.prefix, insecure=settings.insecure),
        digests=tuple(sorted(own - unused)),
        environments=tuple(sorted(environments - unused)),
    )


def _pushed_by_people(entry: LoggedEntry) -> frozenset[str]:
    """A package that was in a registry before it was deployed."""
    package = entry.entry.spec.get("source", {}).get("package") or {}
    return frozenset(_DIGEST.findall(str(package.get("image", ""))))


def _named_by(content: Content) -> frozenset[str]:
    return digests_in([content.model_dump(mode="json")])


def _made_by(chain: Chain | None) -> frozenset[str]:
    answers: list[Message] = [s.answer for s in chain.steps if s.answer is not None] if chain is not None else []
    return digests_in(a.model_dump(mode="json") for a in answers if isinstance(a, Built | Trained | Exported))


def _is_making(seen: Observed, chain: Chain | None) -> bool:
    """Whether a Job pushes to the registry, or is about to: what it makes may have a digest that is to go."""
    started = chain is not None and any(s.create is not None for s in chain.steps)
    return started or any(j["metadata"]["labels"].get(labels.STEP) in MAKING and not is_finished(j) for j in seen.jobs)


def _is_removing_else(seen: Observed, key: str) -> bool:
    """Whether a Job of another key still deletes."""
    return any(
        j["metadata"]["labels"].get(labels.STEP) == REMOVE
        and j["metadata"]["labels"].get(labels.KEY) != key
        and not is_finished(j)
        for j in seen.jobs
    )


def _entries_of(job: Manifest) -> frozenset[str]:
    text = (job["metadata"].get("annotations") or {}).get(labels.ENTRIES, "")
    return frozenset(filter(None, text.split(",")))


def _asked_to_remove(jobs: Iterable[Manifest]) -> frozenset[str]:
    return digests_in(e for j in jobs for c in j["spec"]["template"]["spec"]["containers"] for e in c["env"])


def _made_at(job: Manifest) -> str:
    return str(job["metadata"]["creationTimestamp"])


def _going(jobs: Iterable[Manifest]) -> frozenset[str]:
    return frozenset[str]().union(*(_entries_of(j) for j in jobs))


def _answers(seen: Observed, jobs: Iterable[Manifest]) -> list[tuple[Manifest, Removed]]:
    found = []
    for job in jobs:
        outcome = read_job(job, REMOVING, pods=seen.pods, events=(), now=seen.now)
        if isinstance(outcome, Succeeded) and isinstance(outcome.answer, Removed):
            found.append((job, outcome.answer))
    return found


def _done(seen: Observed, jobs: Iterable[Manifest]) -> frozenset[str]:
    """Entries whose removal has succeeded, or that a registry which deletes nothing has let go."""
    return frozenset[str]().union(*(_entries_of(job) for job, _ in _answers(seen, jobs)))


def _refused(seen: Observed, jobs: Iterable[Manifest]) -> Trouble | None:
    said = next((answer.refused for _, answer in reversed(_answers(seen, jobs)) if answer.refused), None)
    return Trouble(reason=CleanupReason.REGISTRY_KEEPS, message=said, stalled=False) if said is not None else None


def _stale(jobs: Sequence[Manifest], waiting_for: Sequence[LoggedEntry]) -> tuple[Manifest, ...]:
    """Ended Jobs that no entry waits for; the newest stays for its logs."""
    waiting = {short10(e.digest) for e in waiting_for}
    over = [j for j in jobs if is_finished(j) and not _entries_of(j) & waiting]
    newest = max(over, key=_made_at, default=None)
    return tuple(j for j in over if j is not newest)


def _told(free: Sequence[LoggedEntry]) -> str:
    return f"revision {', '.join(str(e.number) for e in free)} is removed" if free else ""
