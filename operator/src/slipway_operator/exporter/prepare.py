"""Making a fitted model convertible without changing its answers: a copy is put right before conversion.

Two things differ between scikit-learn and ONNX and can be said in the fitted
model itself: missing strings (NaN or None there, the empty string here), and the
thresholds of HistGradientBoosting (compared in float64 there, in float32 here).
"""

from __future__ import annotations

import copy
from typing import Any

from .columns import MISSING, is_missing
from .failure import Failure
from .foreign import np
from .inside import parts


def floor32(thresholds: Any) -> Any:
    """Give the largest float32 not above each float64.

    For a float32 ``x``, ``x <= t`` is the same as ``x <= floor32(t)``; with the nearest
    float32, which may lie above ``t``, it is not.
    """
    nearest = thresholds.astype("float32")
    above = nearest.astype("float64") > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype("float64")


def has_double_thresholds(model: Any) -> bool:
    """Tell whether some part compares features as float64 (trees other than these cast them to float32 first)."""
    return any(hasattr(part, "_predictors") for _, part in parts(model))


def prepared(model: Any, *, number: str) -> Any:
    """Give a copy that converts to the same answers on a wire of float32 or float64.

    Raises:
        Failure: ``ConversionUnsupported`` for what no copy can put right.
    """
    model = copy.deepcopy(model)
    for path, part in parts(model):
        _refuse(path, part)
        if hasattr(part, "_predictors") and number == "float32":
            _floor_thresholds(part)
        if hasattr(part, "tree_"):
            # These trees cast features to float32 and compare with a float64 threshold, on either wire.
            part.tree_.threshold[:] = floor32(part.tree_.threshold)
        categories = getattr(part, "categories_", None)
        if isinstance(categories, list):
            part.categories_ = [_with_sentinel(path, known) for known in categories]
        statistics = getattr(part, "statistics_", None)
        if statistics is not None and getattr(statistics, "dtype", None) is not None and statistics.dtype.kind in "OU":
            _use_sentinel(path, part)
    return model


def _floor_thresholds(boosting: Any) -> None:
    for iteration in boosting._predictors:  # noqa: SLF001 - scikit-learn has no public name for its trees
        for predictor in iteration:
            nodes = predictor.nodes
            field = "num_threshold" if "num_threshold" in nodes.dtype.names else "threshold"
            nodes[field] = floor32(nodes[field])


def _with_sentinel(path: str, known: Any) -> Any:
    values = known.tolist()
    if not any(isinstance(value, str) for value in values):
        return known
    absent = [place for place, value in enumerate(values) if is_missing(value)]
    if not absent:
        return known
    if len(absent) > 1 or MISSING in values:
        message = (
            f"{_named(path)} knows two kinds of missing string (an empty one and None or NaN). "
            "ONNX strings have one: replace the empty string before training."
        )
        raise Failure("ConversionUnsupported", message)
    values[absent[0]] = MISSING
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _use_sentinel(path: str, imputer: Any) -> None:
    if isinstance(imputer.missing_values, str):
        return
    if any(is_missing(value) for value in imputer.statistics_.tolist()):
        message = f"{_named(path)} has nothing to put for a missing string. Set strategy='constant' and fill_value."
        raise Failure("ConversionUnsupported", message)
    imputer.missing_values = MISSING


def _refuse(path: str, part: Any) -> None:
    if getattr(part, "add_indicator", False):
        message = f"{_named(path)}: SimpleImputer(add_indicator=True) has no ONNX counterpart. Leave the indicator out."
        raise Failure("ConversionUnsupported", message)
    if getattr(part, "is_categorical_", None) is not None and hasattr(part, "_predictors"):
        message = (
            f"{_named(path) if path else type(part).__name__} splits on sets of categories (categorical_features), "
            "which ONNX trees cannot. Put an OrdinalEncoder or OneHotEncoder before it and leave "
            "categorical_features=None."
        )
        raise Failure("ConversionUnsupported", message)


def _named(path: str) -> str:
    return f"Step {path!r}" if path else "The model"
