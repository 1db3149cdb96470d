"""Numbers to watch, in Prometheus' text format.

Recording is a few list operations on the loop's own thread; the rest happens for hundreds of
values at once, or when somebody asks. Memory does not grow with the number of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from slipway_runtime.observing.drift import largest_distance, stability_index
from slipway_runtime.observing.families import Family, State, added, labelled, written
from slipway_runtime.observing.reference import Described
from slipway_runtime.observing.values import ValueCounts
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.tensors import Array

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STEP_SECONDS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, *_SECONDS)
_KEPT = 1024
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)

FAMILIES = (
    Family("slipway_requests_total", "counter", "Requests answered, by endpoint and HTTP status code."),
    Family(
        "slipway_request_duration_seconds", "histogram", "From the first byte of a request to its answer.", _SECONDS
    ),
    Family(
        "slipway_step_duration_seconds",
        "histogram",
        "Parts of answering (parse, queue, run, encode), of up to a thousand requests a second.",
        _STEP_SECONDS,
    ),
    Family("slipway_batch_rows", "histogram", "Rows that ran together.", _ROWS),
    Family("slipway_run_duration_seconds", "histogram", "Time of one run of the model.", _SECONDS),
    Family("slipway_rows_total", "counter", "Rows predicted."),
    Family("slipway_failures_total", "counter", "Requests that got an error instead of a prediction, by its kind."),
    Family("slipway_requests_in_flight", "gauge", "Requests being answered now."),
    Family("slipway_connections", "gauge", "Open connections."),
    Family("slipway_ready", "gauge", "1 while the runtime says that it is ready.", adds_up=False),
    Family("slipway_observed_rows_total", "counter", "Rows whose values were counted."),
    Family("slipway_feature_value", "histogram", "Values of a number that the model was given."),
    Family("slipway_feature_category_total", "counter", "Rows by category that the reference counts."),
    Family("slipway_feature_other_total", "counter", "Rows with a category that the reference knows, uncounted."),
    Family("slipway_feature_unseen_total", "counter", "Rows with a category that the reference does not know."),
    Family("slipway_feature_missing_total", "counter", "Rows in which the feature was missing."),
    Family("slipway_prediction_value", "histogram", "Values that the model gave; of a classifier by class."),
    Family("slipway_prediction_category_total", "counter", "Rows by label that the model gave."),
    Family(
        "slipway_reference_ratio", "gauge", "Share of the reference's rows up to le, or of a category.", adds_up=False
    ),
    Family("slipway_feature_psi", "gauge", "Population stability index against the reference.", adds_up=False),
    Family("slipway_feature_ks", "gauge", "Kolmogorov-Smirnov distance from the reference.", adds_up=False),
    Family("slipway_prediction_psi", "gauge", "Population stability index of the answers.", adds_up=False),
    Family("slipway_feedback_total", "counter", "Truths that became known later, by how they were taken."),
    Family("slipway_lost_total", "counter", "Lines of the access log and traces that there was no room for."),
    Family("slipway_records_total", "counter", "Recorded requests, by what became of them."),
)
"""Everything that a runtime tells, in this order."""


class Histogram:
    """Counts by bucket, with the sum. Values are kept for a while and counted together."""

    __slots__ = ("_bounds", "_counts", "_kept", "_total", "observe")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._total = 0.0
        self._kept: list[float] = []
        self.observe: Callable[[float], None] = self._kept.append
        """Take one value; `settle` counts it."""

    def settle(self) -> None:
        """Count what is kept."""
        if self._kept:
            kept = self._kept[:]
            del self._kept[: len(kept)]  # another thread may have added one meanwhile
            values = np.array(kept)
            found = np.searchsorted(self._bounds, values)
            self._counts += np.bincount(found, minlength=len(self._counts))
            self._total += float(values.sum())

    def observe_all(self, values: Sequence[float]) -> None:
        """Take many values."""
        self._kept += values
        self.settle()

    def numbers(self) -> list[float]:
        """Give counts and sum."""
        self.settle()
        return [*self._counts.tolist(), self._total]


class Metrics:
    """All that one process counts, labelled with the model and the content that it serves."""

    def __init__(self, model: str, content: str) -> None:
        self.model = model
        self.content = content
        self.labels = labelled(model=model, content=content)
        """As every series carries them."""
        self._requests: dict[tuple[str, int], int] = {}
        self._latency: dict[str, Histogram] = {}
        self._answered: dict[tuple[str, int], list[float]] = {}
        self._steps: dict[str, Histogram] = {}
        self._batch_rows = Histogram(_ROWS)
        self._run_seconds = Histogram(_SECONDS)
        self._rows = 0
        self._failures: dict[str, int] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._values: ValueCounts | None = None
        self.in_flight = 0
        self.connections = 0
        self.ready = False
        self.others: Callable[[], Sequence[State]] = list
        """Gives the states of the pod's other worker processes."""
        self.tell: Callable[[State], None] | None = None
        """Takes this process's state twice a second, for the others."""

    def of(self, endpoint: str) -> Metrics:  # noqa: ARG002 -- where there are several models, it tells which
        """Give the numbers of the model that an endpoint belongs to."""
        return self

    def watch(self, values: ValueCounts) -> None:
        """Count values, too."""
        self._values = values

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        kept = self._answered.get((endpoint, code))
        if kept is None:
            kept = self._answered[endpoint, code] = []
        kept.append(seconds)
        if len(kept) >= _KEPT:
            self._count_answered()

    def answered_together(self, endpoint: str, code: int, seconds: Sequence[float]) -> None:
        """Count requests that were answered at once."""
        self._answered.setdefault((endpoint, code), []).extend(seconds)
        if len(self._answered[endpoint, code]) >= _KEPT:
            self._count_answered()

    def _count_answered(self) -> None:
        for (endpoint, code), kept in self._answered.items():
            self._requests[endpoint, code] = self._requests.get((endpoint, code), 0) + len(kept)
            histogram = self._latency.get(endpoint)
            if histogram is None:
                histogram = self._latency[endpoint] = Histogram(_SECONDS)
            histogram.observe_all(kept)
            kept.clear()

    def took(self, step: str, seconds: float) -> None:
        """Count the time of one step of a request."""
        histogram = self._steps.get(step)
        if histogram is None:
            histogram = self._steps[step] = Histogram(_STEP_SECONDS)
        histogram.observe(seconds)

    def ran(self, rows: int, seconds: float, feeds: Feeds | None = None, outputs: Sequence[Array] = ()) -> None:
        """Count one run of the engine, and the values that went in and came out."""
        self._batch_rows.observe(rows)
        self._run_seconds.observe(seconds)
        self._rows += rows
        if self._values is not None and feeds is not None:
            self._values.take(feeds, outputs, rows)

    def failed(self, kind: str) -> None:
        """Count one request that got an error, by the error's name."""
        self._failures[kind] = self._failures.get(kind, 0) + 1

    def count(self, family: str, number: int = 1, **labels: str) -> None:
        """Count something that happens seldom."""
        key = (family, labelled(**labels))
        self._counted[key] = self._counted.get(key, 0) + number

    def tick(self) -> None:
        """Count what is kept; call it twice a second."""
        self._count_answered()
        for histogram in self._histograms():
            histogram.settle()
        if self._values is not None:
            self._values.tick()
        if self.tell is not None:
            self.tell(self.state())

    def _histograms(self) -> Iterator[Histogram]:
        yield from (self._batch_rows, self._run_seconds, *self._latency.values(), *self._steps.values())

    def state(self) -> State:
        """Give all numbers of this process."""
        self._count_answered()
        if self._values is not None:
            self._values.tick()
        state: State = {
            "slipway_requests_total": {
                labelled(endpoint=endpoint, code=code): [count] for (endpoint, code), count in self._requests.items()
            },
            "slipway_request_duration_seconds": {
                labelled(endpoint=endpoint): one.numbers() for endpoint, one in self._latency.items()
            },
            "slipway_step_duration_seconds": {labelled(step=step): one.numbers() for step, one in self._steps.items()},
            "slipway_batch_rows": {"": self._batch_rows.numbers()},
            "slipway_run_duration_seconds": {"": self._run_seconds.numbers()},
            "slipway_rows_total": {"": [self._rows]},
            "slipway_failures_total": {labelled(kind=kind): [count] for kind, count in self._failures.items()},
            "slipway_requests_in_flight": {"": [self.in_flight]},
            "slipway_connections": {"": [self.connections]},
            "slipway_ready": {"": [int(self.ready)]},
        }
        for (family, labels), count in self._counted.items():
            state.setdefault(family, {})[labels] = [count]
        if self._values is not None:
            _values_into(state, self._values)
        return state

    def render(self) -> bytes:
        """Write everything down, this process's numbers and those of its siblings."""
        state = added((self.state(), *self.others()), FAMILIES)
        return written(state, FAMILIES, self.labels, self.compare(state))

    def compare(self, state: State) -> dict[tuple[str, str], Sequence[str]]:
        """Put the model's reference beside a state's values, if it has one; gives the bounds of their histograms."""
        return {} if self._values is None else _compared(state, self._values)


def _labels_of(one: Described, *, feature: bool) -> str:
    if feature:
        return labelled(feature=one.name)
    return labelled(output=one.name, **({"class": one.chance_of} if one.chance_of else {}))


def _edges_of(one: Described) -> list[str]:
    """Write edges as short as the precision of their values allows: 0.1, not 0.10000000149011612."""
    short = one.spec.datatype.name in ("FP32", "FP16")
    return [str(np.float32(edge)) if short else f"{edge!r}" for edge in one.edges]


def _values_into(state: State, values: ValueCounts) -> None:
    state["slipway_observed_rows_total"] = {"": [values.rows]}
    for columns, kind in ((values.features, "feature"), (values.outputs, "prediction")):
        histograms = state.setdefault(f"slipway_{kind}_value", {})
        categories = state.setdefault(f"slipway_{kind}_category_total", {})
        absent = state.setdefault("slipway_feature_missing_total", {})
        for place, one in enumerate(columns.numbers):
            counts, missing, total = columns.of_number(place)
            labels = _labels_of(one, feature=kind == "feature")
            histograms[labels] = [*counts, total]
            if kind == "feature":
                absent[labels] = [missing]
        for column in columns.categories:
            one = column.described
            labels = _labels_of(one, feature=kind == "feature")
            (*named, other), missing, unseen = column.counts
            for category, count in zip(one.categories, named, strict=True):
                categories[f"{labels},{labelled(category=category)}"] = [count]
            if kind == "feature":
                absent[labels] = [missing]
                state.setdefault("slipway_feature_other_total", {})[labels] = [other]
                state.setdefault("slipway_feature_unseen_total", {})[labels] = [unseen]


def _compared(state: State, values: ValueCounts) -> dict[tuple[str, str], Sequence[str]]:
    """Put the reference, and how far the values are from it, beside them; gives the bounds of their histograms."""
    bounds: dict[tuple[str, str], Sequence[str]] = {}
    bins = state.setdefault("slipway_reference_ratio", {})
    for columns, kind in ((values.features, "feature"), (values.outputs, "prediction")):
        indices = state.setdefault(f"slipway_{kind}_psi", {})
        for one in columns.numbers:
            labels = _labels_of(one, feature=kind == "feature")
            edges = _edges_of(one)
            bounds[f"slipway_{kind}_value", labels] = edges
            counts = state[f"slipway_{kind}_value"][labels][:-1]
            indices[labels] = [stability_index(one.counts, counts)]
            if kind == "feature":
                state.setdefault("slipway_feature_ks", {})[labels] = [largest_distance(one.counts, counts)]
            rows = sum(one.counts) or 1
            for edge, count in zip((*edges, "+Inf"), accumulate(one.counts), strict=True):
                bins[f"{labels},{labelled(le=edge)}"] = [count / rows]
        for column in columns.categories:
            one = column.described
            labels = _labels_of(one, feature=kind == "feature")
            series = state[f"slipway_{kind}_category_total"]
            found = [series[f"{labels},{labelled(category=name)}"][0] for name in one.categories]
            beyond = [
                sum(
                    state.get(f"slipway_feature_{what}_total", {}).get(labels, [0.0])[0] for what in ("other", "unseen")
                )
            ]
            indices[labels] = [stability_index(one.counts, found + beyond)]
            rows = sum(one.counts) or 1
            for name, count in zip(one.categories, one.counts[:-1], strict=True):
                bins[f"{labels},{labelled(category=name)}"] = [count / rows]
    return bounds
