"""Says which part of the cluster runs, since when, with how much memory, and what to do about one that does not."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import api, local
from cluster.components import Component
from cluster.layout import NODE, Layout
from cluster.processes import Running
from tools import say

HEAL = "`make cluster-up` starts it again"


@dataclass(frozen=True)
class Line:
    """One part's state."""

    name: str
    state: str
    pid: str = ""
    memory: str = ""
    since: str = ""
    advice: str = ""

    @property
    def well(self) -> bool:
        """Tell whether nothing has to be done."""
        return self.state in {"running", "ready"}


def describe(parts: Sequence[Component], layout: Layout) -> list[Line]:
    """Return the state of every component, then of what they make together."""
    own = local.records(layout)
    lines = [_process(part, own.find(part.name), layout) for part in parts]
    node = api.get(layout, f"/api/v1/nodes/{NODE}")
    metrics = api.get(layout, "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
    lines.append(
        _condition("node", api.is_true(node, "Ready"), "the kubelet's log says why", layout.logs / "kubelet.log")
    )
    lines.append(
        _condition(
            "metrics API",
            api.is_true(metrics, "Available"),
            "its server's log says why",
            layout.logs / "metrics-server.log",
        )
    )
    return lines


def _process(part: Component, running: Running | None, layout: Layout) -> Line:
    log = layout.logs / f"{part.name}.log"
    if running is None:
        return Line(part.name, "down", advice=f"{HEAL}; it last said: {local.last_words(log)[:160]}")
    memory, since = say.size(resident(running.pid)), say.elapsed(age(running.started))
    ready = not part.ready or api.answers(layout, part.ready)
    state = "running" if ready else "not ready"
    return Line(part.name, state, str(running.pid), memory, since, "" if ready else f"look into {log}; {HEAL}")


def _condition(name: str, met: bool, advice: str, log: Path) -> Line:
    return Line(name, "ready" if met else "not ready", advice="" if met else f"{advice}: {log}")


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes, 0 where it is gone."""
    try:
        fields = (Path("/proc") / str(pid) / "statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def age(started: int) -> float:
    """Return the seconds since a start time in clock ticks since boot."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))


def table(lines: Sequence[Line]) -> str:
    """Lay out the lines as a table, each advice below its part."""
    rows = [("PART", "STATE", "PID", "MEMORY", "UP FOR")]
    rows += [(line.name, line.state, line.pid, line.memory, line.since) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    laid = [" ".join(cell.ljust(width + 1) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    out = [laid[0]]
    for line, row in zip(lines, laid[1:], strict=True):
        out.append(row)
        if line.advice:
            out.append(f"  → {line.advice}")
    return "\n".join(out)
