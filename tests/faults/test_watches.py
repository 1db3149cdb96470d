"""Watches that lose, delay, repeat or freeze, lists that are old, and a server that is away."""

from __future__ import annotations

import asyncio
import re

import pytest

from lab.flows import FLOWS, Case, Fault, difference, opened, traced
from lab.proxy import Answer, Asked
from slipway_operator.cluster.watching import SILENCE_SECONDS

OUTAGE_SECONDS = 60.0
SHORT_OUTAGE_SECONDS = 5.0
SHORT = ("rollback",)
"""Flows of the short run; those with Jobs wait for the operator's own clock at each step."""


class Losing(Fault):
    """Every third event is lost, and nothing tells of it."""

    _count = 0

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        del watch
        self._count += 1
        return [] if self._count % 3 == 0 and b'"BOOKMARK"' not in line else [line]


class Delaying(Fault):
    """Events come a second and a half late, behind what the operator has written meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[int, float] = {}

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        loop = asyncio.get_running_loop()
        # What came in one burst is late together: one sleep for each would be later and later.
        if loop.time() - self._passed.get(watch, 0) > 0.5:
            await asyncio.sleep(1.5)
        self._passed[watch] = loop.time()
        return [line]


class Repeating(Fault):
    """Every event comes again, and the one before it once more after it."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[int, bytes] = {}

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        before = self._last.get(watch)
        self._last[watch] = line
        return [line, *([before] if before is not None else []), line]


class Freezing(Fault):
    """The watches that are open say nothing more, and stay open."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: set[int] = set()

    def begin(self, case: Case) -> None:
        super().begin(case)
        self._frozen = set(self.watches)

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        return [] if watch in self._frozen else [line]


class OldLists(Fault):
    """The operator starts again, and each of its first lists is the one of the start: as of an API server behind."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, bytes] = {}
        self._given: set[str] = set()
        self._restarted = False

    def begin(self, case: Case) -> None:
        super().begin(case)
        case.crash()

    def listed(self, plural: str, text: bytes) -> bytes:
        if plural not in self._first:
            self._first[plural] = text
            if not self._restarted and len(self.writes) > 2 and self.case is not None:
                self._restarted = True
                self.case.crash()
            return text
        if plural in self._given:
            return text
        self._given.add(plural)
        return self._first[plural]


class Expired(Fault):
    """Every watch ends with 410 at its second event: all is to be listed again and again."""

    _count = 0

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        del watch
        self._count += 1
        gone = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
        return [gone] if self._count % 5 == 0 else [line]


class Away(Fault):
    """The API server is gone for a while, from the third write on."""

    seconds = SHORT_OUTAGE_SECONDS

    def answer(self, asked: Asked) -> Answer:
        if asked.is_write and len(self.writes) == 3:
            self.is_down = True
            self.broken.set()
            asyncio.get_running_loop().call_later(self.seconds, self._back)
            return Answer("lose")
        return Answer()

    def _back(self) -> None:
        self.is_down = False
        self.broken.clear()


class LongAway(Away):
    """As long as the issue asks."""

    seconds = OUTAGE_SECONDS


FAULTS = {
    "events lost": Losing,
    "events late": Delaying,
    "events repeated": Repeating,
    "watches frozen": Freezing,
    "watches expired": Expired,
    "lists old": OldLists,
    "server away": Away,
}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
async def test_what_the_operator_sees_may_be_wrong_for_a_while(plane, flow, everything, count):
    if not everything and flow.name not in SHORT:
        pytest.skip("in make test-faults")
    faults = {**FAULTS, **({"server away for 60 s": LongAway} if everything else {})}
    failures: list[str] = []

    async def case(what: str) -> None:
        try:
            seen, ended = await bench.run(flow, faults[what], wanted=wanted, more=_more(what))
        except TimeoutError as error:
            failures.append(f"{what}: {error}")
            return
        failures.extend(f"{what}: {wrong}" for wrong in ended.wrong)
        if seen != wanted:
            failures.append(f"{what}: {difference(wanted, seen)}")

    with traced() as bugs:
        async with opened(plane) as bench:
            wanted, undisturbed = await bench.run(flow, Fault)
            assert undisturbed.wrong == []
            await asyncio.gather(*(case(what) for what in faults))
    for what in faults:
        count[what] += 1

    assert not failures + bugs, "\n".join(failures + bugs)


def _more(what: str) -> float:
    """Seconds that a fault itself lasts, beside the 60 that follow it."""
    found = re.search(r"(\d+) s$", what)
    if found:
        return float(found[1])
    # A watch that says nothing is opened anew then; until that the operator only has its own clock.
    return SILENCE_SECONDS if what == "watches frozen" else SHORT_OUTAGE_SECONDS
