"""What runs together, where, and in which order.

Batching without waiting: requests that arrived in one turn of the event loop run together, as
the loop calls `DataPlane._flush` at the end of that turn; nobody waits for a batch to fill.
Requests whose arrays have the same shapes beside their rows share a batch, up to a number of
rows.

A run is CPU bound. A short one is done on the loop's own thread, since handing it to another
costs more than it takes (30 to 60 µs against 10 to 20 for a linear model). A long one would
keep health checks and other requests waiting, so it goes to one worker thread, where ONNX
Runtime computes without the interpreter's lock. Which it will be is predicted from the processor
time of earlier runs; time on the clock would make runs look long on a busy machine, and keep
them in the worker, where they are longer indeed. While the worker is busy, what arrives for it
gathers and runs together next; short runs pass it by on the loop's thread, so that a large
request starves nobody.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any, Protocol

import numpy as np

from slipway_runtime.engines.base import Engine
from slipway_runtime.errors import (
    EngineFailed,
    Impatient,
    Overloaded,
    Refused,
    SlipwayRuntimeError,
    TooLarge,
    TooLate,
    Unavailable,
)
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.watching import Timeline
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.packing import Packed
from slipway_runtime.protocol.signature import TensorSpec
from slipway_runtime.protocol.tensors import Array

_log = logging.getLogger(__name__)

_NOT_WRITTEN = "the model's answer could not be written"
_PATIENCE_SECONDS = 1.0

Outcome = list[Array] | SlipwayRuntimeError
"""Outputs in the signature's order, or why there are none."""


Run = tuple[list["Work"], Outcome]
"""Works that ran together, and what came of it: whole outputs, with the works' rows in this order."""


@dataclass(frozen=True, slots=True)
class PlaneLimits:
    """Bounds on what waits and what runs."""

    batch_rows: int = 64
    queue_requests: int = 1024
    queue_rows: int = 262_144
    loop_seconds: float = 0.002
    """How long the runs of one turn may keep the loop's thread."""


class Work:
    """One request on its way through the engine."""

    __slots__ = ("caller", "deadline", "done", "feeds", "key", "overdue", "packed", "rows", "sink", "timeline")

    def __init__(self, feeds: Feeds, rows: int, done: Callable[[Outcome], None], deadline: float = math.inf) -> None:
        self.feeds = feeds
        self.packed = b""
        self.rows = rows
        if len(feeds) == 1:
            (array,) = feeds.values()
            self.key = array.shape[1:]
        else:
            self.key = tuple([array.shape[1:] for array in feeds.values()])
        self.done: Callable[[Outcome], None] | None = done
        self.timeline: Timeline | None = None
        self.sink: Sink | None = None
        self.caller: Any = None
        """Whatever the sink needs to find its way back."""
        self.deadline = deadline
        """When the answer is of no use any more, on `perf_counter`'s clock."""
        self.overdue = math.inf
        """Until when even a patient caller would wait: whoever leaves before has chosen to."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self.sink is not None or self.done is not None

    def cancel(self) -> None:
        """Nobody waits for the answer any more; it will not run if it has not yet."""
        self.done = self.sink = None


class PackedWork(Work):
    """A request whose rows are bytes already, laid out as the model's only input: it gets no array of its own.

    The bytes of a batch are joined and looked at as one array. That saves 1.5 µs a request: two
    NumPy calls to make an array, the look at its shape, and its part of the concatenation.
    """

    __slots__ = ()

    def __init__(self, packed: Packed, row: tuple[int, ...], sink: Sink, caller: Any, deadline: float) -> None:
        self.packed, self.rows, _ = packed
        self.key = row
        self.done = None
        self.sink = sink
        self.caller = caller
        self.timeline = None
        self.deadline = deadline
        self.overdue = math.inf


class Batch:
    """Works that will run together."""

    __slots__ = ("rows", "works")

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.rows = 0


def _tell(work: Work, outcome: Outcome) -> None:
    """Give one work its outcome, if it is still wanted."""
    if work.sink is not None:
        work.sink.settle([work], outcome)
    elif work.done is not None:
        work.done(outcome)


class Sink(Protocol):
    """Takes the outcome of a run back to all who wait for it, at once.

    What the requests of a batch have in common is done once: writing the numbers of 64 as JSON
    takes 0.1 µs each, of one by itself 2 µs.
    """

    def settle(self, works: Sequence[Work], outcome: Outcome) -> None:
        """Give each work that is still wanted its rows of the outputs, in this order, or the error."""
        ...


class DataPlane:
    """Batches requests for one engine. All methods belong to the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        batched: bool = True,
        limits: PlaneLimits | None = None,
        matrix: TensorSpec | None = None,
    ) -> None:
        """Prepare.

        Args:
            engine: What computes.
            metrics: Where runs are counted.
            batched: Whether rows of several requests fit into one run.
            limits: Bounds; None: the defaults.
            matrix: The model's only input, if it takes packed work.
        """
        self._matrix = matrix
        self._engine = engine
        self._metrics = metrics
        self._limits = limits or PlaneLimits()
        self._batched = batched
        self._batch_rows = self._limits.batch_rows if batched else 1
        self._loop_seconds = 0.0 if engine.waits else self._limits.loop_seconds
        self._turn: list[Work] = []
        self._turn_overdue = math.inf
        self._waiting: deque[Work] = deque()
        self._queued_rows = 0
        self._worker: ThreadPoolExecutor | None = None
        self._busy = False
        # Seconds of a run = fixed + rows * each; both learned, neither trusted for long.
        self._cost_fixed = 20e-6
        self._cost_row = 5e-6
        self.patience = _PATIENCE_SECONDS
        """Seconds that a caller can be expected to wait for a small request: less is a choice of the caller's."""
        self._patience_row = 0.0
        """The same for each row."""

    def learn(self, rows: int, seconds: float) -> None:
        """Take the processor time of a run into account when the next one's is predicted."""
        if rows <= 4:
            self._cost_fixed += 0.1 * (seconds - self._cost_fixed)
        else:
            each = max(seconds - self._cost_fixed, 0.0) / rows
            self._cost_row += 0.1 * (each - self._cost_row)

    def warm_up(self, feeds: Feeds, rows: int) -> None:
        """Run a few times before the first request: code and caches warm, and the time of a run known.

        As long as all of that took, some ten runs, a caller can be expected to wait.

        Raises:
            SlipwayRuntimeError: If the engine fails.
        """
        begun = perf_counter()
        one = {name: array[:1] for name, array in feeds.items()}
        for some, count in ((feeds, rows), (one, 1)) if self._batched else ((feeds, rows),):
            fastest = min(self._timed(some) for _ in range(5))
            for _ in range(30):
                self.learn(count, fastest)
        took = perf_counter() - begun
        self.patience, self._patience_row = max(_PATIENCE_SECONDS, took), took / rows

    def _timed(self, feeds: Feeds) -> float:
        start = thread_time()
        self._engine.run(feeds)
        return thread_time() - start

    def submit(
        self,
        feeds: Feeds,
        rows: int,
        done: Callable[[Outcome], None],
        timeline: Timeline | None = None,
        *,
        deadline: float = math.inf,
    ) -> Work:
        """Queue a request for the end of this turn.

        Args:
            feeds: The model's arrays, all of ``rows`` rows.
            rows: Their number.
            done: Called on this thread with the outcome, once, unless the work is cancelled.
            timeline: Of a request that is timed.
            deadline: When the answer is of no use any more, on `perf_counter`'s clock.

        Raises:
            Overloaded: If the queue is full.
        """
        work = Work(feeds, rows, done, deadline)
        work.timeline = timeline
        self.enqueue(work)
        return work

    def enqueue(self, work: Work) -> None:
        """Queue work for the end of this turn.

        Raises:
            Overloaded: If the queue is full.
        """
        limits, turn = self._limits, self._turn
        queued = len(turn) + len(self._waiting)
        # A request that is larger than the queue is taken when nothing else waits.
        if queued >= limits.queue_requests or (queued and self._queued_rows + work.rows > limits.queue_rows):
            raise Overloaded("too many requests are waiting; try again in a moment")
        if not turn:
            asyncio.get_running_loop().call_soon(self._flush)
            self._turn_overdue = perf_counter() + self.patience
        work.overdue = self._turn_overdue + work.rows * self._patience_row
        if work.timeline is not None:
            work.timeline.parsed(work.rows)
        turn.append(work)
        self._queued_rows += work.rows

    @property
    def is_ready(self) -> bool:
        """Whether the engine could be asked now."""
        return self._engine.is_ready()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not (self._turn or self._waiting or self._busy)

    def close(self) -> None:
        """Let the worker thread end."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _flush(self) -> None:
        turn, self._turn = self._turn, []
        if self._waiting:
            # Requests of several rows may pass what is larger; to pass their like would be to push in.
            least = max(2, min(work.rows for work in self._waiting))
            self._waiting.extend(work for work in turn if work.rows >= least)
            turn = [work for work in turn if work.rows < least]
        left = self._loop_seconds
        for batch in self._batches(turn):
            cost = self._cost_fixed + batch.rows * self._cost_row
            if cost > left:
                self._waiting.extend(batch.works)
            else:
                left -= cost
                self._queued_rows -= batch.rows
                self._settle(self._compute(batch.works))
        self._feed_worker()

    def _batches(self, works: Iterable[Work]) -> list[Batch]:
        """Group by shape, in order of arrival, each group capped by rows; drop what is of no use any more."""
        now = perf_counter()
        batches: list[Batch] = []
        last: dict[object, Batch] = {}
        for work in works:
            if not work.is_wanted or work.deadline < now:
                self._queued_rows -= work.rows
                late = Impatient if work.deadline < work.overdue else TooLate
                self._fail([work], late("the deadline passed before the model could run"))
                continue
            batch = last.get(work.key)
            if batch is None or batch.rows + work.rows > self._batch_rows:
                batch = last[work.key] = Batch()
                batches.append(batch)
            batch.works.append(work)
            batch.rows += work.rows
        return batches

    def _feed_worker(self) -> None:
        if self._busy or not self._waiting:
            return
        batches = self._batches(self._waiting)
        if not batches:
            self._waiting.clear()
            return
        batch = batches[0]
        self._waiting = deque(work for other in batches[1:] for work in other.works)
        self._queued_rows -= batch.rows
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slipway-engine")
        self._busy = True
        loop = asyncio.get_running_loop()
        # Straight back to the loop: a future of asyncio's own would cost two more turns.
        self._worker.submit(self._compute_apart, loop, batch.works)

    def _compute_apart(self, loop: asyncio.AbstractEventLoop, batch: list[Work]) -> None:
        """Compute in the worker thread."""
        runs = self._compute(batch)
        try:
            loop.call_soon_threadsafe(self._return, runs)
        except RuntimeError:
            _log.info("the loop ended before a run did")

    def _return(self, runs: list[Run]) -> None:
        self._busy = False
        self._settle(runs)
        self._feed_worker()

    def _settle(self, runs: list[Run]) -> None:
        """Give everybody what is theirs."""
        for works, outcome in runs:
            if isinstance(outcome, SlipwayRuntimeError):
                self._fail(works, outcome)
                continue
            sinks = {work.sink for work in works}
            if len(sinks) == 1 and (sink := sinks.pop()) is not None:
                try:
                    sink.settle(works, outcome)
                except Exception:  # noqa: BLE001 -- a bug must not take the loop with it
                    _log.exception("answers could not be written")
                    self._fail(works, EngineFailed(_NOT_WRITTEN))
                continue
            if len(works) == 1:
                self._give(works[0], outcome)
                continue
            offset = 0
            for work in works:
                end = offset + work.rows
                self._give(work, [output[offset:end] for output in outcome])
                offset = end

    def _give(self, work: Work, outcome: list[Array]) -> None:
        """Give a work its outputs; where that fails the error, as somebody waits for it."""
        try:
            _tell(work, outcome)
        except Exception:  # noqa: BLE001 -- one answer must not take the others of its batch with it
            _log.exception("an answer could not be written")
            self._fail([work], EngineFailed(_NOT_WRITTEN))

    def _fail(self, works: Sequence[Work], error: SlipwayRuntimeError) -> None:
        """Give the error to all of them who still wait, and count those."""
        for work in works:
            if not work.is_wanted:
                continue
            self._metrics.failed(type(error).__name__)
            try:
                _tell(work, error)
            except Exception:  # noqa: BLE001 -- as above
                _log.exception("an error could not be written")

    def _compute(self, batch: list[Work]) -> list[Run]:
        """Run a batch; if it fails, each request alone, so that only the culprit gets the error."""
        try:
            return [(batch, self._run(batch))]
        except SlipwayRuntimeError as error:
            # An engine that is away, or hangs, would keep each of them waiting in turn.
            if len(batch) == 1 or isinstance(error, (Unavailable, TooLate)):
                # What a caller's values bring about is counted, not logged: a log is no place for a flood.
                level = logging.DEBUG if isinstance(error, (Refused, TooLarge, Unavailable, TooLate)) else logging.ERROR
                _log.log(level, "a run failed: %s", error.__cause__ or error)
                return [(batch, error)]
        except Exception:  # noqa: BLE001 -- an engine may raise anything; the worker must live on
            if len(batch) == 1:
                _log.exception("a run failed")
                return [(batch, EngineFailed("the model's engine failed"))]
        return [run for work in batch for run in self._compute([work])]

    def _run(self, batch: list[Work]) -> list[Array]:
        """Compute a batch; gives all outputs, whole."""
        feeds, rows = self._feeds(batch)
        start, start_worked = perf_counter(), thread_time()
        outputs = self._engine.run(feeds)
        if self._batched:
            for output in outputs:
                if len(output) != rows:
                    raise EngineFailed("the model gave another number of rows than it took")
        self.learn(rows, thread_time() - start_worked)
        ended = perf_counter()
        self._metrics.ran(rows, ended - start, feeds, outputs)
        offset = 0
        for work in batch:
            if work.timeline is not None:
                work.timeline.ran(start, ended, feeds, outputs, offset)
            offset += work.rows
        return outputs

    def _feeds(self, batch: list[Work]) -> tuple[Feeds, int]:
        """Put the arrays of a batch together."""
        rows = sum([work.rows for work in batch])
        matrix = self._matrix
        if matrix is not None:
            packed = [work.packed for work in batch if work.packed]
            if len(packed) == len(batch):
                return {matrix.tensor: matrix.unpacked(b"".join(packed))}, rows
        if len(batch) == 1:
            return batch[0].feeds, rows
        arrays = [
            {matrix.tensor: matrix.unpacked(work.packed)} if matrix is not None and work.packed else work.feeds
            for work in batch
        ]
        feeds = {name: np.concatenate([given[name] for given in arrays]) for name in arrays[0]}
        return feeds, rows
