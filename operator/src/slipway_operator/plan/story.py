"""What a status, its conditions and its events are told from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.contents import Content
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.revisions import LoggedEntry
from slipway_operator.plan.chain import Chain, Look
from slipway_operator.plan.decisions import Decisions, Return
from slipway_operator.plan.holds import Held
from slipway_operator.plan.observed import Manifest, Observed, Trouble
from slipway_operator.plan.proof import Proof
from slipway_operator.plan.rollout import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that the status is told from."""

    seen: Observed
    spec: ModelDeploymentSpec | None
    entries: Sequence[LoggedEntry]
    faults: Sequence[str] = ()
    """What is wrong with the log."""
    chain: Chain | None = None
    look: Look | None = None
    held: Held | None = None
    decisions: Decisions = field(default_factory=Decisions)
    back: Return | None = None
    """A rollback that is due."""
    barred: str | None = None
    """Why a limit that the live content passed takes nothing back."""
    rollout: Rollout = field(default_factory=Rollout)
    proof: Proof | None = None
    """What the registry says of the standby."""
    candidate: Content | None = None
    commit: str | None = None
    blocked: Trouble | None = None
    new_entry: Manifest | None = None
    """Data of the entry that this plan writes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where it stands."""

    reason: Reason | str
    message: str
    state: str
    """``Settled``, ``Moving`` or ``Stalled``."""
