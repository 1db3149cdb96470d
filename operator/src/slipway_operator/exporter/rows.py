"""Rows of features in the two shapes that they have: as the original model takes them, and as ONNX does.

Two layouts: a frame with one tensor a column, and a matrix that is one tensor.
Numbers travel as float32 (or float64, see ``wires``), strings as UTF-8, and a
missing string as the empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .columns import MISSING, Column, is_missing
from .foreign import np, pd


@dataclass(frozen=True)
class Input:
    """One tensor that a caller sends."""

    name: str
    datatype: str
    shape: tuple[int, int]
    kind: str


class Rows(Protocol):
    """What both layouts can do. ``number`` is the NumPy name of the wire's float type."""

    def __len__(self) -> int:
        """Count the rows."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the model's order; empty where it has none."""

    def original(self) -> Any:
        """Give the rows as the original model takes them."""

    def rounded(self, number: str) -> Rows:
        """Give the rows with their numbers as they arrive over the wire."""

    def inputs(self, number: str) -> list[Input]:
        """Describe the tensors."""

    def feed(self, number: str) -> dict[str, Any]:
        """Give the tensors."""

    def take(self, places: Any) -> Rows:
        """Give the rows at some places, repeated where places are."""

    def numeric(self) -> list[str]:
        """Name the columns that hold numbers, by position in a matrix."""

    def replaced(self, column: str, values: Any) -> Rows:
        """Give the rows with other values in one column."""


WIRE = {"float32": "FP32", "float64": "FP64"}


@dataclass(frozen=True)
class FrameRows:
    """Rows of a data frame, one tensor a column."""

    frame: Any
    described: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """As `Rows`."""
        return [column.name for column in self.described]

    def original(self) -> Any:
        """As `Rows`."""
        frame = self.frame.copy()
        for column in self.described:
            if column.kind == "string":
                values = [column.marker if is_missing(value) else value for value in frame[column.name].tolist()]
                frame[column.name] = pd.Series(values, index=frame.index, dtype=object)
        return frame

    def rounded(self, number: str) -> Rows:
        """As `Rows`."""
        frame = self.frame.copy()
        for column in self.described:
            if column.kind == "number":
                exact = _floats(frame[column.name])
                frame[column.name] = exact.astype(number).astype("float64")
        return FrameRows(frame, self.described)

    def inputs(self, number: str) -> list[Input]:
        """As `Rows`."""
        datatypes = {"number": WIRE[number], "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}
        return [Input(column.name, datatypes[column.kind], (-1, 1), column.kind) for column in self.described]

    def feed(self, number: str) -> dict[str, Any]:
        """As `Rows`."""
        return {column.name: self._tensor(column, number) for column in self.described}

    def _tensor(self, column: Column, number: str) -> Any:
        values = self.frame[column.name]
        if column.kind == "string":
            return _strings(values.tolist()).reshape(-1, 1)
        if column.kind == "number":
            return _floats(values).astype(number).reshape(-1, 1)
        return values.to_numpy(dtype={"integer": "int64", "boolean": "bool"}[column.kind]).reshape(-1, 1)

    def take(self, places: Any) -> Rows:
        """As `Rows`."""
        return FrameRows(self.frame.iloc[places].reset_index(drop=True), self.described)

    def numeric(self) -> list[str]:
        """As `Rows`."""
        return [column.name for column in self.described if column.kind == "number"]

    def replaced(self, column: str, values: Any) -> Rows:
        """As `Rows`."""
        frame = self.frame.copy()
        frame[column] = pd.Series(values, index=frame.index, dtype=getattr(values, "dtype", object))
        return FrameRows(frame, self.described)


@dataclass(frozen=True)
class MatrixRows:
    """Rows of one matrix: of float64, or of strings (dtype object)."""

    array: Any
    names: tuple[str, ...] | None
    framed: bool
    """True: the original was fitted on a frame with these names, and wants one."""

    def __len__(self) -> int:
        return len(self.array)

    @property
    def columns(self) -> list[str]:
        """As `Rows`."""
        return list(self.names or ())

    @property
    def tensor(self) -> str:
        """Give the input's name, which no column may have."""
        return "input" if "input" not in (self.names or ()) else "features"

    def original(self) -> Any:
        """As `Rows`."""
        if self.framed:
            return pd.DataFrame(self.array, columns=list(self.names or ()))
        return self.array

    @property
    def _is_text(self) -> bool:
        return bool(self.array.dtype == object)

    def rounded(self, number: str) -> Rows:
        """As `Rows`."""
        if self._is_text:
            return self
        return MatrixRows(self.array.astype(number).astype("float64"), self.names, self.framed)

    def inputs(self, number: str) -> list[Input]:
        """As `Rows`."""
        datatype, kind = ("BYTES", "string") if self._is_text else (WIRE[number], "number")
        return [Input(self.tensor, datatype, (-1, int(self.array.shape[1])), kind)]

    def feed(self, number: str) -> dict[str, Any]:
        """As `Rows`."""
        if self._is_text:
            return {self.tensor: _strings(self.array.ravel().tolist()).reshape(self.array.shape)}
        return {self.tensor: self.array.astype(number)}

    def take(self, places: Any) -> Rows:
        """As `Rows`."""
        return MatrixRows(self.array[places], self.names, self.framed)

    def numeric(self) -> list[str]:
        """As `Rows`."""
        return [] if self._is_text else [str(place) for place in range(self.array.shape[1])]

    def replaced(self, column: str, values: Any) -> Rows:
        """As `Rows`."""
        array = self.array.copy()
        array[:, int(column)] = values
        return MatrixRows(array, self.names, self.framed)


def _floats(values: Any) -> Any:
    if getattr(values.dtype, "kind", "O") in "iufb":
        return values.to_numpy(dtype="float64", na_value=np.nan) if hasattr(values, "to_numpy") else values
    return np.array([np.nan if is_missing(value) else float(value) for value in values.tolist()], dtype="float64")


def _strings(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = [MISSING if is_missing(value) else str(value) for value in values]
    return array
