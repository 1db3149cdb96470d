"""The plain door: rows as JSON objects or CSV in, answers as objects or CSV out.

``{"rows": [{"carrier": "UA", "distance": 719}]}`` gives
``{"predictions": [{"label": 0, "probabilities": {"0": 0.81, "1": 0.19}}], …}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.protocol.alignment import Given, suggestion, too_many
from slipway_runtime.protocol.requests import json_of
from slipway_runtime.protocol.signature import Signature
from slipway_runtime.protocol.tables import Columns, read_table, write_table
from slipway_runtime.protocol.tensors import Array, from_values

_ABSENT = object()


class RowReader:
    """Reads rows for one model."""

    def __init__(self, signature: Signature, examples: dict[str, Any], *, max_rows: int) -> None:
        """Prepare.

        Args:
            signature: What the model takes.
            examples: A known good value for each column, for messages.
            max_rows: How many are read.
        """
        self._signature = signature
        self._max_rows = max_rows
        self._specs = signature.column_specs if signature.takes_columns else {}
        self._refusal = ""
        if not self._specs:
            self._refusal = "this model takes tensors, not rows; use the infer endpoint"
        elif not all(spec.is_batched for spec in signature.outputs):
            self._refusal = "this model does not give an answer for each row; use the infer endpoint"
        self._examples = examples
        row = {name: examples.get(name) for name in self._specs}
        self._example = orjson.dumps({"rows": [row]}).decode()
        self._datatypes = {name: spec.datatype for name, spec in self._specs.items()}
        self._table = orjson.dumps(write_table(list(row), [[value] for value in row.values()]).decode()).decode()

    def read(self, body: bytes) -> Given:
        """Read a body into columns.

        Raises:
            InvalidRequest: Naming the row and the field, and what would be right.
            TooLarge: If there are more rows than the runtime takes at once.
        """
        if self._refusal:
            raise InvalidRequest(self._refusal)
        rows = json_of(body, self._example).get("rows")
        if not isinstance(rows, list) or not rows:
            raise InvalidRequest(f'"rows" must be a list of at least one object: {self._example}')
        if len(rows) > self._max_rows:
            raise too_many(len(rows), self._max_rows)
        for index, row in enumerate(rows):
            self._check(row, f"rows[{index}]")
        return self._given({name: [row[name] for row in rows] for name in self._specs})

    def read_table(self, body: bytes) -> Given:
        """Read a body of CSV into columns.

        Raises:
            InvalidRequest: Naming the row and the column, and what would be right.
            TooLarge: If there are more rows than the runtime takes at once.
        """
        if self._refusal:
            raise InvalidRequest(self._refusal)
        return self._given(read_table(body, self._datatypes, self._table, max_rows=self._max_rows))

    def _given(self, columns: Columns) -> Given:
        given: Given = {}
        for name, spec in self._specs.items():
            values = columns[name]
            try:
                given[name] = (spec.datatype.name, from_values(values, spec.datatype, name))
            except InvalidRequest:
                raise self._wrong_value(name, values) from None
        if (matrix := self._signature.matrix) is not None and len(self._specs) == 1:
            # One column: its name may not be taken for the matrix itself.
            ((name, value),) = given.items()
            return {matrix.name: (value[0], value[1].reshape(-1, 1))}
        return given

    def _check(self, row: object, field: str) -> None:
        if not isinstance(row, dict):
            raise InvalidRequest(f"{field} must be an object: {self._example}")
        if row.keys() == self._specs.keys():
            return
        for name in row:
            if name not in self._specs:
                raise InvalidRequest(
                    f'{field} has "{name}", which the model does not take{suggestion(name, self._specs)}'
                )
        absent = next(name for name in self._specs if name not in row)
        raise InvalidRequest(
            f'{field} has no "{absent}"; send a value{self._such_as(absent)}, or null if it is missing'
        )

    def _wrong_value(self, name: str, values: list[object]) -> InvalidRequest:
        spec = self._specs[name]
        for index, value in enumerate(values):
            try:
                from_values([value], spec.datatype, "")
            except InvalidRequest:
                shown = orjson.dumps(value).decode()
                shown = shown if len(shown) <= 60 else shown[:60] + "…"
                return InvalidRequest(
                    f'rows[{index}]."{name}" is {shown}; it takes {spec.datatype.takes}{self._such_as(name)}'
                )
        return InvalidRequest(f'"{name}" takes {spec.datatype.takes}')

    def _such_as(self, name: str) -> str:
        value = self._examples.get(name, _ABSENT)
        return "" if value is _ABSENT else f" such as {orjson.dumps(value).decode()}"


class RowWriter:
    """Writes the answers of one model as objects."""

    def __init__(self, signature: Signature, name: str, version: str) -> None:
        self._signature = signature
        self._names = {"model_name": name, "model_version": version}
        self._classes = [
            value if isinstance(value, str) else orjson.dumps(value).decode() for value in signature.classes
        ]

    def write_table(self, arrays: Sequence[Array]) -> bytes:
        """Write an answer as CSV, a column for each output and, of a classifier's probabilities, for each class."""
        names: list[str] = []
        columns: list[list[Any]] = []
        for spec, array in zip(self._signature.outputs, arrays, strict=True):
            values = array.reshape(array.shape[0], -1)
            width = values.shape[1]
            parts = self._classes if len(self._classes) == width > 1 else [str(place) for place in range(width)]
            names += [spec.name] if width == 1 else [f"{spec.name}.{part}" for part in parts]
            columns += [_plain(values[:, place]) for place in range(width)]
        return write_table(names, columns)

    def write(self, request_id: str, arrays: Sequence[Array]) -> bytes:
        """Write an answer; ``arrays`` are all outputs, in the signature's order."""
        columns: list[tuple[str, list[Any]]] = []
        for spec, array in zip(self._signature.outputs, arrays, strict=True):
            values = array.reshape(array.shape[0], -1) if array.ndim > 1 else array
            if array.ndim > 1 and len(self._classes) == values.shape[1] > 1:
                columns.append((spec.name, [dict(zip(self._classes, row, strict=True)) for row in _plain(values)]))
            elif array.ndim > 1 and values.shape[1] == 1:
                columns.append((spec.name, _plain(values[:, 0])))
            else:
                columns.append((spec.name, _plain(values)))
        names = [name for name, _ in columns]
        answers = [dict(zip(names, row, strict=True)) for row in zip(*(values for _, values in columns), strict=True)]
        return orjson.dumps({**self._names, "id": request_id, "predictions": answers})


def _plain(array: Array) -> list[Any]:
    """Give Python values that print as short as their own precision: 0.1, not 0.10000000149011612."""
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        values: list[Any] = orjson.loads(orjson.dumps(array.copy(), option=orjson.OPT_SERIALIZE_NUMPY))
        return values
    plain: list[Any] = array.tolist()
    return plain
