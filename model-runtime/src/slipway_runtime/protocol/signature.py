"""A model's signature: what it takes, what it gives, and the names that people use for both.

``signature.json`` is written by the exporter; the design note in ``docs/design`` is its contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from slipway_runtime.errors import CannotServe
from slipway_runtime.protocol.datatypes import DATATYPES, Datatype
from slipway_runtime.protocol.tensors import Array


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    """-1 where any size goes; the first dimension counts rows."""
    tensor: str
    """Its name in the model's graph."""
    missing: str = ""
    """What a null string becomes before the model sees it."""
    is_plain: bool = field(init=False, repr=False, compare=False)
    """Whether any number of rows goes, and values need no look at each of them."""

    def __post_init__(self) -> None:
        plain = self.shape[:1] == (-1,) and -1 not in self.shape[1:] and not self.datatype.is_text
        object.__setattr__(self, "is_plain", plain)

    @property
    def is_column(self) -> bool:
        """Whether it holds one value a row."""
        return self.shape in ((-1,), (-1, 1))

    @property
    def is_batched(self) -> bool:
        """Whether rows of several requests fit into one run."""
        return self.shape[:1] == (-1,)

    def unpacked(self, packed: bytes) -> Array:
        """Look at bytes that hold whole rows as an array."""
        array: Array = np.frombuffer(packed, self.datatype.array).reshape(self.shape)
        return array


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    columns: tuple[str, ...]
    """Names of the feature columns, in the model's order; empty where it has none."""
    classes: tuple[Any, ...]
    task: str
    input_named: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)
    output_named: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_named", {spec.name: spec for spec in self.inputs})
        object.__setattr__(self, "output_named", {spec.name: spec for spec in self.outputs})

    @property
    def matrix(self) -> TensorSpec | None:
        """The one input that takes all columns side by side; None where each has its own."""
        only = self.inputs[0]
        if len(self.inputs) == 1 and len(only.shape) == 2 and only.name not in self.columns and self.columns:
            return only
        return None

    @property
    def takes_columns(self) -> bool:
        """Whether every input, or every part of the matrix, is one named column."""
        return self.matrix is not None or all(spec.is_column for spec in self.inputs)

    @property
    def column_specs(self) -> dict[str, TensorSpec]:
        """For each column name its input; for a matrix the matrix, every time."""
        matrix = self.matrix
        if matrix is not None:
            return dict.fromkeys(self.columns, matrix)
        return self.input_named

    @property
    def is_batched(self) -> bool:
        """Whether rows of several requests fit into one run."""
        return all(spec.is_batched for spec in (*self.inputs, *self.outputs))


def read_signature(raw: bytes) -> Signature:
    """Read ``signature.json``.

    Raises:
        CannotServe: If it is not as the contract says.
    """
    try:
        document = orjson.loads(raw)
        columns = tuple(document.get("columns") or ())
        signature = Signature(
            inputs=tuple(_spec(item) for item in document["inputs"]),
            outputs=tuple(_spec(item) for item in document["outputs"]),
            columns=columns,
            classes=tuple(document.get("classes") or ()),
            task=str(document.get("task") or ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CannotServe(f"signature.json is not a signature: {type(error).__name__} {error}") from None
    if not signature.inputs or not signature.outputs:
        raise CannotServe("signature.json names no input or no output")
    for specs in (signature.inputs, signature.outputs):
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise CannotServe(f"signature.json names a tensor twice: {', '.join(sorted(names))}")
    matrix = signature.matrix
    if matrix is not None and matrix.shape[1] not in (-1, len(columns)):
        raise CannotServe(f"signature.json has {len(columns)} columns, but input {matrix.name} takes {matrix.shape[1]}")
    return signature


def _spec(item: dict[str, Any]) -> TensorSpec:
    name = item["name"]
    if not isinstance(name, str) or not name:
        raise ValueError("a tensor has no name")
    shape = item["shape"]
    if not all(type(size) is int and size >= -1 for size in shape):
        raise ValueError(f"shape of {name} is {shape}")
    return TensorSpec(
        name=name,
        datatype=DATATYPES[item["datatype"]],
        shape=tuple(shape),
        tensor=str(item.get("tensor") or name),
        missing=str(item.get("missing") or ""),
    )
