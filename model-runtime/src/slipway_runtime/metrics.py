"""Numbers to watch, in Prometheus' text format.

Recording is a few dictionary and list operations on the loop's own thread; everything else
happens when somebody asks. Memory does not grow with the number of requests.
https://prometheus.io/docs/instrumenting/exposition_formats is the source of the format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)


class Histogram:
    """Counts by bucket, with sum and number."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Give its samples; ``labels`` is empty or ``a="b"`` pairs."""
        comma = "," if labels else ""
        running = 0
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            running += count
            le = "+Inf" if bound is None else f"{bound:g}"
            yield f'{name}_bucket{{{labels}{comma}le="{le}"}} {running}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self._total!r}"
        yield f"{name}_count{braces} {running}"


class Metrics:
    """All that one runtime counts, labelled with the model and the content that it serves."""

    def __init__(self, model: str, content: str) -> None:
        self._labels = f'model="{_escaped(model)}",content="{_escaped(content)}"'
        self._requests: dict[tuple[str, int], int] = {}
        self._latency: dict[str, Histogram] = {}
        self._batch_rows = Histogram(_ROWS)
        self._run_seconds = Histogram(_SECONDS)
        self._rows = 0
        self._failures: dict[str, int] = {}
        self.in_flight = 0
        self.connections = 0
        self.ready = False

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        """Count one answered request."""
        key = (endpoint, code)
        self._requests[key] = self._requests.get(key, 0) + 1
        histogram = self._latency.get(endpoint)
        if histogram is None:
            histogram = self._latency[endpoint] = Histogram(_SECONDS)
        histogram.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of the engine."""
        self._batch_rows.observe(rows)
        self._run_seconds.observe(seconds)
        self._rows += rows

    def failed(self, kind: str) -> None:
        """Count one request that the engine or the queue did not take, by the error's name."""
        self._failures[kind] = self._failures.get(kind, 0) + 1

    def render(self) -> bytes:
        """Write everything down."""
        return ("\n".join(self._lines()) + "\n").encode()

    def _lines(self) -> Iterator[str]:
        labels = self._labels
        yield from _head("slipway_requests_total", "counter", "Requests answered, by endpoint and HTTP status code.")
        for (endpoint, code), count in sorted(self._requests.items()):
            yield f'slipway_requests_total{{{labels},endpoint="{endpoint}",code="{code}"}} {count}'
        yield from _head(
            "slipway_request_duration_seconds", "histogram", "From the first byte of a request to its answer."
        )
        for endpoint, histogram in sorted(self._latency.items()):
            yield from histogram.lines("slipway_request_duration_seconds", f'{labels},endpoint="{endpoint}"')
        yield from _head("slipway_batch_rows", "histogram", "Rows that ran together.")
        yield from self._batch_rows.lines("slipway_batch_rows", labels)
        yield from _head("slipway_run_duration_seconds", "histogram", "Time of one run of the model.")
        yield from self._run_seconds.lines("slipway_run_duration_seconds", labels)
        yield from _head("slipway_rows_total", "counter", "Rows predicted.")
        yield f"slipway_rows_total{{{labels}}} {self._rows}"
        yield from _head("slipway_failures_total", "counter", "Requests refused by the model, its engine or the queue.")
        for kind, count in sorted(self._failures.items()):
            yield f'slipway_failures_total{{{labels},kind="{kind}"}} {count}'
        yield from _head("slipway_requests_in_flight", "gauge", "Requests being answered now.")
        yield f"slipway_requests_in_flight{{{labels}}} {self.in_flight}"
        yield from _head("slipway_connections", "gauge", "Open connections.")
        yield f"slipway_connections{{{labels}}} {self.connections}"
        yield from _head("slipway_ready", "gauge", "1 while the runtime says that it is ready.")
        yield f"slipway_ready{{{labels}}} {int(self.ready)}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
