"""The reference of a model: what the rows looked like that its answers were recorded for.

``reference.json`` is written by the exporter; the design note in ``docs/design`` is its contract.
A model without one, or with one that cannot be read, is served all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from slipway_runtime.protocol.signature import Signature, TensorSpec

_EDGES = 64
_CATEGORIES = 1000


@dataclass(frozen=True, slots=True)
class Described:
    """One column of an input or output, and how the reference's rows fall into its bins."""

    name: str
    """The column's name; of an output its own."""
    spec: TensorSpec
    column: int
    chance_of: str
    """The class whose probability it is; empty for everything else."""
    edges: tuple[float, ...]
    """Numbers: bin i holds what is at most edge i, the last one what is above all of them."""
    categories: tuple[str, ...]
    """Strings and labels, instead of edges."""
    known: frozenset[str]
    """Categories that are counted together."""
    counts: tuple[int, ...]
    """For each bin, or each category and then the others together."""

    @property
    def is_number(self) -> bool:
        """Whether it has edges."""
        return not self.categories


@dataclass(frozen=True, slots=True)
class Reference:
    """All columns that are described."""

    features: tuple[Described, ...]
    outputs: tuple[Described, ...]


def read_reference(raw: bytes, signature: Signature, *, most: int) -> Reference:
    """Read ``reference.json``.

    Args:
        raw: The file.
        signature: What its columns belong to.
        most: How many features are taken.

    Raises:
        ValueError: If it is not as the contract says, or of another model.
    """
    try:
        document = orjson.loads(raw)
        features = tuple(itertools.islice(_features(document["features"], signature), most))
        return Reference(features, tuple(_outputs(document["outputs"], signature)))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"reference.json is not a reference: {type(error).__name__} {error}") from None


def _features(items: list[dict[str, Any]], signature: Signature) -> Iterator[Described]:
    for item in items:
        yield _described(item, str(item["name"]), signature.input_named[item["input"]])


def _outputs(items: list[dict[str, Any]], signature: Signature) -> Iterator[Described]:
    for item in items:
        yield _described(item, str(item["output"]), signature.output_named[item["output"]])


def _described(item: dict[str, Any], name: str, spec: TensorSpec) -> Described:
    categories: dict[str, int] = item.get("categories") or {}
    # In the precision of the values that are compared with them.
    edges = tuple(np.array(item.get("edges") or (), spec.datatype.array if spec.datatype.is_float else "f8").tolist())
    column = int(item["column"])
    width = spec.shape[1] if len(spec.shape) > 1 else 1
    if len(spec.shape) > 2 or column < 0 or (width != -1 and column >= width):
        raise ValueError(f"reference.json describes column {column} of {spec.name}, which has none")
    if len(edges) > _EDGES or len(categories) > _CATEGORIES or list(edges) != sorted(set(edges)):
        raise ValueError(f"reference.json has edges or categories of {name} that cannot be")
    if not categories and spec.datatype.is_text:
        categories = {"": 0}
    counts = (*categories.values(), item.get("other", 0)) if categories else item["counts"]
    if not categories and len(counts) != len(edges) + 1:
        raise ValueError(f"reference.json has {len(counts)} counts of {name} for {len(edges)} edges")
    return Described(
        name=name,
        spec=spec,
        column=column,
        chance_of=str(item.get("class") or ""),
        edges=edges,
        categories=tuple(str(category) for category in categories),
        known=frozenset(map(str, item.get("known") or ())),
        counts=tuple(int(count) for count in counts),
    )
