"""Workers: one task for each key, never two looks at once, and no look lost."""

from __future__ import annotations

import asyncio

import pytest

from slipway_operator.controllers.metrics import Metrics
from slipway_operator.controllers.workers import PARALLEL, SETTLE_SECONDS, Workers
from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.keys import Key

KEY, OTHER = Key("a", "x"), Key("b", "x")


async def until(condition, *, within=5.0):
    """Poll with a deadline."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def run():
    """Makes Workers and closes them."""
    made = []

    def make(reconcile):
        made.append(Workers(reconcile, Metrics(), kind="Test"))
        return made[-1]

    yield make
    for workers in made:
        await workers.close(grace=0.1)


async def test_a_ring_during_a_look_makes_another_look(run):
    started, go = [], asyncio.Event()

    async def reconcile(key):
        started.append(key)
        await go.wait()
        return 60.0

    workers = run(reconcile)
    workers.ring(KEY)
    await until(lambda: len(started) == 1)
    workers.ring(KEY)
    workers.ring(KEY)
    go.set()

    await until(lambda: len(started) == 2)


async def test_one_key_never_runs_twice_at_once_but_two_keys_do(run):
    running, most, together = set(), 0, 0
    go = asyncio.Event()

    async def reconcile(key):
        nonlocal most, together
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        await go.wait()
        running.discard(key)
        return 60.0

    workers = run(reconcile)
    for _ in range(5):
        workers.ring(KEY)
        workers.ring(OTHER)
    await until(lambda: len(running) == 2)
    go.set()
    await until(lambda: not running)

    assert most == 2


async def test_a_worker_ends_with_its_object_and_starts_again_with_it(run):
    looks = []

    async def reconcile(key):
        looks.append(key)

    workers = run(reconcile)
    workers.ring(KEY)
    await until(lambda: len(looks) == 1 and not workers.known())
    workers.ring(KEY)
    await until(lambda: len(looks) == 2)


@pytest.mark.parametrize("error", [ValueError("a bug"), Waiting("Busy", "m"), Waiting("Busy", "m", retry_after=0.01)])
async def test_a_look_that_fails_is_done_again(run, error):
    looks = []

    async def reconcile(key):
        looks.append(key)
        if len(looks) == 1:
            raise error
        return 60.0

    workers = run(reconcile)
    workers.ring(KEY)

    await until(lambda: len(looks) == 2)


async def test_closing_lets_a_look_end_and_starts_none(run):
    ended = []
    begun = asyncio.Event()

    async def reconcile(key):
        begun.set()
        await asyncio.sleep(0)
        ended.append(key)
        return 0.0

    workers = run(reconcile)
    workers.ring(KEY)
    await begun.wait()
    await workers.close(grace=1)
    count = len(ended)
    workers.ring(OTHER)

    assert count >= 1
    assert OTHER not in workers.known()
    assert not workers.known()


async def test_what_rings_during_the_wait_for_a_slot_is_seen_by_one_look(run):
    """After a start everything rings several times before it is looked at once."""
    looks, go = [], asyncio.Event()

    async def reconcile(key):
        looks.append(key)
        await go.wait()
        return 60.0

    workers = run(reconcile)
    for number in range(PARALLEL):
        workers.ring(Key("busy", str(number)))
    await until(lambda: len(looks) == PARALLEL)
    workers.ring(KEY)
    await asyncio.sleep(0)
    workers.ring(KEY)
    go.set()
    await until(lambda: KEY in looks)
    await asyncio.sleep(5 * SETTLE_SECONDS)

    assert looks.count(KEY) == 1
