"""What runs together, in which order, and what one request can do to another."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter, sleep

import numpy as np
import pytest

from slipway_runtime.dataplane import DataPlane, PlaneLimits, Work
from slipway_runtime.errors import EngineFailed, Impatient, Overloaded, Refused, TooLate, Unavailable
from slipway_runtime.metrics import Metrics


class Doubling:
    """An engine that doubles, notes what ran where, and can be held up or broken."""

    waits = False

    def is_ready(self):
        return True

    def __init__(self):
        self.runs = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()

    def run(self, feeds):
        array = feeds["x"]
        if len(array) > 100:
            assert self.gate.wait(10)
        if (array == 13).any():
            raise Refused("thirteen")
        if (array == 99).any():
            raise ValueError("a secret of the inside")
        self.runs.append(len(array))
        self.threads.add(threading.current_thread().name)
        return [array * 2]


@pytest.fixture
def engine():
    return Doubling()


def plane_for(engine, *, batched=True, **limits):
    return DataPlane(engine, Metrics("m", "v"), batched=batched, limits=PlaneLimits(**limits))


def column(*values):
    return np.array(values, np.float32).reshape(-1, 1)


def asked(plane, array):
    """Submit rows; gives a future of the outcome."""
    future = asyncio.get_running_loop().create_future()
    work = plane.submit({"x": array}, len(array), future.set_result)
    return future, work


async def answers(*futures):
    outcomes = await asyncio.wait_for(asyncio.gather(*futures), 10)
    return [outcome if isinstance(outcome, Exception) else outcome[0].ravel().tolist() for outcome in outcomes]


async def test_one_turn_runs_together_and_each_gets_its_own(engine):
    plane = plane_for(engine)
    futures = [asked(plane, column(*range(start, start + 3)))[0] for start in (0, 10, 20)]

    assert await answers(*futures) == [[0, 2, 4], [20, 22, 24], [40, 42, 44]]
    assert engine.runs == [9]
    assert plane.is_idle


async def test_batches_are_capped_by_rows(engine):
    plane = plane_for(engine, batch_rows=4)
    futures = [asked(plane, column(*range(count)))[0] for count in (3, 1, 2, 2, 6, 1)]

    await answers(*futures)

    assert engine.runs == [4, 4, 6, 1]


async def test_shapes_do_not_mix(engine):
    plane = plane_for(engine)
    narrow, wide = column(1), np.ones((2, 2), np.float32)

    assert await answers(*(asked(plane, array)[0] for array in (narrow, wide, narrow))) == [[2], [2] * 4, [2]]
    assert sorted(engine.runs) == [2, 2]


async def test_a_model_without_a_row_dimension_is_not_batched(engine):
    plane = plane_for(engine, batched=False)

    await answers(*(asked(plane, column(value))[0] for value in (1, 2, 3)))

    assert engine.runs == [1, 1, 1]


async def test_a_failure_stays_with_its_request(engine):
    plane = plane_for(engine)
    good, refused, broken, other = await answers(*(asked(plane, column(value))[0] for value in (1, 13, 99, 4)))

    assert (good, other) == ([2], [8])
    assert isinstance(refused, Refused)
    assert isinstance(broken, EngineFailed)
    assert "secret" not in broken.message


async def test_a_long_run_keeps_neither_the_loop_nor_short_ones_waiting(engine):
    plane = plane_for(engine)
    engine.gate.clear()
    long, _ = asked(plane, column(*[1] * 100_000))  # predicted to take longer than the loop may be kept
    await asyncio.sleep(0)
    short, _ = asked(plane, column(1))

    assert await answers(short) == [[2]]
    assert not long.done()
    engine.gate.set()
    await answers(long)
    assert engine.threads == {"MainThread", "slipway-engine_0"}
    plane.close()


async def test_what_arrives_for_a_busy_worker_runs_together_next(engine):
    plane = plane_for(engine, loop_seconds=0.0)
    engine.gate.clear()
    first, _ = asked(plane, column(*[1] * 101))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = []
    for value in (1, 2, 3):
        later.append(asked(plane, column(value))[0])
        await asyncio.sleep(0)
    engine.gate.set()

    assert await answers(*later) == [[2], [4], [6]]
    assert engine.runs == [101, 3]
    assert first.done()
    plane.close()


@pytest.mark.parametrize(
    "limits",
    [pytest.param({"queue_requests": 2}, id="requests"), pytest.param({"queue_rows": 5}, id="rows")],
)
async def test_a_full_queue_refuses_and_recovers(engine, limits):
    plane = plane_for(engine, **limits)
    taken = [asked(plane, column(1, 2))[0] for _ in range(2)]

    with pytest.raises(Overloaded):
        asked(plane, column(1, 2))
    await answers(*taken)
    assert await answers(asked(plane, column(3))[0]) == [[6]]


async def test_cancelled_work_does_not_run(engine):
    plane = plane_for(engine)
    kept, _ = asked(plane, column(1))
    dropped, work = asked(plane, column(2))
    work.cancel()

    assert await answers(kept) == [[2]]
    assert engine.runs == [1]
    assert not dropped.done()
    assert plane.is_idle


async def test_an_answer_that_cannot_be_delivered_harms_no_other(engine, caplog):
    plane = plane_for(engine)

    def broken(_):
        raise RuntimeError("gone")

    plane.submit({"x": column(1)}, 1, broken)
    assert await answers(asked(plane, column(2))[0]) == [[4]]
    assert "could not be written" in caplog.text


async def test_work_whose_deadline_has_passed_is_dropped(engine):
    plane = plane_for(engine)
    loop = asyncio.get_running_loop()
    kept, late = loop.create_future(), loop.create_future()
    now = perf_counter()
    plane.submit({"x": column(1)}, 1, kept.set_result, deadline=now + 60)
    plane.submit({"x": column(2)}, 1, late.set_result, deadline=now - 0.001)

    assert await answers(kept) == [[2]]
    assert isinstance(await late, Impatient)
    assert engine.runs == [1]
    assert plane.is_idle


@pytest.mark.parametrize(("patience", "error"), [(1.0, Impatient), (0.0, TooLate)])
async def test_what_waits_behind_a_long_run_is_dropped_when_its_time_has_come(engine, patience, error):
    plane = plane_for(engine, loop_seconds=0.0)
    plane.patience = patience
    engine.gate.clear()
    long, _ = asked(plane, column(*[1] * 101))
    await asyncio.sleep(0.01)
    late = asyncio.get_running_loop().create_future()
    plane.submit({"x": column(2)}, 1, late.set_result, deadline=perf_counter() + 0.01)
    await asyncio.sleep(0.05)
    engine.gate.set()

    assert isinstance(await asyncio.wait_for(late, 10), error)
    await answers(long)
    assert engine.runs == [101]
    plane.close()


async def test_patience_grows_with_what_the_examples_took_and_with_the_rows(engine, monkeypatch):
    run = engine.run

    def slowly(feeds):
        sleep(0.12)
        return run(feeds)

    monkeypatch.setattr(engine, "run", slowly)
    plane = plane_for(engine)
    assert plane.patience == 1
    plane.warm_up({"x": column(1, 2)}, 2)
    begun = perf_counter()
    (few, one), (many, other) = asked(plane, column(1)), asked(plane, column(*range(20)))

    assert plane.patience > 1.2
    assert one.overdue - begun > plane.patience + 0.6
    assert other.overdue - one.overdue == pytest.approx(19 * plane.patience / 2)
    await answers(few, many)


async def test_an_answer_that_cannot_be_written_is_an_error_for_who_waits(engine, caplog):
    plane = plane_for(engine)
    told = []

    def broken(outcome):
        told.append(outcome)
        assert isinstance(outcome, Exception), "another number of rows"

    class Broken:
        def settle(self, works, outcome):
            told.extend(type(outcome) for _ in works)
            assert isinstance(outcome, Exception), "another shape"

    plane.submit({"x": column(1)}, 1, broken)
    assert await answers(asked(plane, column(2))[0]) == [[4]]
    assert isinstance(told.pop(), EngineFailed)

    told.clear()
    sink = Broken()
    for _ in range(2):
        work = Work({"x": column(1)}, 1, lambda _: None)
        work.done, work.sink = None, sink
        plane.enqueue(work)
    assert await answers(asked(plane, np.ones((1, 2), np.float32))[0]) == [[2, 2]]
    assert told == [list, list, EngineFailed, EngineFailed]
    assert failures(plane) == {"EngineFailed": 3}
    assert "could not be written" in caplog.text


async def test_a_large_request_keeps_no_small_one_of_its_turn_from_the_loop(engine):
    plane = plane_for(engine)
    engine.gate.clear()
    long, _ = asked(plane, column(*[1] * 100_000))
    short, _ = asked(plane, column(1))

    assert await answers(short) == [[2]]
    assert not long.done()
    engine.gate.set()
    await answers(long)
    plane.close()


async def test_failures_are_counted_by_the_request(engine):
    plane = plane_for(engine)
    engine.run = lambda _: raised(Unavailable("away"))
    first = [asked(plane, column(value))[0] for value in range(5)]
    late = asyncio.get_running_loop().create_future()
    plane.submit({"x": column(2)}, 1, late.set_result, deadline=perf_counter() - 0.001)
    _, gone = asked(plane, column(3))
    gone.cancel()
    await answers(*first, late)

    assert failures(plane) == {"Unavailable": 5, "Impatient": 1}


async def test_another_number_of_rows_is_no_answer(engine):
    engine.run = lambda _: [np.ones(3, np.float32)]
    plane, free = plane_for(engine), plane_for(engine, batched=False)

    (refused,) = await answers(asked(plane, column(1))[0])
    assert isinstance(refused, EngineFailed)
    assert await answers(asked(free, column(1))[0]) == [[1, 1, 1]]


def raised(error):
    raise error


def failures(plane):
    counted = plane._metrics.state()["slipway_failures_total"]
    return {labels.split('"')[1]: numbers[0] for labels, numbers in counted.items()}


async def test_what_waits_is_passed_by_smaller_requests_and_not_by_its_like(engine):
    plane = plane_for(engine, loop_seconds=0.005)
    plane._cost_fixed, plane._cost_row = 0.0, 1e-3
    engine.gate.clear()
    long, _ = asked(plane, column(*[1] * 101))
    await asyncio.sleep(0.01)
    waiting, _ = asked(plane, column(*[2] * 20))
    await asyncio.sleep(0.01)
    like, _ = asked(plane, column(*[3] * 20))
    smaller, _ = asked(plane, column(4, 4))
    one, _ = asked(plane, column(5))
    plane._cost_row = 1e-4  # now all of them could run on the loop
    await asyncio.sleep(0.01)

    assert [each.done() for each in (waiting, like, smaller, one)] == [False, False, True, True]
    engine.gate.set()
    await answers(long, waiting, like)
