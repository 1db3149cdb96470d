"""The few numbers that the operator shows on /metrics, in Prometheus' text format."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Metrics:
    """Counters of reconciles, kept by hand: five lines of text need no library."""

    def __init__(self) -> None:
        self._runs: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()
        self.last_reconcile = 0.0
        """Monotonic time of the last reconcile that ended."""

    @contextmanager
    def reconcile(self, kind: str) -> Iterator[None]:
        """Count one reconcile and its time."""
        started = time.monotonic()
        result = "error"
        try:
            yield
            result = "success"
        finally:
            self.last_reconcile = time.monotonic()
            self._runs[kind, result] += 1
            self._seconds[kind] += self.last_reconcile - started  # type: ignore[assignment]  # Counter adds floats well

    def text(self, *, keys: int, kept: int, watch_age: float, requests: Mapping[str, int]) -> str:
        """The page.

        Args:
            keys: Objects that have a worker.
            kept: Objects that are remembered for them.
            watch_age: Seconds since the watches were last known to be alive.
            requests: Requests to the API server, by method.
        """
        lines = ["# TYPE slipway_reconciles_total counter"]
        lines += [
            f'slipway_reconciles_total{{kind="{kind}",result="{result}"}} {count}'
            for (kind, result), count in sorted(dict(self._runs).items())
        ]
        lines.append("# TYPE slipway_reconcile_seconds_total counter")
        lines += [
            f'slipway_reconcile_seconds_total{{kind="{kind}"}} {seconds:.6f}'
            for kind, seconds in sorted(dict(self._seconds).items())
        ]
        lines += [
            "# TYPE slipway_objects gauge",
            f"slipway_objects {keys}",
            "# TYPE slipway_kept_objects gauge",
            f"slipway_kept_objects {kept}",
            "# TYPE slipway_api_requests_total counter",
            *(f'slipway_api_requests_total{{method="{method}"}} {n}' for method, n in sorted(dict(requests).items())),
            "# TYPE slipway_watch_age_seconds gauge",
            f"slipway_watch_age_seconds {watch_age:.1f}",
        ]
        return "\n".join(lines) + "\n"
