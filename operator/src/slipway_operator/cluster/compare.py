"""Whether an object is as a plan wants it, so that nothing is written when nothing changed.

Two looks: what is wanted must be in the object (drift of our fields is corrected), and
the hash of what was applied last must be the same (a field that the plan dropped goes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from slipway_operator.domain import labels
from slipway_operator.domain.digests import short_of
from slipway_operator.plan.observed import Manifest

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
# A digest may look like a number with an exponent of eight digits: it is no quantity, and too large for any.
_QUANTITY = re.compile(rf"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:({'|'.join(_SUFFIXES)})|([eE][+-]?[0-9]{{1,2}}))?")


def marked(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself, as it is applied.

    Replicas are not in the hash: under an autoscaler the plan repeats what it saw, and
    that must not be a change.
    """
    meta = manifest["metadata"]
    annotations = {**(meta.get("annotations") or {}), labels.APPLIED: _hash(manifest)}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def is_as_wanted(manifest: Manifest, live: Mapping[str, Any]) -> bool:
    """Whether an object already is what would be applied."""
    wanted = marked(manifest)
    meta = {name: value for name, value in wanted["metadata"].items() if name != "resourceVersion"}
    return _contains({**wanted, "metadata": meta}, live)


def _hash(manifest: Manifest) -> str:
    meta = {n: v for n, v in manifest["metadata"].items() if n not in {"resourceVersion", "annotations"}}
    spec = manifest.get("spec")
    rest = {**manifest, "metadata": meta}
    if isinstance(spec, dict):
        rest["spec"] = {n: v for n, v in spec.items() if n != "replicas"}
    return short_of(rest)


def _contains(wanted: Any, live: Any) -> bool:
    if isinstance(wanted, Mapping):
        if live is None:
            return not wanted
        return isinstance(live, Mapping) and all(_contains(v, live.get(k)) for k, v in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if live is None:
            return not wanted
        return (
            isinstance(live, Sequence)
            and not isinstance(live, str)
            and len(live) == len(wanted)
            and all(_contains(w, h) for w, h in zip(wanted, live, strict=True))
        )
    if wanted == live or (wanted in ("", 0, False) and live is None):
        return True
    return _is_same_quantity(wanted, live)


def _is_same_quantity(wanted: Any, live: Any) -> bool:
    one, other = _quantity(wanted), _quantity(live)
    return one is not None and one == other


def _quantity(value: Any) -> Decimal | None:
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    number, suffix, exponent = found.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES.get(suffix, Decimal(1))
