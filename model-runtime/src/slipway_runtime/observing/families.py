"""Metrics as plain numbers: a state can be added to another's, and written down in Prometheus' text format.

A state holds for each family, for each set of labels, its numbers: one for a counter or gauge;
for a histogram the count of each bucket, then the sum. Everything but a few gauges adds up, over
the worker processes of a pod as over pods.
https://prometheus.io/docs/instrumenting/exposition_formats is the source of the format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

State = dict[str, dict[str, list[float]]]
"""Numbers by the labels as they are written (``a="b",c="d"``), by family."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    bounds: tuple[float, ...] = ()
    """Of a histogram, where all of its labels have the same."""
    adds_up: bool = True


def added(states: Iterable[State], families: Sequence[Family]) -> State:
    """Add states; a gauge that does not add up keeps its smallest value."""
    total: State = {}
    single = {family.name for family in families if not family.adds_up}
    for state in states:
        for name, series in state.items():
            found = total.setdefault(name, {})
            for labels, numbers in series.items():
                before = found.get(labels)
                if before is None or len(before) != len(numbers):
                    found[labels] = list(numbers)
                elif name in single:
                    found[labels] = [min(a, b) for a, b in zip(before, numbers, strict=True)]
                else:
                    found[labels] = [a + b for a, b in zip(before, numbers, strict=True)]
    return total


def labelled(**labels: str | int) -> str:
    """Write labels."""
    return ",".join(f'{name}="{escaped(str(value))}"' for name, value in labels.items())


def escaped(value: str) -> str:
    """Write a label's value."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def written(
    state: State, families: Sequence[Family], common: str, bounds: dict[tuple[str, str], Sequence[str]]
) -> bytes:
    """Write a state down.

    Args:
        state: The numbers.
        families: What they are, in the order in which they are written.
        common: Labels of every series; may be nothing.
        bounds: Of a histogram whose labels differ in them, the bounds by family and labels.
    """
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}")
        for labels, numbers in sorted(state.get(family.name, {}).items()):
            both = f"{common},{labels}" if labels and common else common or labels
            if family.kind == "histogram":
                own = bounds.get((family.name, labels)) or [f"{bound:g}" for bound in family.bounds]
                lines += _histogram(family.name, both, own, numbers)
            else:
                lines.append(f"{family.name}{f'{{{both}}}' if both else ''} {_shown(numbers[0])}")
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, labels: str, bounds: Sequence[str], numbers: Sequence[float]) -> Iterator[str]:
    *counts, total = numbers
    running = list(accumulate(counts))
    for bound, count in zip((*bounds, "+Inf"), running, strict=True):
        yield f'{name}_bucket{{{labels},le="{bound}"}} {_shown(count)}'
    yield f"{name}_sum{{{labels}}} {_shown(total)}"
    yield f"{name}_count{{{labels}}} {_shown(running[-1])}"


def _shown(number: float) -> str:
    if not math.isfinite(number):  # sums that are, added up over processes, may not be
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    return str(int(number)) if number == int(number) and abs(number) < 1 << 53 else repr(float(number))
