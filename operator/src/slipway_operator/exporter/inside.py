"""Looking into a fitted estimator: its parts, by the path on which a person finds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parts(estimator: Any, path: str = "", _seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield an estimator and every fitted estimator inside it, with its path (``preprocess → numbers``)."""
    seen = set() if _seen is None else _seen
    if id(estimator) in seen:
        return
    seen.add(id(estimator))
    yield path, estimator
    for name, child in _children(estimator):
        yield from parts(child, f"{path} → {name}" if path else name, seen)


def _children(estimator: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(estimator, "get_params"):
        return
    for attribute in ("steps", "transformers_", "transformer_list", "transformers"):
        listed = getattr(estimator, attribute, None)
        if isinstance(listed, list):
            for item in listed:
                if isinstance(item, tuple) and len(item) >= 2 and hasattr(item[1], "get_params"):
                    yield str(item[0]), item[1]
            return
    for attribute, value in sorted(vars(estimator).items()):
        if attribute.endswith("_") or attribute.startswith("_"):
            yield from _found(attribute.rstrip("_"), value)


def _found(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(value, "get_params") and not isinstance(value, type):
        yield name, value
    elif isinstance(value, (list, tuple)) and len(value) <= 10_000:
        for number, item in enumerate(value):
            yield from _found(f"{name}[{number}]", item)
    elif type(value).__name__ == "ndarray" and value.dtype == object:
        for number, item in enumerate(value.ravel().tolist()):
            yield from _found(f"{name}[{number}]", item)
    elif type(value).__name__ == "_CalibratedClassifier":
        yield from _found(name, vars(value).get("estimator"))


def first_step(model: Any) -> Any:
    """Give the estimator that sees the caller's columns first."""
    while hasattr(model, "steps"):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        if not steps:
            return model
        model = steps[0]
    for attribute in ("best_estimator_", "estimator_"):
        inner = getattr(model, attribute, None)
        if inner is not None and hasattr(inner, "steps"):
            return first_step(inner)
    return model


def last_step(model: Any) -> Any:
    """Give the estimator that makes the answer."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def is_column_transformer(estimator: Any) -> bool:
    """Tell whether an estimator picks columns."""
    return type(estimator).__name__ == "ColumnTransformer" and hasattr(estimator, "transformers_")


def column_names(columns: Any, names: list[str]) -> list[str]:
    """Give the names of the columns that one part of a ColumnTransformer takes."""
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = names.index(columns.start) if columns.start is not None else 0
            stop = names.index(columns.stop) + 1 if columns.stop is not None else len(names)
            return names[start : stop : columns.step]
        return names[columns]
    if isinstance(columns, int):
        return [names[columns]]
    listed = list(columns)
    if listed and all(isinstance(item, bool) or type(item).__name__ in {"bool", "bool_"} for item in listed):
        return [name for name, taken in zip(names, listed) if taken]  # noqa: B905 - Python 3.9
    return [item if isinstance(item, str) else names[int(item)] for item in listed]
