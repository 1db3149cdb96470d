"""What there is of one ModelDeployment, so that two ends can be compared: no times, no names that hold a hash."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from slipway_operator.domain import labels
from slipway_operator.domain.revisions import read_log
from slipway_operator.plan.observed import Manifest

RECURRING = frozenset({"resolve", "verify", "remove"})
"""Steps that are done again and again by the clock: they have no end to compare."""


def picture_of(resource: Manifest, objects: Sequence[Manifest]) -> Manifest:
    """As `Case.picture`."""
    uid, status = resource["metadata"]["uid"], resource.get("status") or {}
    revisions = [o for o in objects if o["kind"] == "ControllerRevision"]
    entries, faults = read_log(revisions)
    order: dict[str, int] = {}
    for logged in entries:
        order.setdefault(logged.entry.digests.short, len(order) + 1)

    def content(short: str | None) -> Any:
        return order.get(short, "new") if short else None

    # What is done again and again by the clock has no end to compare.
    jobs = [o for o in objects if o["kind"] == "Job" and o["metadata"]["labels"][labels.STEP] not in RECURRING]
    keys = collections.Counter(
        (o["metadata"]["labels"][labels.STEP], o["metadata"]["labels"][labels.KEY]) for o in jobs
    )
    return {
        "faults": list(faults),
        "entries": [
            [e.number, str(e.entry.cause), content(e.entry.digests.short), e.entry.undoes, e.entry.restores,
             len(e.entry.holds), e.entry.request_id]
            for e in entries
        ],
        "twice": sorted(step for (step, _), number in keys.items() if number > 1),
        "again": sorted(o["metadata"]["name"] for o in jobs if not o["metadata"]["name"].endswith("-1")),
        "deployments": sorted(
            [str(content(marks.get(labels.CONTENT))), str(content(marks.get(labels.CANARY))), o["spec"]["replicas"],
             (o.get("status") or {}).get("availableReplicas", 0)]
            for o in objects if o["kind"] == "Deployment" for marks in [o["metadata"]["labels"]]
        ),
        "lane": [
            content((o["spec"].get("selector") or {}).get(labels.LANE)) for o in objects if o["kind"] == "Service"
        ],
        "kinds": dict(collections.Counter(
            o["kind"] for o in objects if o["kind"] not in {"Pod", "Job", "ControllerRevision", "Deployment"}
        )),
        "orphans": sorted(
            f"{o['kind']}/{o['metadata']['name']}" for o in objects
            if o["kind"] != "Pod" and uid not in {r["uid"] for r in o["metadata"].get("ownerReferences") or ()}
        ),
        "running": sorted(o["metadata"]["labels"][labels.STEP] for o in jobs if not (o["status"].get("conditions"))),
        "conditions": conditions_of(resource),
        "live": [content((status.get("live") or {}).get("content")), (status.get("live") or {}).get("revision")],
        "held": [content(h["content"]) for h in status.get("held") or ()],
        "requests": [[r["verb"], r["id"], r["state"]] for r in status.get("requests") or ()],
        "steps": [[s["name"], s["state"]] for s in status.get("steps") or ()],
    }  # fmt: skip


def conditions_of(resource: Manifest) -> Manifest:
    """Status and reason of each condition."""
    return {c["type"]: [c["status"], c["reason"]] for c in (resource.get("status") or {}).get("conditions", ())}


def difference(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> str:
    """Where two pictures differ, in words."""
    return "; ".join(
        f"{name} is {seen.get(name)!r}, not {wanted.get(name)!r}"
        for name in sorted({*wanted, *seen})
        if wanted.get(name) != seen.get(name)
    )


def _is_moving(picture: Mapping[str, Any]) -> bool:
    if "left" in picture:
        return bool(picture["left"])
    return bool(picture["conditions"].get("Reconciling", ["True"])[0] == "True")


def is_moving(picture: Mapping[str, Any]) -> bool:
    """Whether it is not an end."""
    if "left" in picture:
        return bool(picture["left"])
    return bool(picture["conditions"].get("Reconciling", ["True"])[0] == "True")
