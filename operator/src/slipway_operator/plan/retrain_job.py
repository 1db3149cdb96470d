"""Plans one RetrainJob: in this release only the honest word that nothing is done with it yet."""

from __future__ import annotations

from slipway_operator.domain.reasons import Reason
from slipway_operator.plan.events import events_for
from slipway_operator.plan.observed import Observed, Plan
from slipway_operator.plan.status import conditions_for, summary_of
from slipway_operator.plan.story import Verdict

MESSAGE = "this release of Slipway does not retrain on a schedule yet: it takes the object and does nothing with it"


def plan_retrain_job(seen: Observed) -> Plan:
    """Say in its status that a RetrainJob does nothing yet."""
    verdict = Verdict(Reason.NOT_YET_SUPPORTED, MESSAGE, "Stalled")
    status = {
        "observedGeneration": seen.generation,
        "summary": summary_of(verdict),
        "conditions": conditions_for(seen.status.get("conditions") or (), verdict, (), seen=seen),
    }
    return Plan(status=status, events=events_for(seen, status, None))
