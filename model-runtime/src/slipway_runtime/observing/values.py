"""Counting the values that go through a model into the bins of its reference.

Counting costs numpy about as much for one row as for hundreds. So rows are kept until there are
some hundreds of them, and counted together; and all of this may take a hundredth of the
processor's time. Rows beyond that are not looked at: below some ten thousand rows a second all
are, above it a sample is, which of them depending on nothing but the clock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from slipway_runtime.observing.reference import Described, Reference
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.signature import Signature
from slipway_runtime.protocol.tensors import Array

_ROWS = 512
_SHARE = 0.01


class ValueCounts:
    """Counts for one model. Rows come from any thread; the rest belongs to the loop's."""

    def __init__(self, reference: Reference, signature: Signature) -> None:
        self.features = _Columns(reference.features)
        self.outputs = _Columns(reference.outputs)
        self.rows = 0
        """Rows that were looked at."""
        self._lock = threading.Lock()
        self._inputs = sorted({one.spec.tensor for one in reference.features})
        names = [spec.name for spec in signature.outputs]
        self._answers = sorted({names.index(one.spec.name) for one in reference.outputs})
        self._answer_tensors = [signature.outputs[place].tensor for place in self._answers]
        self._kept: list[tuple[list[Array], list[Array]]] = []
        self._kept_rows = 0
        self._allowance = 0.0
        self._ticked = perf_counter()
        self.tick()

    def take(self, feeds: Feeds, outputs: Sequence[Array], rows: int) -> None:
        """Keep the rows of one run, or leave them out; never wait."""
        if self._allowance <= 0 or not self._lock.acquire(blocking=False):
            return
        try:
            arrays = [feeds[name] for name in self._inputs]
            answers = [outputs[place] for place in self._answers]
            if rows > 64:
                # Copied, so that a few rows do not keep the whole body of a request.
                step = -(-rows // _ROWS)
                arrays, answers = [one[::step].copy() for one in arrays], [one[::step].copy() for one in answers]
                rows = -(-rows // step)
            self._kept.append((arrays, answers))
            self._kept_rows += rows
            if self._kept_rows >= _ROWS:
                self._count()
        finally:
            self._lock.release()

    def tick(self) -> None:
        """Count what is kept, and allow for the time that has gone by."""
        with self._lock:
            now = perf_counter()
            self._allowance = min(self._allowance, 0.0) + _SHARE * max(min(now - self._ticked, 1.0), 0.1)
            self._ticked = now
            if self._kept:
                self._count()

    def _count(self) -> None:
        start = perf_counter()
        kept, self._kept = self._kept, []
        self.rows += self._kept_rows
        self._kept_rows = 0
        inputs = {
            name: np.concatenate([arrays[place] for arrays, _ in kept]) for place, name in enumerate(self._inputs)
        }
        answers = {
            name: np.concatenate([arrays[place] for _, arrays in kept])
            for place, name in enumerate(self._answer_tensors)
        }
        self.features.count(inputs)
        self.outputs.count(answers)
        self._allowance -= perf_counter() - start


class _Columns:
    """Counts of some columns, numbers all at once and categories one by one."""

    def __init__(self, described: tuple[Described, ...]) -> None:
        self.numbers = [one for one in described if one.is_number]
        self.categories = [_Categories(one) for one in described if not one.is_number]
        self._width = max([len(one.edges) for one in self.numbers], default=0)
        # What is above no edge of its own is above none of those that only fill the table.
        self._edges = np.full((self._width, len(self.numbers)), np.inf)
        for place, one in enumerate(self.numbers):
            self._edges[: len(one.edges), place] = one.edges
        self._counts = np.zeros((len(self.numbers), self._width + 2), np.int64)
        self._offsets = np.arange(len(self.numbers)) * (self._width + 2)
        self._sums = np.zeros(len(self.numbers))

    def count(self, arrays: dict[str, Array]) -> None:
        """Count some rows of every column."""
        for column in self.categories:
            column.count(arrays[column.described.spec.tensor])
        if not self.numbers:
            return
        values = np.stack([_column(arrays[one.spec.tensor], one.column) for one in self.numbers], axis=1)
        values = values.astype(np.float64, copy=False)
        bins = np.zeros(values.shape, np.intp)
        for edges in self._edges:
            bins += values > edges
        missing = np.isnan(values)
        bins[missing] = self._width + 1
        bins += self._offsets
        self._counts += np.bincount(bins.ravel(), minlength=self._counts.size).reshape(self._counts.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = self._sums + np.where(np.isfinite(values), values, 0.0).sum(axis=0)
        # Rows whose sum no double holds stay out of it: an infinite sum would stay one for good.
        np.copyto(self._sums, sums, where=np.isfinite(sums))

    def of_number(self, place: int) -> tuple[list[int], int, float]:
        """Give counts by bin, how many were missing, and the sum of the finite ones."""
        one = self.numbers[place]
        row = self._counts[place].tolist()
        return row[: len(one.edges) + 1], row[-1], float(self._sums[place])


class _Categories:
    """Counts of one column of strings or labels."""

    def __init__(self, described: Described) -> None:
        self.described = described
        count = len(described.categories)
        self._other, self._missing, self._unseen = count, count + 1, count + 2
        self._counts = np.zeros(count + 3, np.int64)
        places = {name: place for place, name in enumerate(described.categories)}
        places |= dict.fromkeys(described.known - places.keys(), self._other)
        self._places: dict[str | int | None, int] = {}
        if described.spec.datatype.is_text:
            # What null becomes, the convention for it, and what a worker answers.
            self._places.update(places, **{described.spec.missing: self._missing, "": self._missing})
            self._places[None] = self._missing
        else:
            self._places.update((int(name), place) for name, place in places.items())

    def count(self, array: Array) -> None:
        """Count some rows."""
        find, unseen = self._places.get, self._unseen
        found = [find(value, unseen) for value in _column(array, self.described.column).tolist()]
        self._counts += np.bincount(found, minlength=len(self._counts))

    @property
    def counts(self) -> tuple[list[int], int, int]:
        """By category and the others together; missing; unseen."""
        *named, missing, unseen = self._counts.tolist()
        return named, missing, unseen


def _column(array: Array, place: int) -> Array:
    return array if array.ndim == 1 else array[:, place]
