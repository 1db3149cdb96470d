"""Whether a rollback would work: what the registry said of a content last, and when it is asked again.

The operator never talks to a registry; a Job that holds the registry's Secret does. Its
answer counts for one content under one live content, and for so long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from slipway_operator.domain import labels
from slipway_operator.domain.digests import short_of
from slipway_operator.domain.durations import parse_time, words_of
from slipway_operator.domain.requests import LiveModel, Message, Registry, Verified, VerifyRequest
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.attempts import Asked, ask_again, jobs_of
from slipway_operator.plan.jobs import JobSpec
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.outcomes import StepKind
from slipway_operator.plan.serving import repository_for
from slipway_operator.plan.steps import asks_registry, try_token

STEP = "verify"
VERIFY_SECONDS = 600
AGAIN_WHEN_FAILED = 600.0
"""Seconds at most until the registry is asked again for what was missing: somebody may have pushed it back."""


class ProofReason(StrEnum):
    """Why a proof has no answer of its own."""

    TIMED_OUT = "VerifyTimedOut"
    OUT_OF_MEMORY = "VerifyOutOfMemory"


VERIFY = StepKind(
    name="Verify",
    answer=Verified,
    noun="check of the registry",
    timed_out=ProofReason.TIMED_OUT,
    out_of_memory=ProofReason.OUT_OF_MEMORY,
    raise_timeout="the registry answers too slowly; it is asked again by itself",
    raise_memory="ask the platform for a smaller export, or tell Slipway's authors: it downloads no model",
)


class State(StrEnum):
    """What is known of a content."""

    PROVEN = "Proven"
    """All of it is in the registry, and callers could go on with it."""
    UNPROVEN = "Unproven"
    """Not known (any more): nobody answered yet, or not for a long time."""
    FAILED = "Failed"
    """Something of it is gone, or its schema does not fit what callers send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the registry said of one content."""

    content: str
    """Digest of the content."""
    key: str
    state: State
    message: str
    """A sentence for people: what is known, or why nothing is."""
    missing: tuple[str, ...] = ()
    """What is not in the registry; empty unless it was asked and said so."""
    found: bool = False
    """All of it was in the registry when that answered last, however long ago and whatever else it said."""
    schema: str = ""
    """Why callers could not go on with it; empty: they can, or it is not known."""
    at: str | None = None
    """When the registry answered last."""
    job: str | None = None
    create: Manifest | None = None
    """The verify Job to create now."""
    delete: tuple[Manifest, ...] = ()
    """Jobs of this proof whose answers are history."""
    trouble: Trouble | None = None
    """Why the newest Job gave no answer."""
    requeue_after: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether waiting for the registry tells nothing more: it has answered, or nobody will ask it by themselves.

        What it cannot compare (the live model's signature may be what is gone) must not keep anybody from leaving it.
        """
        return self.state is not State.UNPROVEN or self.found or (self.trouble is not None and self.trouble.stalled)


def prove(seen: Observed, target: LoggedEntry, live: LoggedEntry | None) -> Proof:
    """What is known of a content that a rollback may go to, and the Job that asks, when it is due.

    Args:
        seen: What was observed.
        target: Any entry of the content.
        live: The entry by which the live content went live; callers send what its model takes.
    """
    spec = verify_spec(seen, target, live)
    every = float(seen.settings.rollback.verify_every_seconds)
    asked = ask_again(seen, spec, VERIFY, wait_after=lambda answer: _wait_after(answer, every))
    state, message = _state_of(seen, asked, every)
    answer = asked.answer if isinstance(asked.answer, Verified) else None
    current = state is not State.UNPROVEN and answer is not None
    return Proof(
        content=target.entry.content,
        key=spec.key,
        state=state,
        message=message,
        missing=answer.missing if answer is not None and current else (),
        found=answer is not None and not answer.missing,
        schema=answer.schema_difference if answer is not None and answer.schema_fits is False and current else "",
        at=asked.at,
        job=asked.job,
        create=asked.create,
        delete=asked.delete,
        trouble=asked.trouble,
        requeue_after=asked.requeue_after,
    )


def unneeded(seen: Observed, proofs: Iterable[Proof]) -> tuple[Manifest, ...]:
    """Verify Jobs that belong to none of these proofs: of contents that nobody goes back to, or of another live one."""
    keys = {proof.key for proof in proofs}
    return tuple(j for j in jobs_of(seen, step=STEP) if j["metadata"]["labels"].get(labels.KEY) not in keys)


def verify_spec(seen: Observed, target: LoggedEntry, live: LoggedEntry | None) -> JobSpec:
    """Asks for one content under one live content; its attempts are the ticks of the schedule."""
    settings = seen.settings
    other = live if live is not None and live.entry.content != target.entry.content else None
    repository = target.entry.repository or repository_for(seen)
    # What goes live again is proven again, by a Job of another name: one that takes the name of a Job that has just
    # been deleted may get no pod for minutes, as the Job controller goes on with what it remembers of the first.
    beside = (other.entry.content, other.number) if other is not None else (None, None)
    key = short_of([STEP, *seen.key, repository, target.entry.content, *beside])
    prefix, namespace, name = repository.rsplit("/", 2)
    request = VerifyRequest(
        namespace=namespace,
        name=name,
        registry=Registry(prefix=prefix, insecure=settings.registry.insecure),
        content=target.entry.digests,
        live=LiveModel(
            repository=other.entry.repository or repository_for(seen),
            model_image=other.entry.digests.model_image,
            signature=other.entry.digests.signature,
        )
        if other is not None
        else None,
    )
    return JobSpec(
        step=STEP,
        key=key,
        chain=key,
        source=key,
        token=try_token(seen, [settings.registry.secret_name]),
        request=request,
        containers=(asks_registry(seen, STEP),),
        deadline_seconds=VERIFY_SECONDS,
        secrets={"registry": settings.registry.secret_name},
    )


def _wait_after(answer: Message | None, every: float) -> float:
    good = isinstance(answer, Verified) and not answer.missing and answer.schema_fits
    return every if good else min(every, AGAIN_WHEN_FAILED)


def _state_of(seen: Observed, asked: Asked, every: float) -> tuple[State, str]:
    answer, why = asked.answer, asked.trouble.message if asked.trouble is not None else None
    if not isinstance(answer, Verified):
        return State.UNPROVEN, why or "the registry is being asked"
    age = (seen.now - parse_time(asked.at)).total_seconds() if asked.at is not None else 0.0
    # One look may fail; what was said before it still counts until the next one should have been done too.
    if age > 2 * every:
        return State.UNPROVEN, f"the registry last answered {words_of(age)} ago: {why or 'it is being asked again'}"
    if answer.missing:
        return State.FAILED, f"not in the registry: {', '.join(answer.missing)}"
    if answer.schema_fits is False:
        return State.FAILED, f"the schema does not fit: {answer.schema_difference}"
    if answer.schema_fits is None:
        return State.UNPROVEN, answer.schema_difference or "the schema is not compared"
    unasked = f"; not asked: {', '.join(answer.unasked)}" if answer.unasked else ""
    return State.PROVEN, f"all {answer.asked} images and artifacts are in the registry, and the schema fits{unasked}"
