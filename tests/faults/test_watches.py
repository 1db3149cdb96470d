"""Watches that lose, delay, repeat or freeze, and reads that are refused."""

from __future__ import annotations

import pytest

from lab.bench import Trial, opened
from lab.faults import OF_READS
from lab.flows import FLOWS
from lab.lives import traced

SHORT = ("rollback",)
"""Flows of the short run; those with Jobs wait for the operator's own clock at each step."""


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
async def test_what_the_operator_reads_may_be_wrong_all_the_time(plane, flow, everything, count):
    if not everything and flow.name not in SHORT:
        pytest.skip("in make test-faults")
    tried = [Trial(what, fault) for what, fault in OF_READS.items()]
    with traced() as bugs:
        async with opened(plane) as bench:
            wanted, _ = await bench.undisturbed(flow)
            failures = await bench.failures(flow, tried, wanted)
    count(flow.name, (t.what for t in tried))

    assert not failures + bugs, "\n".join(failures + bugs)
