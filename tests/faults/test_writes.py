"""At every write of every flow something goes wrong; in the end it is as if nothing had."""

from __future__ import annotations

import asyncio
import functools
import os

import pytest

from lab.bench import WAITING_AT_ONCE, Trial, opened
from lab.faults import AT_BEGIN, AT_WRITES, DELETIONS, FOR_LONG, Fault, KilledAfter, sampled
from lab.flows import FLOWS
from lab.lives import traced

PROCESSES_AT_ONCE = 4
ONLY = os.environ.get("SLIPWAY_FAULT", "")
"""Part of a fault's name: the others are left out, to see one again."""
ANY_FLOW = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
ANY_FLOW_THAT_WRITES = pytest.mark.parametrize(
    "flow", [f for f in FLOWS if f.name != "delete"], ids=lambda flow: flow.name
)


def trials(faults, writes: int, *, all_of_them: bool = True) -> list[Trial]:
    """Every fault at every write, or one of them at each in turn."""
    names = [name for name in faults if ONLY in name]
    if not names:
        return []
    found = [
        Trial(names[kind], functools.partial(faults[names[kind]], number), f"at write {number}")
        for kind, number in sampled(len(names), writes, all_of_them=all_of_them)
    ]
    if all_of_them or not writes:
        found += [
            Trial(name, functools.partial(fault, 0), "at the begin")
            for name, fault in faults.items()
            if name in AT_BEGIN and name in names
        ]
    return found


@ANY_FLOW
async def test_a_fault_at_any_write_leads_to_the_same_end(plane, flow, everything, count):
    with traced() as bugs:
        async with opened(plane) as bench:
            wanted, writes = await bench.undisturbed(flow)
            tried = trials(AT_WRITES, writes, all_of_them=everything)
            # Those that wait for a minute do so beside the others.
            long = trials(FOR_LONG, writes) if everything else []
            found = await asyncio.gather(
                bench.failures(flow, tried, wanted), bench.failures(flow, long, wanted, at_once=WAITING_AT_ONCE)
            )
    count(flow.name, (t.what for t in (*tried, *long)))
    failures = [failure for some in found for failure in some]

    assert not failures + bugs, "\n".join(failures + bugs)


@ANY_FLOW_THAT_WRITES
async def test_a_deletion_at_any_write_leaves_nothing(plane, flow, everything, count):
    with traced() as bugs:
        async with opened(plane) as bench:
            _, writes = await bench.undisturbed(flow)
            tried = trials(DELETIONS, writes if everything else min(writes, 2), all_of_them=everything)
            failures = await bench.failures(flow, tried, {"left": []})
    count("delete", (t.what for t in tried))

    assert not failures + bugs, "\n".join(failures + bugs)


@ANY_FLOW
async def test_the_process_killed_at_any_write_goes_on_where_it_was(plane, flow, everything, count):
    """As installed, with kopf: a process that is killed, and another one after it."""
    if (not everything and flow.name != "rollback") or ONLY not in "process killed":
        pytest.skip("in make test-faults")
    async with opened(plane) as bench:
        wanted, writes = await bench.undisturbed(flow)
        places = range(1, writes + 1) if everything else [1]
        tried = [
            Trial("process killed", functools.partial(KilledAfter, n), f"at write {n}", process=True)
            for n in (places if writes else [0])
        ]
        failures = await bench.failures(flow, tried, wanted, at_once=PROCESSES_AT_ONCE)
    count(flow.name, (t.what for t in tried))

    assert not failures, "\n".join(failures)


async def test_the_bench_tells_what_is_wrong(plane):
    """A case that cannot end well does not pass: what the others show is worth as much."""
    create = FLOWS[0]
    async with opened(plane) as bench:
        wanted, writes = await bench.undisturbed(create)
        wrong = {**wanted, "live": [1, 2]}
        (failure,) = await bench.failures(create, [Trial("nothing", Brief)], wrong)

    assert writes > 10
    assert "live is [1, 1], not [1, 2]" in failure


class Brief(Fault):
    """No fault, and little patience."""

    lasts = -55.0
