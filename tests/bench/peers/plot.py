"""Draw a run of ``make bench-runtime``: ``plot.py <json> <svg>``."""
# mypy: ignore-errors

import json
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

mpl.rcParams["svg.hashsalt"] = "slipway"  # one run, one file
mpl.rcParams["svg.fonttype"] = "none"

OURS, OTHERS, LIMIT = "#0b6e4f", "#9aa5b1", "#d8dde3"


def bars(axes, title, unit, values):
    """Draw one number of each server, the largest on top."""
    names = sorted(values, key=values.get)
    colours = [OURS if name.startswith("Slipway") else LIMIT if name.startswith("uvloop") else OTHERS for name in names]
    drawn = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(
        drawn, [f"{values[name]:,.{0 if values[name] >= 20 else 2}f}" for name in names], padding=3, fontsize=8
    )
    axes.set_title(f"{title} ({unit})", fontsize=10, loc="left")
    axes.margins(x=0.25)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_visible(False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _is_at_a_rate(name):
    return "open loop" in name or " at " in name


def main():
    """Draw the figures that the targets speak of."""
    found = json.loads(Path(sys.argv[1]).read_text())
    cases = {name: by_peer for name, by_peer in found["medians"].items() if by_peer and name in found["core"]}
    panels = [
        (name, "requests a second", {who: one["per_second"] for who, one in by.items()})
        for name, by in cases.items()
        if not _is_at_a_rate(name)
    ]
    panels += [
        (name, "p99, ms", {who: one["p99"] for who, one in by.items()})
        for name, by in cases.items()
        if _is_at_a_rate(name)
    ]
    facts = found["facts"]
    for title, unit, key in (
        ("start to first right answer", "s", "seconds"),
        ("memory of a server alone", "MB, PSS", "megabytes"),
    ):
        if facts:  # a run of some parts may have none
            panels.append((title, unit, {who: statistics.median(one[key]) for who, one in facts.items()}))
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(12, 2.6 * rows))
    for place, panel in zip(axes.flat, panels, strict=False):
        bars(place, *panel)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
