"""What `bench_runtime.py` prints: a table for each case, the facts, and the targets."""

from __future__ import annotations

import statistics
from typing import Any

from tests.bench.runtime_cases import ALL_ON, BASE, HELLO, OURS

BOTH = (OURS, ALL_ON)
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
        if "megabytes_by_workers" in fact:
            told = {**fact["megabytes_by_workers"], "1 with gRPC": fact.get("megabytes_with_grpc", 0)}
            print("   by workers:", ", ".join(f"{what}: {number:.0f} MB" for what, number in told.items()))
    for what, why in found["failed"].items():
        print(f"  not measured: {what}: {why}")
    print("\ntarget: reached, with everything on; asked for, stretch")
    for name, *numbers in targets(found):
        print(f"  {name:60}", *(f"{'' if one is None else f'{one:.2f}':>8}" for one in numbers))


Target = tuple[str, float | None, float | None, float, float]
"""Its name, what was reached, what was reached with everything on, what is asked for, the stretch."""


def targets(found: dict[str, Any]) -> list[Target]:
    """Compare with the targets; those that were not measured are left out."""
    cases: dict[str, dict[str, Numbers]] = found["medians"]
    lines: list[Target] = []

    def add(name: str, case: str, other: str, key: str, goals: tuple[float, float]) -> None:
        """Add a share of another server's number."""
        by_peer = cases.get(case, {})
        shares = [by_peer[who][key] / by_peer[other][key] if {who, other} <= by_peer.keys() else None for who in BOTH]
        if any(shares):
            lines.append((name, shares[0], shares[1], *goals))

    for case, goals in (
        ("JSON, 1 row, 64 connections", (40.0, 60.0)),
        ("JSON, 1 row, 1 connection", (5.0, 7.5)),
        ("JSON, 100 rows, 16 connections", (6.0, 9.0)),
        ("gRPC, 1 row, 4 connections of 16 streams", (10.0, 30.0)),
    ):
        add(f"{case}: times {BASE}", case, BASE, "per_second", goals)
    add(f"p99 at 650 requests/s: share of {BASE}", "JSON, 1 row, open loop of 650/s", BASE, "p99", (1 / 15, 1 / 30))
    many = "JSON, 1 row, 64 connections"
    add("share of the bare uvloop hello, 64 connections", many, HELLO, "per_second", (0.4, 0.6))
    facts = [found["facts"].get(who) for who in BOTH]
    for name, key, goals in (
        ("memory (PSS) of one worker, MB", "megabytes", (80.0, 60.0)),
        ("process start to first right answer, s", "seconds", (0.5, 0.25)),
    ):
        numbers = [statistics.median(fact[key]) if fact else None for fact in facts]
        if any(numbers):
            lines.append((name, numbers[0], numbers[1], *goals))
    held = (facts[0] or {}).get("megabytes_by_workers", {})
    if {"1", "2", "4"} <= held.keys():
        lines.append(("memory (PSS) of the first further worker, MB", held["2"] - held["1"], None, 10, 10))
        lines.append(("memory (PSS) of each one after it, MB", (held["4"] - held["2"]) / 2, None, 10, 10))
    return lines
