"""What people ask for beside the spec: to go back, to go on, to go live now, to give up.

A directive is an annotation of the ModelDeployment (or ``spec.rollbackTo``), written
``<target>[@<id>][ <why>]``. Its id makes it happen once: a log entry that carries the id
is the proof that it was done, whatever becomes of the annotation. Where the cluster
stamps annotations at admission, the stamp says who asked, and makes an id for those who
gave none. Where nobody sees to a stamp, anybody can write one: it still makes an id, and
says nothing of who asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from slipway_operator.domain.digests import short_of

PREVIOUS: Final = "previous"
NOW: Final = "now"
FIELD: Final = "RollbackTo"
"""Door of ``spec.rollbackTo``; that of an annotation is its verb."""
STAMP: Final = "-stamp"
"""An annotation with this suffix says ``<resourceVersion> <user>`` of whoever set the one without it."""
SPEC_STAMP: Final = "slipway.dev/spec-stamp"
"""Annotation: who changed the spec last, as the API server knows it."""
_VALUE = re.compile(r"(?P<target>[A-Za-z0-9]{1,63})(@(?P<id>[A-Za-z0-9._-]{1,63}))?(\s+(?P<why>.*))?", re.DOTALL)
_WHY_LIMIT = 500


class Stamps(StrEnum):
    """What the cluster's admission does for stamps, as the chart says it."""

    WRITTEN = "Written"
    """The API server writes them all."""
    CHECKED = "Checked"
    """It has a request's author write it, and lets him give his own name only; of the spec nobody says who."""
    UNCHECKED = "Unchecked"
    """Anybody writes into them what he likes."""


class Verb(StrEnum):
    """What can be asked for."""

    ROLLBACK = "Rollback"
    RESUME = "Resume"
    PROMOTE = "Promote"
    ABORT = "Abort"

    @property
    def annotation(self) -> str:
        """The annotation that asks for it."""
        return f"slipway.dev/{self.value.lower()}"

    @property
    def causes(self) -> tuple[str, ...]:
        """Causes of the log entries that do it: one id, a ticket's say, may name a rollback and then its resume."""
        return _CAUSES[self]


_CAUSES: Final = {
    Verb.ROLLBACK: ("Rollback",),
    Verb.RESUME: ("Resume",),
    Verb.PROMOTE: ("SpecChange", "Promotion"),
    Verb.ABORT: ("Abort",),
}
"""As `domain.revisions.Cause` has them, which the command line does not load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One request, not yet compared with what there is."""

    verb: Verb
    id: str
    target: str
    """``previous``, ``now``, a number, or a content's short digest; empty: the value makes no sense."""
    why: str | None = None
    who: str
    who_by: str
    """``Admission``, ``FieldManager`` or ``Nobody``: how it is known who asked."""
    door: str
    """Where it was written, as status names it: each door is answered for itself."""


def directives_of(
    metadata: Mapping[str, Any], rollback_to: tuple[int, str | None] | None, stamps: Stamps
) -> tuple[Directive, ...]:
    """All that is asked for, done or not; an annotation comes before ``spec.rollbackTo``.

    Args:
        metadata: Of the ModelDeployment.
        rollback_to: Revision and id of ``spec.rollbackTo``.
        stamps: Whether those of the metadata are true.
    """
    annotations = metadata.get("annotations") or {}
    found = [
        _from_annotation(verb, annotations[verb.annotation], metadata, stamps)
        for verb in Verb
        if annotations.get(verb.annotation)
    ]
    if rollback_to is not None:
        number, given = rollback_to
        who, who_by = spec_author(metadata, stamps)
        found.append(
            Directive(
                verb=Verb.ROLLBACK,
                id=given or short_of(["spec.rollbackTo", number]),
                target=str(number),
                why="spec.rollbackTo",
                who=who,
                who_by=who_by,
                door=FIELD,
            )
        )
    return tuple(found)


def spec_author(metadata: Mapping[str, Any], stamps: Stamps) -> tuple[str, str]:
    """Who wrote the spec, and how that is known: a field manager is a hint, and is told as one."""
    stamped = (metadata.get("annotations") or {}).get(SPEC_STAMP)
    if stamped and stamps is Stamps.WRITTEN:
        return str(stamped), "Admission"
    return _manager_of(metadata.get("managedFields") or (), ("f:spec",))


def _from_annotation(verb: Verb, value: str, metadata: Mapping[str, Any], stamps: Stamps) -> Directive:
    stamp = str((metadata.get("annotations") or {}).get(verb.annotation + STAMP, ""))
    match = _VALUE.fullmatch(value.strip())
    version, _, user = stamp.partition(" ")
    if user and stamps is not Stamps.UNCHECKED:
        who, who_by = user, "Admission"
    else:
        who, who_by = _manager_of(
            metadata.get("managedFields") or (), ("f:metadata", "f:annotations", f"f:{verb.annotation}")
        )
    given = match["id"] if match else None
    why = match["why"] if match else None
    return Directive(
        verb=verb,
        # The stamp's version, believed or not: a setting that changes must not make a new request of an old one.
        id=given or short_of([verb.value, value.strip(), version]),
        target=match["target"] if match else "",
        why=" ".join(why.split())[:_WHY_LIMIT] if why else None,
        who=who,
        who_by=who_by,
        door=verb.value,
    )


def _manager_of(managed: Sequence[Mapping[str, Any]], path: Sequence[str]) -> tuple[str, str]:
    """The manager that wrote a field last."""

    def has(fields: Any) -> bool:
        for part in path:
            if not isinstance(fields, Mapping) or part not in fields:
                return False
            fields = fields[part]
        return True

    writers = [f for f in managed if not f.get("subresource") and has(f.get("fieldsV1"))]
    newest = max(writers, key=lambda f: str(f.get("time", "")), default=None)
    return (str(newest["manager"]), "FieldManager") if newest is not None else ("unknown", "Nobody")
