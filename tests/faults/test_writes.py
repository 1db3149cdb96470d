"""At every write of every flow something goes wrong; in the end it is as if nothing had."""

from __future__ import annotations

import asyncio
import functools

import pytest

from lab.flows import FLOWS, Bench, Fault, Flow, difference, numbers, opened, traced
from lab.proxy import Answer, Asked

SAMPLE = 2
"""Writes of a flow that are disturbed in the short run."""


class AtWrite(Fault):
    """Does something at one write, counted from the begin of the flow."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def answer(self, asked: Asked) -> Answer:
        if not asked.is_write:
            return Answer()
        self._left -= 1
        return self.at(asked) if self._left == 0 else Answer()

    def at(self, asked: Asked) -> Answer:
        del asked
        raise NotImplementedError


class KilledAfter(AtWrite):
    """The operator is killed when the write is done, before it has the answer."""

    _ended = False

    def at(self, asked: Asked) -> Answer:
        del asked
        self._ended = True
        return Answer("lose answer")

    async def done(self, asked: Asked) -> None:
        if self._ended and self.case is not None:
            self._ended = False
            self.case.crash()
        await super().done(asked)


class KilledBefore(AtWrite):
    """The operator is killed just before the write reaches the API server."""

    def at(self, asked: Asked) -> Answer:
        del asked
        if self.case is not None:
            self.case.crash()
        return Answer("lose")


class AnswerLost(AtWrite):
    """The write is done, and the connection breaks before the answer: the operator cannot know."""

    def at(self, asked: Asked) -> Answer:
        del asked
        return Answer("lose answer")


class Refused(AtWrite):
    """The API server refuses the write, once."""

    def __init__(self, number: int, status: int) -> None:
        super().__init__(number)
        self._status = status

    def at(self, asked: Asked) -> Answer:
        del asked
        headers = (("Retry-After", "1"),) if self._status == 429 else ()
        return Answer("refuse", self._status, headers)


class FailedButDone(AtWrite):
    """The API server says 500, and has done it all the same."""

    def at(self, asked: Asked) -> Answer:
        del asked
        return Answer("refuse answer", 500)


FAULTS = {
    "killed after the write": KilledAfter,
    "killed before the write": KilledBefore,
    "answer lost": AnswerLost,
    "409": lambda number: Refused(number, 409),
    "410": lambda number: Refused(number, 410),
    "429": lambda number: Refused(number, 429),
    "500": lambda number: Refused(number, 500),
    "500 but done": FailedButDone,
}


async def undisturbed(bench: Bench, flow: Flow):
    """What a flow ends in, and the number of its writes."""
    wanted, case = await bench.run(flow, Fault)
    assert case.wrong == []
    return wanted, len([w for w in case.script.writes if w.is_write])


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
async def test_a_fault_at_any_write_leads_to_the_same_end(plane, flow, everything, count):
    failures: list[str] = []

    async def case(what: str, number: int) -> None:
        try:
            seen, ended = await bench.run(flow, lambda: FAULTS[what](number), wanted=wanted)
        except TimeoutError as error:
            failures.append(f"{what}, write {number}: {error}")
            return
        failures.extend(f"{what}, write {number}: {wrong}" for wrong in ended.wrong)
        if seen != wanted:
            failures.append(f"{what}, write {number}: {difference(wanted, seen)}")

    with traced() as bugs:
        async with opened(plane) as bench:
            wanted, total = await undisturbed(bench, flow)
            cases = [(what, n) for what in FAULTS for n in numbers(total, all_of_them=everything, sample=SAMPLE)]
            await asyncio.gather(*(case(what, number) for what, number in cases))
    for what, _ in cases:
        count[what] += 1

    assert not failures + bugs, "\n".join(failures + bugs)


@pytest.mark.parametrize("flow", [f for f in FLOWS if f.name in {"create", "update", "rollback"}], ids=lambda f: f.name)
async def test_the_process_killed_at_a_write_goes_on_where_it_was(plane, flow, everything, count):
    """As installed, with kopf: a process that is killed, and another one after it."""
    if not everything and flow.name != "update":
        pytest.skip("in make test-faults")
    async with opened(plane) as bench:
        wanted, undisturbed_case = await bench.run(flow, Fault, process=True)
        total = len([w for w in undisturbed_case.script.writes if w.is_write])
        for number in numbers(total, all_of_them=everything, sample=1):
            kill = functools.partial(KilledAfter, number)
            seen, case = await bench.run(flow, kill, wanted=wanted, process=True, more=30)
            assert (seen, case.wrong) == (wanted, []), f"killed after write {number}"
            count["process killed"] += 1
