"""The log: which content was live when, and why.

An entry is an ``apps/v1 ControllerRevision`` named ``<name>-<number>``: a second
writer of the same number gets a 409. Everything that counts is inside ``data``,
which the API server keeps immutable, and each entry holds the digest of the one
before, so that an edited or missing entry shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.digests import sha256_of


class Cause(StrEnum):
    """Why a content went live."""

    SPEC_CHANGE = "SpecChange"
    PROMOTION = "Promotion"
    ROLLBACK = "Rollback"
    RESUME = "Resume"
    ABORT = "Abort"


class _Logged(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class StepRecord(_Logged):
    """How one step of the way to this content went: enough to never run it again."""

    name: str
    key: str
    started_at: str | None = None
    finished_at: str | None = None
    message: str | None = None
    builder: str | None = None
    """Image that packaged and pushed, by digest: with it all versions of tools; None: logged by an older release."""
    answer: dict[str, Any] = Field(default_factory=dict)


class Hold(_Logged):
    """What must not go live again by itself: a spec at a commit, or (after a promotion) one model."""

    content: str
    """Digest of the content that is held."""
    spec: str | None = None
    """Digest of the part of the spec that decides on it."""
    commit: str | None = None
    model: str | None = None


class Entry(_Logged):
    """One entry, as it is inside ``data``. Unknown fields of a newer release are kept out of the way, not refused."""

    number: int = Field(ge=1)
    previous: str | None = None
    """Digest of the entry before; None for the first."""
    cause: Cause
    request_id: str | None = None
    who: str
    who_by: str
    """How it is known who it was: ``FieldManager``, ``Admission``, ``Operator``."""
    why: str
    at: str
    content: str
    """Digest of the content, ``sha256:<hex>``."""
    digests: Content
    spec: dict[str, Any]
    """The part of the spec that decided on this content."""
    repository: str | None = None
    """Repository that holds the content's images: a change of the platform's registry, or of the namespace
    that a backup is restored to, moves none of them."""
    steps: tuple[StepRecord, ...] = ()
    undoes: int | None = None
    """Number of the entry that a rollback left."""
    restores: int | None = None
    """Number of the entry whose content a rollback made live again."""
    holds: tuple[Hold, ...] = ()
    """What is held from now on."""
    answered: tuple[str, ...] = ()
    """``<door>/<id>`` of the requests that are done and still stand: the entry that did one may be pruned before."""


class LoggedEntry(BaseModel):
    """An entry together with what the cluster says around it."""

    model_config = ConfigDict(frozen=True)

    name: str
    digest: str
    """SHA-256 of the whole of ``data``, unknown fields included."""
    entry: Entry
    owners: tuple[str, ...] = ()
    """UIDs of the owner references."""

    @property
    def number(self) -> int:
        """The entry's number; ``revision`` beside ``data`` can be edited and is not asked."""
        return self.entry.number


def read_log(manifests: Sequence[Mapping[str, Any]]) -> tuple[tuple[LoggedEntry, ...], tuple[str, ...]]:
    """Read ControllerRevisions into entries, oldest first.

    Returns:
        The entries that can be read and one sentence for each fault: an entry that
        cannot be read, one whose name belies its number, a gap, or an entry that does
        not follow from the one before. The oldest entry may refer to a pruned one.
    """
    found: list[LoggedEntry] = []
    faults: list[str] = []
    for manifest in manifests:
        meta = manifest["metadata"]
        data = manifest.get("data") or {}
        try:
            entry = Entry.model_validate(data)
        except ValidationError as error:
            faults.append(f"entry {meta['name']} cannot be read: {error.errors()[0]['msg']}")
            continue
        if not str(meta["name"]).endswith(f"-{entry.number}"):
            faults.append(f"entry {meta['name']} says that it is number {entry.number}")
            continue
        if entry.digests.digest != entry.content:
            faults.append(f"entry {meta['name']} names a content that its digests do not make")
            continue
        owners = tuple(o["uid"] for o in meta.get("ownerReferences", ()))
        found.append(LoggedEntry(name=meta["name"], digest=sha256_of(data), entry=entry, owners=owners))
    found.sort(key=lambda e: e.number)
    faults.extend(_chain_faults(found))
    return tuple(found), tuple(faults)


def entry_manifest(
    entry: Entry, *, owner_name: str, namespace: str, owner_reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The ControllerRevision that holds an entry; without an owner it outlives the ModelDeployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{owner_name}-{entry.number}",
            "namespace": namespace,
            "labels": {**labels.owned(owner_name), labels.LOG: "true", labels.CONTENT: entry.digests.short},
            **({"ownerReferences": [dict(owner_reference)]} if owner_reference is not None else {}),
        },
        "data": _data_of(entry),
        "revision": entry.number,
    }


def holds_of(entries: Sequence[LoggedEntry]) -> tuple[tuple[LoggedEntry, Hold], ...]:
    """What is held now, the oldest first, each with the entry that holds it.

    Whatever else goes live, and a ``Resume``, ends what was held before.
    """
    found: list[tuple[LoggedEntry, Hold]] = []
    for logged in entries:
        if logged.entry.cause in _RELEASING:
            found = []
        found.extend((logged, hold) for hold in logged.entry.holds)
    return tuple(found)


def next_number(manifests: Sequence[Mapping[str, Any]]) -> int:
    """The number of the next entry; also those that cannot be read have taken theirs."""
    taken = (str(m["metadata"]["name"]).rpartition("-")[2] for m in manifests)
    return max((int(n) for n in taken if n.isdecimal()), default=0) + 1


_RELEASING = frozenset({Cause.SPEC_CHANGE, Cause.PROMOTION, Cause.RESUME})


def _data_of(entry: Entry) -> dict[str, Any]:
    data = entry.model_dump(by_alias=True, mode="json", exclude_none=True)
    return {name: value for name, value in data.items() if name not in {"holds", "answered"} or value}


def _chain_faults(entries: Sequence[LoggedEntry]) -> list[str]:
    faults = []
    for before, after in itertools.pairwise(entries):
        if after.number != before.number + 1:
            faults.append(f"entries between {before.name} and {after.name} are missing")
        elif after.entry.previous != before.digest:
            faults.append(f"entry {after.name} does not follow from {before.name}, or {before.name} was changed")
    return faults
