"""What `bench_runtime.py` prints: a table for each case, the facts, and the targets."""

from __future__ import annotations

import statistics
from typing import Any

from tests.bench.runtime_cases import BASE, HELLO, OURS

Numbers = dict[str, float]


def medians(rounds: list[Numbers]) -> Numbers:
    """Give the median of each number."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def report(found: dict[str, Any]) -> None:
    """Print everything."""
    for case, by_peer in found["medians"].items():
        print(f"\n{case}")
        base = by_peer.get(BASE, {}).get("per_second")
        for who, numbers in sorted(by_peer.items(), key=lambda item: -item[1]["per_second"]):
            times = f"{numbers['per_second'] / base:6.1f}x" if base else ""
            rates = [one["per_second"] for one in found["results"][case][who]]
            print(
                f"  {who:24} {numbers['per_second']:10,.0f}/s  ({min(rates):,.0f} to {max(rates):,.0f})  "
                f"p50 {numbers['p50']:8.3f}  p99 {numbers['p99']:8.3f}  p99.9 {numbers['p999']:8.3f} ms "
                f"cpu {numbers['server_cpu']:.2f} of {numbers['machine_cpu']:.2f} {times}"
            )
    print("\nfirst right answer, memory of a server alone after 1 s of load, processes, installed packages")
    for who, fact in found["facts"].items():
        print(
            f"  {who:24} {statistics.median(fact['seconds']):6.2f} s  {statistics.median(fact['megabytes']):6.0f} MB  "
            f"{fact['processes']:3}  {fact['installed_megabytes']:6.0f} MB"
        )
    for what, why in found["failed"].items():
        print(f"  not measured: {what}: {why}")
    print("\ntarget, reached, asked for, stretch")
    for name, value, target, stretch in targets(found):
        print(f"  {name:52} {value:8.2f} {target:8.2f} {stretch:8.2f}")


def targets(found: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """Compare with the targets; those that were not measured are left out."""
    cases = found["medians"]
    lines: list[tuple[str, float, float, float]] = []
    for case, target, stretch in (
        ("JSON, 1 row, 64 connections", 40, 60),
        ("JSON, 1 row, 1 connection", 5, 7.5),
        ("JSON, 100 rows, 16 connections", 6, 9),
        ("gRPC, 1 row, 4 connections of 16 streams", 10, 30),
    ):
        by_peer = cases.get(case, {})
        if {OURS, BASE} <= by_peer.keys():
            times = by_peer[OURS]["per_second"] / by_peer[BASE]["per_second"]
            lines.append((f"{case}: times {BASE}", times, target, stretch))
    steady: dict[str, Numbers] = next((by_peer for case, by_peer in cases.items() if "open loop" in case), {})
    if {OURS, BASE} <= steady.keys():
        share = steady[OURS]["p99"] / steady[BASE]["p99"]
        lines.append((f"p99 in the open loop: share of {BASE}", share, 1 / 15, 1 / 30))
    many = cases.get("JSON, 1 row, 64 connections", {})
    if {OURS, HELLO} <= many.keys():
        share = many[OURS]["per_second"] / many[HELLO]["per_second"]
        lines.append(("share of the bare uvloop hello, 64 connections", share, 0.4, 0.6))
    ours = found["facts"].get(OURS)
    if ours is not None:
        lines.append(("memory (PSS) of one worker, MB", statistics.median(ours["megabytes"]), 80, 60))
        held = ours.get("megabytes_by_workers", {})
        if {"2", "4"} <= held.keys():
            lines.append(("memory (PSS) of each further worker, MB", (held["4"] - held["2"]) / 2, 10, 10))
        lines.append(("process start to first right answer, s", statistics.median(ours["seconds"]), 0.5, 0.25))
    return lines
