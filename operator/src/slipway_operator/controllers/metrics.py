"""The few numbers that the operator shows on /metrics, in Prometheus' text format."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slipway_operator.domain.keys import Key


class Metrics:
    """Counters of reconciles, kept by hand: five lines of text need no library."""

    def __init__(self) -> None:
        self._runs: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._conditions: dict[Key, tuple[tuple[str, str, str], ...]] = {}
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

    def told(self, key: Key, status: Mapping[str, Any] | None) -> None:
        """Keep the conditions of a ModelDeployment; None: it is gone."""
        if status is None:
            self._conditions.pop(key, None)
            return
        self._conditions[key] = tuple(
            (str(c["type"]), str(c["status"]), str(c["reason"])) for c in status.get("conditions") or ()
        )

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
        lines.append("# TYPE slipway_modeldeployment_condition gauge")
        lines += [
            f'slipway_modeldeployment_condition{{namespace="{key.namespace}",name="{key.name}",type="{kind}",'
            f'status="{status}",reason="{reason}"}} 1'
            for key, conditions in sorted(dict(self._conditions).items())
            for kind, status, reason in conditions
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
