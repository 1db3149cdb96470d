"""A watch that is alive and deaf is found; a busy one is not blamed."""

from __future__ import annotations

import pytest

from slipway_operator.cluster.client import NotFoundError
from slipway_operator.controllers.freshness import (
    AGAIN_SECONDS,
    BEHIND_SECONDS,
    LOOK_SECONDS,
    Freshness,
    keep_comparing,
)
from slipway_operator.domain.errors import Waiting
from slipway_operator.domain.keys import Key

KEY = Key("airline", "flight-delay")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def freshness(clock):
    return Freshness(clock)


def look(freshness, clock, listed):
    clock.now += LOOK_SECONDS
    freshness.tick()
    return freshness.compare(listed)


def test_a_frozen_watch_is_found_rung_for_and_ends_the_process(freshness, clock):
    freshness.seen(KEY, "1")
    assert look(freshness, clock, {KEY: "2"}) == frozenset(), "it may be on its way"
    assert look(freshness, clock, {KEY: "2"}) == {KEY}
    assert freshness.is_alive()
    for _ in range(int(BEHIND_SECONDS / LOOK_SECONDS)):
        look(freshness, clock, {KEY: "2"})

    assert not freshness.is_alive()


def test_an_object_that_changes_all_the_time_is_no_sign(freshness, clock):
    for version in range(20):
        freshness.seen(KEY, str(version))
        assert look(freshness, clock, {KEY: str(version + 1)}) == frozenset()

    assert freshness.is_alive()


def test_a_quiet_cluster_is_no_sign(freshness, clock):
    freshness.seen(KEY, "1")
    for _ in range(20):
        look(freshness, clock, {KEY: "1"})

    assert freshness.is_alive()
    assert freshness.age == 0


def test_a_watch_that_comes_back_is_forgiven(freshness, clock):
    for _ in range(3):
        look(freshness, clock, {KEY: "2"})
    freshness.seen(KEY, "2")

    assert look(freshness, clock, {KEY: "2"}) == frozenset()
    assert freshness.age == 0


def test_a_loop_that_stands_still_ends_the_process(freshness, clock):
    clock.now += BEHIND_SECONDS + LOOK_SECONDS

    assert not freshness.is_alive()


def test_an_api_server_that_is_away_is_not_the_watch_s_fault(freshness, clock):
    for _ in range(20):
        clock.now += LOOK_SECONDS
        freshness.tick()
        freshness.pause()

    assert freshness.is_alive()


class Stop(BaseException):
    pass


async def compare(monkeypatch, freshness, clock, lists):
    """Run the endless loop over these answers of the API server."""
    answers = iter(lists)
    rung: list[Key] = []

    async def sleep(seconds):
        clock.now += seconds

    async def versions():
        answer = next(answers, None)
        if answer is None:
            raise Stop
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("slipway_operator.controllers.freshness.asyncio.sleep", sleep)
    with pytest.raises(Stop):
        await keep_comparing(freshness, versions, rung.append)
    return rung


async def test_what_a_frozen_watch_missed_is_rung_for(monkeypatch, freshness, clock):
    freshness.seen(KEY, "1")

    rung = await compare(monkeypatch, freshness, clock, [{KEY: "1"}, {KEY: "2"}, {KEY: "2"}, {KEY: "2"}])

    assert rung == [KEY, KEY]


async def test_what_was_missed_is_rung_for_soon(monkeypatch, freshness, clock):
    freshness.seen(KEY, "1")
    began = clock.now

    rung = await compare(monkeypatch, freshness, clock, [{KEY: "1"}, {KEY: "2"}, {KEY: "2"}])

    assert rung == [KEY]
    assert clock.now - began <= 3 * LOOK_SECONDS + AGAIN_SECONDS


async def test_what_always_changes_is_not_looked_at_all_the_time(monkeypatch, freshness, clock):
    began = clock.now

    rung = await compare(monkeypatch, freshness, clock, [{KEY: str(number)} for number in range(10)])

    assert rung == []
    assert clock.now - began >= 5 * LOOK_SECONDS


async def test_an_outage_of_the_api_server_does_not_end_the_process(monkeypatch, freshness, clock):
    await compare(monkeypatch, freshness, clock, [Waiting("ApiServerUnavailable", "m")] * 20)

    assert freshness.is_alive()


async def test_missing_kinds_end_the_process_so_that_it_looks_for_them_anew(monkeypatch, freshness, clock):
    await compare(monkeypatch, freshness, clock, [NotFoundError("no such kind")] * 6)

    assert not freshness.is_alive()
