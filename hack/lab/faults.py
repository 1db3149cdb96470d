"""What goes wrong between operator and API server in the cases of faults."""

# ruff: noqa: D102 - what each method is for is said where it is first: in `Script`, `Fault` and `AtWrite`

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from lab.proxy import Answer, Asked, Script
from slipway_operator.cluster.client import TIMEOUT_SECONDS
from slipway_operator.cluster.watching import SILENCE_SECONDS

if TYPE_CHECKING:
    from lab.cases import Case

OUTAGE_SECONDS = 60.0
SHORT_OUTAGE_SECONDS = 5.0
STALE_SECONDS = 3.0
READS_SECONDS = 15.0


class Fault(Script):
    """By itself none; it looks after each write whether predictions go on."""

    lasts = 0.0
    """Seconds that it takes by itself, beside the time in which all must be well again."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False
        self._case: Case | None = None

    @property
    def case(self) -> Case:
        """The case; there is one once it has begun."""
        if self._case is None:
            raise AssertionError("a fault before its case")
        return self._case

    def begin(self, case: Case) -> None:
        """The flow begins."""
        self.writes.clear()
        self._case, self.begun = case, True

    async def done(self, asked: Asked) -> None:
        """See that what is live has a pod."""
        if asked.plural in {"services", "deployments"}:
            await self.case.check_served(asked)


# ---- at one write


class AtWrite(Fault):
    """Does something at one write, counted from the begin of the flow; at 0, when the flow begins."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number
        self._now = False

    def answer(self, asked: Asked) -> Answer:
        if not asked.is_write:
            return Answer()
        self._left -= 1
        return self.at(asked) if self._left == 0 else Answer()

    def at(self, asked: Asked) -> Answer:
        """What happens to the write."""
        del asked
        self._now = True
        return Answer()

    async def done(self, asked: Asked) -> None:
        await super().done(asked)
        if self._now:
            self._now = False
            await self.after()

    async def after(self) -> None:
        """What happens once the write is done, and its answer on its way."""


class KilledAfter(AtWrite):
    """The operator is killed when the write is done, before it has the answer."""

    def begin(self, case: Case) -> None:
        super().begin(case)
        if self._left == 0:
            case.crash()

    def at(self, asked: Asked) -> Answer:
        super().at(asked)
        return Answer("lose answer")

    async def after(self) -> None:
        self.case.crash()


class KilledBefore(AtWrite):
    """The operator is killed just before the write reaches the API server."""

    def at(self, asked: Asked) -> Answer:
        del asked
        self.case.crash()
        return Answer("lose")


class Spoilt(AtWrite):
    """One write is answered in another way, or not at all."""

    def __init__(self, number: int, answer: Answer) -> None:
        super().__init__(number)
        self._answer = answer
        if answer.deed in {"hang", "hang answer"}:
            self.lasts = TIMEOUT_SECONDS

    def at(self, asked: Asked) -> Answer:
        del asked
        return self._answer


class Rough(Fault):
    """Every third write is refused with a 409, and after every fifth the operator is killed."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._last = False

    def answer(self, asked: Asked) -> Answer:
        if not asked.is_write:
            return Answer()
        self._count += 1
        self._last = self._count % 5 == 0
        if self._last:
            return Answer("lose answer")
        return Answer("refuse", 409) if self._count % 3 == 0 else Answer()

    async def done(self, asked: Asked) -> None:
        await super().done(asked)
        if self._last:
            self._last = False
            self.case.crash()


class Away(AtWrite):
    """The API server is gone for a while from a write on, and breaks all that is open."""

    def __init__(self, number: int, seconds: float) -> None:
        super().__init__(number)
        self.lasts = seconds

    def begin(self, case: Case) -> None:
        super().begin(case)
        if self._left == 0:
            self._go()

    def at(self, asked: Asked) -> Answer:
        del asked
        self._go()
        return Answer("lose")

    def _go(self) -> None:
        self.is_down = True
        self.broken.set()
        asyncio.get_running_loop().call_later(self.lasts, self._back)

    def _back(self) -> None:
        self.is_down = False
        self.broken.clear()


class OldLists(AtWrite):
    """The operator is killed, and for a while all lists of the next one are those of the begin: a server behind."""

    lasts = STALE_SECONDS

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._first: dict[str, bytes] = {}
        self._until: float | None = None

    def begin(self, case: Case) -> None:
        super().begin(case)
        # The next one asks for all lists, which are kept.
        case.crash()

    async def after(self) -> None:
        self._until = asyncio.get_running_loop().time() + STALE_SECONDS
        self.case.crash()

    def listed(self, plural: str, text: bytes) -> bytes:
        first = self._first.setdefault(plural, text)
        return first if self._until is not None and asyncio.get_running_loop().time() < self._until else text


class DeletedMeanwhile(AtWrite):
    """A person deletes the ModelDeployment while the operator writes for it."""

    def __init__(self, number: int, *, killed: bool = False) -> None:
        super().__init__(number)
        self._killed = killed

    async def done(self, asked: Asked) -> None:
        # What is on its way out need not answer.
        del asked
        if self._now:
            self._now = False
            await self.case.person.delete(self.case.ref)
            if self._killed:
                self.case.crash()


def _spoilt(deed: Deed, status: int = 500, *headers: tuple[str, str]) -> Callable[[int], Fault]:
    return lambda number: Spoilt(number, Answer(deed, status, headers))


Deed = Literal["lose answer", "refuse", "refuse answer", "hang", "hang answer"]
AT_WRITES: dict[str, Callable[[int], Fault]] = {
    "killed after the write": KilledAfter,
    "killed before the write": KilledBefore,
    "answer lost": _spoilt("lose answer"),
    "409": _spoilt("refuse", 409),
    "410": _spoilt("refuse", 410),
    "429": _spoilt("refuse", 429, ("Retry-After", "1")),
    "500": _spoilt("refuse", 500),
    "500 but done": _spoilt("refuse answer", 500),
    "server away for 5 s": lambda number: Away(number, SHORT_OUTAGE_SECONDS),
    "lists old after a restart": OldLists,
}
FOR_LONG: dict[str, Callable[[int], Fault]] = {
    "time-out": _spoilt("hang"),
    "time-out but done": _spoilt("hang answer"),
    "server away for 60 s": lambda number: Away(number, OUTAGE_SECONDS),
}
"""The operator waits most of the time."""
AT_BEGIN = frozenset({"killed after the write", "server away for 5 s", "server away for 60 s"})
"""Faults that may also come when nothing is written yet."""
DELETIONS: dict[str, Callable[[int], Fault]] = {
    "deleted at the write": DeletedMeanwhile,
    "deleted and killed at the write": lambda number: DeletedMeanwhile(number, killed=True),
}


# ---- of what the operator reads


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

    # Such a watch is opened anew then; until that the operator only has its own clock.
    lasts = SILENCE_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._frozen: set[int] = set()

    def begin(self, case: Case) -> None:
        super().begin(case)
        self._frozen = set(self.watches)

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        return [] if watch in self._frozen else [line]


class Expiring(Fault):
    """Every fifth event is a 410: all is to be listed again and again."""

    _count = 0

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        del watch
        self._count += 1
        gone = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'
        return [gone] if self._count % 5 == 0 else [line]


class ReadsFailing(Fault):
    """For a while, of every eight reads that are no watches, three are refused: 500, 429, 410."""

    lasts = READS_SECONDS

    _count = 0
    _until = 0.0

    def begin(self, case: Case) -> None:
        super().begin(case)
        self._until = asyncio.get_running_loop().time() + READS_SECONDS

    def answer(self, asked: Asked) -> Answer:
        if asked.method != "GET" or asyncio.get_running_loop().time() > self._until:
            return Answer()
        self._count += 1
        refused = {1: 500, 4: 429, 6: 410}.get(self._count % 8)
        return Answer("refuse", refused, (("Retry-After", "1"),)) if refused is not None else Answer()


OF_READS: dict[str, Callable[[], Fault]] = {
    "events lost": Losing,
    "events late": Delaying,
    "events repeated": Repeating,
    "watches frozen": Freezing,
    "watches expired": Expiring,
    "reads refused": ReadsFailing,
}


def sampled(kinds: int, writes: int, *, all_of_them: bool) -> Iterator[tuple[int, int]]:
    """Which fault, by its place, comes at which write: every one at each, or one at each in turn."""
    for number in range(1, writes + 1):
        for kind in range(kinds) if all_of_them else [(number - 1) % kinds]:
            yield kind, number
