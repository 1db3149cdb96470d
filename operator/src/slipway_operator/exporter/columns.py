"""Which columns a fitted model takes, and what kind of value each holds.

The fitted model is asked before the example rows: an encoder knows whether its
categories are strings, while ``"10001"`` in a CSV looks like a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .failure import Failure
from .foreign import np
from .inside import column_names, first_step, is_column_transformer, parts

MISSING = ""
"""What stands for a missing string on the wire (ONNX strings know no null)."""


@dataclass(frozen=True)
class Column:
    """One column that a caller sends."""

    name: str
    kind: str
    """``number``, ``integer``, ``boolean`` or ``string``."""
    marker: Any = math.nan
    """What the original model sees for a missing string: NaN, or None where it was fitted on None."""


@dataclass(frozen=True)
class Evidence:
    """What a fitted encoder says of a column."""

    kind: str
    marker: Any = math.nan


def feature_names(model: Any) -> list[str] | None:
    """Give the column names that the model was fitted on; None where it was fitted on a bare matrix."""
    for _, part in parts(model):
        names = getattr(part, "feature_names_in_", None)
        if names is not None:
            return [str(name) for name in names]
        if part is first_step(model):
            break
    return None


def takes_columns(model: Any) -> bool:
    """Tell whether callers send one tensor a column (True) or one matrix."""
    if feature_names(model) is None:
        return False
    return any(is_column_transformer(part) for _, part in parts(model))


def used_columns(model: Any) -> list[str]:
    """Give the columns that reach an answer, in the order in which the model was fitted."""
    names = feature_names(model) or []
    first = first_step(model)
    if not is_column_transformer(first):
        return names
    used: set[str] = set()
    for _, transformer, columns in first.transformers_:
        if not (isinstance(transformer, str) and transformer == "drop"):
            used.update(column_names(columns, names))
    return [name for name in names if name in used]


def evidence(model: Any) -> dict[str, Evidence]:
    """Ask every encoder behind a ColumnTransformer for the kind of its columns."""
    found: dict[str, Evidence] = {}
    for _, part in parts(model):
        if not is_column_transformer(part):
            continue
        names = [str(name) for name in getattr(part, "feature_names_in_", [])]
        if not names:
            continue
        for _, transformer, columns in part.transformers_:
            picked = column_names(columns, names)
            for name, said in _of_transformer(transformer, len(picked)):
                found.setdefault(picked[name], said)
    return found


def _of_transformer(transformer: Any, width: int) -> Iterator[tuple[int, Evidence]]:
    steps = [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
    marker: Any = math.nan
    for step in steps:
        if hasattr(step, "vocabulary_"):
            yield 0, Evidence("string")
            return
        if hasattr(step, "statistics_"):
            marker = None if getattr(step, "missing_values", math.nan) is None else marker
        categories = getattr(step, "categories_", None)
        if categories is not None and len(categories) == width:
            for number, known in enumerate(categories):
                yield number, _of_categories(known.tolist(), marker)
            return


def known_categories(model: Any) -> dict[str, list[str]]:
    """Give the strings that every encoder behind a ColumnTransformer was fitted on, by column."""
    found: dict[str, list[str]] = {}
    for _, part in parts(model):
        if not is_column_transformer(part):
            continue
        names = [str(name) for name in getattr(part, "feature_names_in_", [])]
        for _, transformer, columns in part.transformers_:
            picked = column_names(columns, names) if names else []
            steps = [step for _, step in transformer.steps] if hasattr(transformer, "steps") else [transformer]
            for step in steps:
                categories = getattr(step, "categories_", None)
                if categories is not None and len(categories) == len(picked):
                    for name, known in zip(picked, categories):  # noqa: B905 - Python 3.9
                        found.setdefault(name, [one for one in known.tolist() if isinstance(one, str)])
    return found


def _of_categories(known: list[Any], marker: Any) -> Evidence:
    if any(isinstance(value, str) for value in known):
        return Evidence("string", None if None in known else marker)
    if all(isinstance(value, (int, bool)) for value in known):
        return Evidence("integer")
    return Evidence("number")


def is_missing(value: Any) -> bool:
    """Tell None, NaN, NaT and ``pandas.NA`` from values."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN is the value that differs from itself
    except TypeError:
        return True  # pandas.NA has no truth


def kind_of(name: str, values: Any, said: Evidence | None) -> Column:
    """Decide on the kind of one column of a frame.

    Raises:
        Failure: ``ConversionUnsupported`` for dates, ``ExampleUnreadable`` for a mixture.
    """
    if said is not None and said.kind == "string":
        return Column(name, "string", said.marker)
    dtype = values.dtype
    code = getattr(dtype, "kind", "O")
    if code in "mM":
        message = (
            f"Column {name!r} holds dates. ONNX has none: make numbers of them (month, weekday, hour) "
            "before the pipeline, and fit it on those."
        )
        raise Failure("ConversionUnsupported", message)
    if code == "b":
        return Column(name, "boolean")
    if code in "iu":
        return Column(name, "integer" if said is not None and said.kind == "integer" else "number")
    if code == "f":
        return Column(name, "number")
    present = [value for value in values.tolist() if not is_missing(value)]
    if all(isinstance(value, str) for value in present):
        return Column(name, "string")
    if all(isinstance(value, (int, float, np.number)) for value in present):
        return Column(name, "number")
    kinds = sorted({type(value).__name__ for value in present})
    raise Failure("ExampleUnreadable", f"Column {name!r} of the example mixes {' and '.join(kinds)}. Use one kind.")
