"""From what a caller sent to what a model takes.

A caller may send one tensor for each column, or all columns as one matrix, whichever of the
two the model was exported with; numbers in any datatype that holds them exactly enough; null
where a value is missing. The result has exactly the model's names, datatypes and shapes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np

from slipway_runtime.errors import InvalidRequest, TooLarge
from slipway_runtime.protocol.datatypes import DATATYPES, Datatype
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import NULL, Array

Given = dict[str, tuple[str, Array]]
"""Datatype name and array by input name."""

Feeds = dict[str, Array]
"""Array by name in the model's graph."""


class Aligner:
    """Fits requests to one signature."""

    def __init__(self, signature: Signature, *, max_rows: int) -> None:
        self._signature = signature
        self._max_rows = max_rows
        self._only = signature.inputs[0] if len(signature.inputs) == 1 else None
        self._matrix = signature.matrix
        self._columns = signature.column_specs if signature.takes_columns else {}

    def align(self, given: Given) -> tuple[Feeds, int]:
        """Give the model's arrays and their number of rows.

        Raises:
            InvalidRequest: If an input is missing, unknown, or not what the model takes.
            TooLarge: If there are more rows than the runtime takes at once.
        """
        signature, only = self._signature, self._only
        if only is not None and len(given) == 1 and (value := given.get(only.name)) is not None:
            array = _fitted(only, *value)
            return {only.tensor: array}, self._allowed(array.shape[0])
        if given.keys() == signature.input_named.keys():
            feeds = {spec.tensor: _fitted(spec, *given[spec.name]) for spec in signature.inputs}
        elif self._matrix is not None and not signature.input_named.keys() & given.keys():
            feeds = {self._matrix.tensor: self._stacked(self._matrix, given)}
        elif self._matrix is None and len(given) == 1 and len(self._columns) > 1:
            feeds = self._split(given)
        else:
            raise self._names_differ(given.keys(), signature.input_named)
        return feeds, self._rows(feeds)

    def _rows(self, feeds: Feeds) -> int:
        counts = {array.shape[0] for array in feeds.values()}
        if len(counts) > 1:
            raise InvalidRequest(f"all inputs must have the same number of rows; there are {sorted(counts)}")
        return self._allowed(counts.pop())

    def _allowed(self, rows: int) -> int:
        if rows == 0:
            raise InvalidRequest("the inputs have no rows; send at least one")
        if rows > self._max_rows:
            raise too_many(rows, self._max_rows)
        return rows

    def _stacked(self, matrix: TensorSpec, given: Given) -> Array:
        """Put columns that came by name side by side."""
        if given.keys() != self._columns.keys():
            raise self._names_differ(given.keys(), self._columns)
        columns = [_flat_column(name, *given[name]) for name in self._signature.columns]
        if len({column.shape[0] for _, column in columns}) > 1:
            raise InvalidRequest("all inputs must have the same number of rows")
        parts = [
            _converted(name, matrix, datatype, column)
            for name, (datatype, column) in zip(self._signature.columns, columns, strict=True)
        ]
        return np.stack(parts, axis=1)

    def _split(self, given: Given) -> Feeds:
        """Take a matrix apart for a model with an input for each column."""
        ((name, (datatype, array)),) = given.items()
        count = len(self._signature.inputs)
        if name in self._columns or array.ndim != 2 or array.shape[1] == 1:
            raise self._names_differ(given.keys(), self._columns)
        if array.shape[1] != count:
            raise InvalidRequest(
                f'inputs "{name}" has {array.shape[1]} columns; the model takes {count}: {_listed(self._columns)}'
            )
        return {
            spec.tensor: _fitted(spec, datatype, array[:, index : index + 1])
            for index, spec in enumerate(self._signature.inputs)
        }

    def _names_differ(self, given: Iterable[str], expected: Iterable[str]) -> InvalidRequest:
        names, wanted = dict.fromkeys(given), dict.fromkeys(expected)
        for name in names:
            if name not in wanted:
                return InvalidRequest(f'there is no input "{name}"{suggestion(name, wanted)}')
        absent = [name for name in wanted if name not in names]
        return InvalidRequest(f"inputs are missing: {_listed(absent)}")


def too_many(rows: int, most: int) -> TooLarge:
    """Refuse more rows than the runtime takes at once."""
    return TooLarge(f"there are {rows} rows; send at most {most} in one request")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which known name a wrong one was probably meant to be, or what there is."""
    names = list(known)
    close = difflib.get_close_matches(name[:100], names, n=1) if len(names) <= 1000 else []
    return f'; did you mean "{close[0]}"?' if close else f"; the model has {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return ", ".join(quoted[:20]) + (f" and {len(quoted) - 20} more" if len(quoted) > 20 else "")


def _flat_column(name: str, datatype: str, array: Array) -> tuple[str, Array]:
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        return datatype, array.reshape(-1)
    raise InvalidRequest(f'input "{name}" has shape {list(array.shape)}; a column has [n] or [n, 1]')


def _fitted(spec: TensorSpec, datatype: str, array: Array) -> Array:
    """Check and adapt shape and datatype of one input."""
    shape = spec.shape
    if array.shape[1:] == shape[1:] and datatype == spec.datatype.name and spec.is_plain:
        return array  # what nearly every request sends
    if len(array.shape) != len(shape):
        if spec.is_column and array.ndim in (1, 2):
            _, array = _flat_column(spec.name, datatype, array)
            array = array.reshape(-1, *(1,) * (len(shape) - 1))
        else:
            raise _wrong_shape(spec, array)
    for size, expected in zip(array.shape, shape, strict=True):
        if expected not in (size, -1):
            raise _wrong_shape(spec, array)
    if datatype == spec.datatype.name and not spec.datatype.is_text:
        return array
    return _converted(spec.name, spec, datatype, array)


def _wrong_shape(spec: TensorSpec, array: Array) -> InvalidRequest:
    expected = "[" + ", ".join("n" if size == -1 else str(size) for size in spec.shape) + "]"
    return InvalidRequest(f'input "{spec.name}" has shape {list(array.shape)}; the model takes {expected}')


def _converted(name: str, spec: TensorSpec, given: str, array: Array) -> Array:
    """Adapt the datatype of one input, without losing more than the model's own precision does."""
    source, target = DATATYPES[given], spec.datatype
    if source.is_text != target.is_text:
        kind = "strings (BYTES)" if target.is_text else f"numbers ({target.name})"
        raise InvalidRequest(f'input "{name}" is {given}; the model takes {kind} there')
    if target.is_text:
        return _without_null(array, spec.missing)
    if source is target:
        return array
    if target.is_float:
        return _as_float(name, target, array)
    return _as_whole(name, target, array)


def _without_null(array: Array, missing: str) -> Array:
    flat = array.ravel().tolist()
    if NULL not in flat:
        return array
    filled = np.empty(len(flat), dtype=object)
    filled[:] = [missing if value is NULL else value for value in flat]
    return filled.reshape(array.shape)


def _as_float(name: str, target: Datatype, array: Array) -> Array:
    with np.errstate(over="ignore"):
        result = array.astype(target.array)
    # No whole number is too large for the others.
    narrow = array.dtype.kind == "f" or target.array.itemsize == 2
    if narrow and not np.array_equal(np.isinf(result), np.isinf(array)):
        raise InvalidRequest(f'input "{name}" has a number that is too large; {target.name} takes {target.takes}')
    return result


def _as_whole(name: str, target: Datatype, array: Array) -> Array:
    """Booleans and integers: only values that stay what they are."""
    takes = target.takes
    if array.dtype.kind == "f":
        if np.isnan(array).any():
            raise InvalidRequest(f'input "{name}" has a missing value; the model takes {takes} there')
        if not (np.isfinite(array).all() and (array == np.floor(array)).all()):
            raise InvalidRequest(f'input "{name}" has a number with a fraction; the model takes {takes} there')
    if target.array.kind == "b":
        lowest, highest = 0, 1
    else:
        limits = np.iinfo(str(target.array))
        lowest, highest = limits.min, limits.max
    # Compared as Python numbers: no cast of the limits can wrap around.
    if array.size and not (lowest <= array.min().item() and array.max().item() <= highest):
        raise InvalidRequest(f'input "{name}" has a value that does not fit; the model takes {takes} there')
    return array.astype(target.array)
