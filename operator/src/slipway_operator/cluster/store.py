"""What belongs to ModelDeployments as it was last seen, so that a look need not ask the API server for it.

Objects are kept as compact JSON: a tenth of the memory of dicts, and nobody can change what another look sees.
Of two versions of an object the newer one counts, whichever way it came: by a watch, by a list, or as the
API server's answer to a write of our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from slipway_operator.domain import labels
from slipway_operator.domain.keys import Key
from slipway_operator.plan.observed import Manifest, Ref, ref_of

MOST_GONE = 1000
"""So many UIDs of what we deleted are remembered: their last events are a moment away."""
_SILENT = frozenset({"Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "ConfigMap"})
"""Kinds whose status no planner looks at."""


class _Kept(NamedTuple):
    uid: str
    version: int
    text: bytes
    """The object but for its version, as JSON."""


class Store:
    """Objects by owner."""

    def __init__(self) -> None:
        self._owned: dict[Key, dict[Ref, _Kept]] = {}
        self._owner: dict[Ref, Key] = {}
        self._gone: dict[str, None] = {}
        """UIDs of what we deleted, oldest first: a late event must not bring it back."""

    def __len__(self) -> int:
        return len(self._owner)

    def owned(self, key: Key) -> list[Manifest]:
        """Everything that belongs to a ModelDeployment, as fresh dicts."""
        return [_restored(kept) for kept in self._owned.get(key, {}).values()]

    def owner(self, ref: Ref) -> Key | None:
        """Whose an object is, if it is kept."""
        return self._owner.get(ref)

    def versions(self, kind: str, *, key: Key | None = None, namespace: str = "") -> dict[Ref, int]:
        """Versions of what is kept of a kind, to compare a list with that is asked for now."""
        refs = self._owner if key is None else self._owned.get(key, {})
        return {
            ref: self._owned[self._owner[ref]][ref].version
            for ref in refs
            if ref.kind == kind and namespace in {"", ref.namespace}
        }

    def put(self, manifest: Mapping[str, Any]) -> Key | None:
        """Keep an object, unless what is kept is as new.

        Returns:
            The owner, if anything of it changed that a planner looks at.
        """
        meta = manifest["metadata"]
        key, ref = owner_of(manifest), ref_of(manifest)
        if key is None or meta["uid"] in self._gone:
            return None
        if self._owner.get(ref, key) != key:
            self._forget(ref)
        before = self._owned.get(key, {}).get(ref)
        version = int(meta["resourceVersion"])
        if before is not None and before.version >= version:
            return None
        kept = _Kept(str(meta["uid"]), version, _text(manifest))
        self._owner[ref] = key
        self._owned.setdefault(key, {})[ref] = kept
        return None if before is not None and before.text == kept.text else key

    def drop(self, manifest: Mapping[str, Any]) -> Key | None:
        """Forget an object that is gone; one of the same name that took its place stays.

        Returns:
            The owner, if the object was kept.
        """
        uid = str(manifest["metadata"]["uid"])
        self._gone.pop(uid, None)
        return self._forget(ref_of(manifest), uid)

    def deleted(self, ref: Ref, uid: str) -> None:
        """Forget an object that we deleted, and what late events will still say of it."""
        self._gone[uid] = None
        while len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]
        self._forget(ref, uid)

    def sweep(self, before: Mapping[Ref, int], shown: AbstractSet[Ref], newest: int) -> list[Key]:
        """Forget what a list does not show.

        Args:
            before: Versions of what was kept when the list was asked for, of all that it is about; what changed
                since is not judged by it.
            shown: What the list shows.
            newest: Version of the list; something newer is not gone, the list is old.

        Returns:
            Owners of what was forgotten.
        """
        missing = [r for r, version in before.items() if r not in shown and version <= newest]
        found = []
        for ref in missing:
            key = self._owner.get(ref)
            if key is not None and self._owned[key][ref].version == before[ref]:
                self._forget(ref)
                found.append(key)
        return found

    def _forget(self, ref: Ref, uid: str | None = None) -> Key | None:
        key = self._owner.get(ref)
        if key is None or uid not in {None, self._owned[key][ref].uid}:
            return None
        del self._owner[ref]
        del self._owned[key][ref]
        if not self._owned[key]:
            del self._owned[key]
        return key


def owner_of(manifest: Mapping[str, Any]) -> Key | None:
    """The ModelDeployment that an object belongs to, by its label."""
    meta = manifest["metadata"]
    name = (meta.get("labels") or {}).get(labels.OWNER)
    return Key(meta.get("namespace", ""), name) if name else None


def _text(manifest: Mapping[str, Any]) -> bytes:
    meta = {n: v for n, v in manifest["metadata"].items() if n not in {"managedFields", "resourceVersion"}}
    kept = {n: v for n, v in manifest.items() if n != "status" or manifest["kind"] not in _SILENT}
    return json.dumps({**kept, "metadata": meta}, separators=(",", ":"), ensure_ascii=False).encode()


def _restored(kept: _Kept) -> Manifest:
    manifest: Manifest = json.loads(kept.text)
    manifest["metadata"]["resourceVersion"] = str(kept.version)
    return manifest
