"""Limits on a new content, measured from its own pods: how it does, and whether it must go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from slipway_operator.api import RollBackOn, parse_duration
from slipway_operator.domain import labels
from slipway_operator.domain.conditions import find_condition
from slipway_operator.domain.durations import parse_time
from slipway_operator.domain.revisions import Cause, LoggedEntry
from slipway_operator.plan.native import NAME as WORKER
from slipway_operator.plan.observed import Manifest, Observed, Sample
from slipway_operator.plan.troubles import containers_of

LOOK_SECONDS = 3.0
"""Seconds between two looks at the figures of a content that is watched."""
MOST_PODS = 50
"""So many pods are asked at most: their figures are enough to judge by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How the pods of one content do, all together, since they started."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    p99_millis: float | None = None
    failed_probes: int = 0

    @property
    def error_rate(self) -> float | None:
        """Share of predictions answered with a 5xx status."""
        return self.errors / self.requests if self.requests else None

    @property
    def refusal_rate(self) -> float | None:
        """Share of predictions that the model itself could not compute for the values that were sent."""
        return self.refused / self.requests if self.requests else None

    @property
    def text(self) -> str:
        """In words."""
        words = [f"{self.requests} requests"]
        if self.error_rate is not None:
            words.append(f"error rate {self.error_rate:.2%}")
        if self.refused and self.refusal_rate is not None:
            words.append(f"refusal rate {self.refusal_rate:.2%}")
        if self.p99_millis is not None:
            words.append(f"p99 {self.p99_millis:.1f} ms")
        if self.failed_probes:
            words.append(f"{self.failed_probes} failed probes")
        return ", ".join(words)


def pods_to_ask(
    limits: RollBackOn | None, pods: Sequence[Manifest], entries: Sequence[LoggedEntry], now: datetime
) -> list[Manifest]:
    """Pods whose figures a plan needs: those of a canary, and those of a content that is watched after it went live."""
    wanted = [p for p in pods if labels.CANARY in p["metadata"]["labels"]]
    if limits is not None and watched_for(limits, entries, now) > 0:
        live = entries[-1].entry.digests.short
        wanted += [p for p in pods if p["metadata"]["labels"].get(labels.CONTENT) == live]
    running = [p for p in wanted if (p.get("status") or {}).get("podIP") and not p["metadata"].get("deletionTimestamp")]
    return running[:MOST_PODS]


def watched_for(limits: RollBackOn, entries: Sequence[LoggedEntry], now: datetime) -> float:
    """Seconds that the live content is still watched; never one that a rollback made live again."""
    if not entries or entries[-1].entry.cause not in {Cause.SPEC_CHANGE, Cause.PROMOTION}:
        return 0.0
    until = parse_time(entries[-1].entry.at) + timedelta(seconds=parse_duration(limits.watch_for))
    return max((until - now).total_seconds(), 0.0)


def figures_of(seen: Observed, *, label: str, value: str) -> Figures:
    """Figures of the pods that carry a label."""
    pods = [
        p
        for p in seen.pods
        if p["metadata"]["labels"].get(label) == value and not p["metadata"].get("deletionTimestamp")
    ]
    samples = [seen.samples[name] for p in pods if (name := p["metadata"]["name"]) in seen.samples]
    return Figures(
        requests=sum(s.requests for s in samples),
        errors=sum(s.errors for s in samples),
        refused=sum(s.refused for s in samples),
        p99_millis=quantile_millis(samples, 0.99),
        failed_probes=sum(_failed_probes(p) for p in pods),
    )


def breach(limits: RollBackOn | None, figures: Figures) -> str | None:
    """Which limit is passed, with the figures; None: none."""
    if limits is None:
        return None
    if limits.failed_probes is not None and figures.failed_probes >= limits.failed_probes:
        return f"failedProbes: {figures.failed_probes} of at most {limits.failed_probes - 1} ({figures.text})"
    if figures.requests < limits.minimum_requests:
        return None
    for name, rate, most in (
        ("errorRate", figures.error_rate, limits.error_rate),
        ("refusalRate", figures.refusal_rate, limits.refusal_rate),
    ):
        if most is not None and rate is not None and rate > most:
            return f"{name}: {rate:.2%}, limit {most:.2%} ({figures.text})"
    p99 = figures.p99_millis
    if limits.p99_latency_millis is not None and p99 is not None and p99 > limits.p99_latency_millis:
        return f"p99LatencyMillis: {p99:.1f}, limit {limits.p99_latency_millis:g} ({figures.text})"
    return None


def quantile_millis(samples: Iterable[Sample], quantile: float) -> float | None:
    """A quantile of merged histograms, as Prometheus' histogram_quantile has it: linear within a bucket.

    In the last bucket, which has no upper bound, it is the highest bound that there is.
    """
    merged: dict[float, int] = {}
    for sample in samples:
        for bound, count in sample.buckets:
            merged[bound] = merged.get(bound, 0) + count
    bounds = sorted(merged)
    if not bounds or merged[bounds[-1]] == 0:
        return None
    rank = quantile * merged[bounds[-1]]
    below, before = 0.0, 0
    for bound in bounds:
        if merged[bound] >= rank:
            if bound == float("inf"):
                return below * 1000
            inside = merged[bound] - before
            share = (rank - before) / inside if inside else 1.0
            return (below + (bound - below) * share) * 1000
        below, before = bound, merged[bound]
    return below * 1000  # pragma: no cover - the last bucket holds all


def _failed_probes(pod: Mapping[str, Manifest]) -> int:
    """Restarts of a pod's containers, and one more where it has answered and does not now."""
    containers = [c for c in containers_of(pod) if c.get("name") != "pull"]
    restarts = sum(int(c.get("restartCount", 0)) for c in containers)
    return restarts + (1 if _is_lost(pod, containers) else 0)


def _is_lost(pod: Mapping[str, Manifest], containers: Sequence[Manifest]) -> bool:
    """Whether a pod was ready since its containers run, and is not now.

    The kubelet says that a pod is not ready before it runs its first container, and the time of that moves only when
    it turns. So a pod between its startup probe and its first readiness probe has lost nothing: its time is the older
    one, or the same second.
    """
    # A worker is started before the runtime; that it runs does not say that the pod has answered.
    started = [
        str(((c.get("state") or {}).get("running") or {}).get("startedAt") or "")
        for c in containers
        if c.get("started") and c.get("name") != WORKER
    ]
    ready = find_condition((pod.get("status") or {}).get("conditions") or (), "Ready")
    if ready is None or ready.get("status") == "True" or not any(started):
        return False
    turned = str(ready.get("lastTransitionTime") or "")
    return bool(turned) and parse_time(turned) > parse_time(max(started))
