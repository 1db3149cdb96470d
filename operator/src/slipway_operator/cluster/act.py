"""Carries out a plan: apply, create, delete; status and events are the caller's next step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from slipway_operator.cluster.compare import is_as_wanted, marked
from slipway_operator.cluster.protocol import Cluster, ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.errors import Blocked
from slipway_operator.domain.reasons import Reason
from slipway_operator.plan.observed import Manifest, Plan, Ref, ref_of

NO_VERSION = "1"
"""A version that no object has: the store's own, from before anything was written."""


class Done(NamedTuple):
    """What was done."""

    applied: bool
    """Something changed by what was applied: another look tells whether that is all."""
    created: bool
    """What follows from it can be planned at once."""


async def carry_out(
    cluster: Cluster, plan: Plan, seen: Sequence[Manifest], *, before: Callable[[], Awaitable[None]] | None = None
) -> Done:
    """Make the cluster hold what the plan says.

    Args:
        cluster: Where.
        plan: What.
        seen: The objects that the plan was made on.
        before: Called before the first write, if there is one; raises to prevent it.

    Raises:
        Waiting: it will pass by itself.
        Blocked: a person must change something.
    """
    known = {ref_of(m): m for m in seen}
    differing = [m for m in plan.apply if not _is_there(m, known.get(ref_of(m)))]
    if before is not None and (differing or plan.create or plan.delete):
        await before()
    changed = [await _apply(cluster, manifest, known.get(ref_of(manifest))) for manifest in differing]
    for manifest in plan.create:
        if await cluster.create(manifest) is None:
            # One of ours counts as made: somebody was faster, so it is time to look again.
            found = await cluster.get(ref_of(manifest))
            if found is not None:
                _require_ours(manifest, found)
    for ref in plan.delete:
        await cluster.delete(ref, known[ref]["metadata"]["uid"] if ref in known else None)
    return Done(applied=any(changed), created=bool(plan.create))


def _is_there(manifest: Manifest, live: Mapping[str, Any] | None) -> bool:
    return live is not None and is_as_wanted(manifest, live)


async def _apply(cluster: Cluster, manifest: Manifest, live: Mapping[str, Any] | None) -> bool:
    """Apply an object; whether it is another one than the look has seen.

    It is not where others have a say in each write: a webhook that adds an item to a list puts it back
    each time, so that the object never is as wanted, and looking again would never tell anything else.
    """
    if live is not None:
        answer = await cluster.apply(marked(manifest))
        return bool(answer["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"])
    try:
        await cluster.apply(_as_first(marked(manifest)))
    except ConflictError:
        live = await cluster.get(ref_of(manifest))
    else:
        return True
    if live is not None:
        _require_ours(manifest, live)
    if not _is_there(manifest, live):
        await cluster.apply(marked(manifest))
    return True


def _as_first(manifest: Manifest) -> Manifest:
    """To be applied where no object of that name is: one that is there has another version, and the API server refuses.

    So nothing has to be read first, and what belongs to somebody else is not touched.
    """
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": NO_VERSION}}


def _require_ours(manifest: Manifest, live: Mapping[str, Any]) -> None:
    """An object of that name without our labels is somebody else's: it is not taken over."""
    wanted, found = (m["metadata"].get("labels") or {} for m in (manifest, live))
    if all(wanted.get(label) in {None, found.get(label)} for label in (labels.OWNER, labels.LOG)):
        return
    ref: Ref = ref_of(manifest)
    raise Blocked(
        Reason.NAME_TAKEN,
        f"{ref.kind} {ref.name} exists in namespace {ref.namespace} and does not belong to Slipway: "
        "delete it, or give the ModelDeployment another name",
    )
