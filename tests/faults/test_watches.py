"""Watches that lose, delay, repeat or freeze, and reads that are refused."""

from __future__ import annotations

import asyncio

from lab.bench import WAITING_AT_ONCE, Trial, opened
from lab.faults import OF_READS
from lab.flows import FLOWS
from lab.lives import traced

SHORT = ("rollback",)
"""Flows of the short run; those with Jobs wait for the operator's own clock at each step."""


async def test_what_the_operator_reads_may_be_wrong_all_the_time(plane, everything, count):
    flows = [flow for flow in FLOWS if everything or flow.name in SHORT]
    tried = [Trial(what, fault) for what, fault in OF_READS.items()]
    with traced() as bugs:
        async with opened(plane) as bench:

            async def failures_of(flow):
                wanted, _ = await bench.undisturbed(flow)
                return await bench.failures(flow, tried, wanted, at_once=WAITING_AT_ONCE)

            # Most of the time all of them wait, for the operator's own clock.
            found = await asyncio.gather(*map(failures_of, flows))
    for flow in flows:
        count(flow.name, (t.what for t in tried))
    failures = [failure for some in found for failure in some]

    assert not failures + bugs, "\n".join(failures + bugs)
