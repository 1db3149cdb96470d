"""What the example rows look like: the reference that a runtime compares live values with.

``reference.json`` holds, for each number a histogram and for each string column its categories,
of what goes into the model and of what comes out. A live value is counted into the same bins, so
that population stability index and Kolmogorov-Smirnov distance need nothing but the two counts,
and those of many pods are added up.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .columns import MISSING
from .foreign import np
from .rows import Input

FEATURES = 1000
"""Columns that are described at most: a matrix of pixels has no use for more."""
CLASSES = 20
CATEGORIES = 100
KNOWN = 10_000
_PARTS = 10


def reference(
    inputs: list[tuple[Input, Any]],
    columns: list[str],
    outputs: list[tuple[str, Any]],
    *,
    classes: list[Any] | None = None,
    known: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Describe rows and the answers to them.

    Args:
        inputs: The model's inputs with an array for each.
        columns: Names of the columns, in the model's order; empty where it has none.
        outputs: Name and array of each output.
        classes: What the columns of a classifier's probabilities are.
        known: Categories that the model was fitted on, by column; these are not unseen, even if no row has them.
    """
    features: list[dict[str, Any]] = []
    for item, array in inputs:
        single = array.shape[1] == 1 and len(inputs) > 1
        for place in range(min(array.shape[1], FEATURES)):
            name = item.name if single else _name(columns, place, item.name)
            told = _described(array[:, place], (known or {}).get(name, []))
            features.append({"name": name, "input": item.name, "column": place, **told})
    answers: list[dict[str, Any]] = []
    for name, array in outputs:
        flat = array.reshape(array.shape[0], -1)
        for place in range(min(flat.shape[1], CLASSES)):
            told = _described(flat[:, place], [], whole_is_category=True)
            if classes is not None and flat.shape[1] == len(classes) > 1:
                told["class"] = str(classes[place])
            answers.append({"output": name, "column": place, **told})
    rows = next((int(array.shape[0]) for _, array in inputs), 0)
    return {"rows": rows, "features": features[:FEATURES], "outputs": answers}


def _name(columns: list[str], place: int, tensor: str) -> str:
    return columns[place] if place < len(columns) else f"{tensor}[{place}]"


def _described(values: Any, known: list[str], *, whole_is_category: bool = False) -> dict[str, Any]:
    if values.dtype.kind in "OUS" or (whole_is_category and values.dtype.kind in "iub"):
        plain = values.astype("int64") if values.dtype.kind == "b" else values
        return _categories([str(value) for value in plain.tolist()], known, is_text=values.dtype.kind in "OUS")
    return _numbers(values.astype("float64"))


def _categories(values: list[str], known: list[str], *, is_text: bool) -> dict[str, Any]:
    counts = Counter(values)
    missing = counts.pop(MISSING, 0) if is_text else 0
    for name in known:
        if name != MISSING:
            counts.setdefault(name, 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told: dict[str, Any] = {"categories": dict(ordered[:CATEGORIES]), "missing": missing}
    told["other"] = sum(count for _, count in ordered[CATEGORIES:])
    if len(ordered) > CATEGORIES:
        # Counted together, but not taken for unseen.
        told["known"] = [name for name, _ in ordered[CATEGORIES : CATEGORIES + KNOWN]]
    return told


def _numbers(values: Any) -> dict[str, Any]:
    missing = np.isnan(values)
    present = values[~missing]
    edges = _edges(np.sort(present[np.isfinite(present)]))
    # A bin holds what is at most its edge, as Prometheus' "le" has it; the last one what is above all edges.
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return {"edges": edges, "counts": counts.tolist(), "missing": int(missing.sum())}


def _edges(ordered: Any) -> list[float]:
    """Give tenths of the rows by rank, each an observed value; or every value, where there are few."""
    if not len(ordered):
        return []
    distinct = np.unique(ordered)
    if len(distinct) <= _PARTS + 1:
        return [float(value) for value in distinct]
    last = len(ordered) - 1
    return sorted({float(ordered[round(last * part / _PARTS)]) for part in range(_PARTS + 1)})
