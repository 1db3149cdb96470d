"""Rows that look for a difference where one hides: around tree thresholds, missing and unseen strings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .answers import Original
from .columns import MISSING
from .foreign import np
from .inside import column_names, first_step, is_column_transformer, parts
from .prepare import floor32
from .rows import FrameRows, MatrixRows, Rows

MOST = 2000
"""Rows around thresholds, in all."""

UNSEEN = "⍰ never seen"


def thresholds(model: Any, rows: Rows) -> list[tuple[str, float]]:
    """Give (column, threshold) of every tree split on a column that reaches the tree as it was sent, sorted."""
    direct = _direct_columns(model, rows)
    found: set[tuple[str, float]] = set()
    for _, part in parts(model):
        width = getattr(part, "n_features_in_", None)
        if width != len(direct):
            continue
        for feature, threshold in _splits(part):
            column = direct[feature]
            if column is not None and np.isfinite(threshold):
                found.add((column, float(threshold)))
    return sorted(found)


def _splits(part: Any) -> Iterator[tuple[int, float]]:
    tree = getattr(part, "tree_", None)
    if tree is not None and hasattr(tree, "children_left"):
        inner = tree.children_left != -1
        yield from zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist())  # noqa: B905
    for iteration in getattr(part, "_predictors", ()):
        for predictor in iteration:
            nodes = predictor.nodes
            field = "num_threshold" if "num_threshold" in nodes.dtype.names else "threshold"
            inner = nodes["is_leaf"] == 0
            yield from zip(nodes["feature_idx"][inner].tolist(), nodes[field][inner].tolist())  # noqa: B905


def _direct_columns(model: Any, rows: Rows) -> list[str | None]:
    """Say for each feature of the trees which column of the caller it is, None where it was computed."""
    if isinstance(rows, MatrixRows):
        first = first_step(model)
        unchanged = first is model or not hasattr(first, "transform") or type(first).__name__ == "SimpleImputer"
        names: list[str | None] = list(rows.numeric())
        return names if unchanged else []
    first = first_step(model)
    if not is_column_transformer(first):
        return []
    numeric = set(rows.numeric())
    known = [str(name) for name in first.feature_names_in_]
    slots: dict[int, str] = {}
    for name, transformer, columns in first.transformers_:
        places = first.output_indices_.get(name, slice(0, 0))
        picked = column_names(columns, known)
        if places.stop - places.start == len(picked) and _is_identity(transformer):
            slots.update(zip(range(places.start, places.stop), picked))  # noqa: B905
    width = max((part.stop for part in first.output_indices_.values()), default=0)
    return [slots.get(place) if slots.get(place) in numeric else None for place in range(width)]


def _is_identity(transformer: Any) -> bool:
    steps = [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
    return all(
        isinstance(step, str)
        or type(step).__name__ == "SimpleImputer"
        or (type(step).__name__ == "FunctionTransformer" and getattr(step, "func", 0) is None)
        for step in steps
    )


def around(rows: Rows, splits: list[tuple[str, float]], *, number: str) -> Rows | None:
    """Give rows with values of the wire's type at and just above thresholds; None where there are none."""
    if not splits:
        return None
    chosen = splits
    if 2 * len(splits) > MOST:
        places = np.linspace(0, len(splits) - 1, MOST // 2).astype(int)
        chosen = [splits[place] for place in places.tolist()]
    exact = np.array([threshold for _, threshold in chosen], dtype="float64")
    if number == "float32":
        below = floor32(exact)
        above = np.nextafter(below.astype("float32"), np.float32(np.inf)).astype("float64")
    else:
        below, above = exact, np.nextafter(exact, np.inf)
    values = [
        (column, value)
        for (column, _), low, high in zip(chosen, below.tolist(), above.tolist())  # noqa: B905 - Python 3.9
        for value in (low, high)
    ]
    return _with_values(rows, values)


def at(rows: Rows, splits: list[tuple[str, float]]) -> Rows | None:
    """Give rows with the float64 thresholds themselves, as data has them where thresholds are values of the data."""
    if not splits:
        return None
    places = np.linspace(0, len(splits) - 1, min(len(splits), MOST // 2)).astype(int)
    return _with_values(rows, [splits[place] for place in places.tolist()])


def _with_values(rows: Rows, values: list[tuple[str, float]]) -> Rows:
    base = rows.take(np.arange(len(values)) % len(rows))
    for column in sorted({name for name, _ in values}):
        mask = np.array([name == column for name, _ in values])
        wanted = np.array([value for _, value in values], dtype="float64")
        kept = base.array[:, int(column)] if isinstance(base, MatrixRows) else base.frame[column].to_numpy("float64")  # type: ignore[attr-defined]
        base = base.replaced(column, np.where(mask, wanted, kept))
    return base


def strings(rows: Rows, original: Original) -> Rows | None:
    """Give rows with a missing and an unseen string in each string column, as far as the original answers them."""
    if not isinstance(rows, FrameRows):
        return None
    made: list[FrameRows] = []
    one = rows.take(np.arange(1))
    for column in rows.described:
        if column.kind != "string":
            continue
        for value in (MISSING, UNSEEN):
            marker = column.marker if value == MISSING else value
            values = np.empty(1, dtype=object)
            values[0] = marker
            probe = one.replaced(column.name, values)
            if isinstance(probe, FrameRows) and original.accepts(probe):
                made.append(probe)
    if not made:
        return None
    from .foreign import pd  # noqa: PLC0415 - only frames need it

    return FrameRows(pd.concat([probe.frame for probe in made], ignore_index=True), rows.described)
