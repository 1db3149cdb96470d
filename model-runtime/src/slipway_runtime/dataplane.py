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
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, thread_time

import numpy as np

from slipway_runtime.engines.base import Engine
from slipway_runtime.errors import EngineFailed, Overloaded, Refused, SlipwayRuntimeError
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.watching import Timeline
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.tensors import Array

_log = logging.getLogger(__name__)

Outcome = list[Array] | SlipwayRuntimeError
"""Outputs in the signature's order, or why there are none."""


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

    __slots__ = ("done", "feeds", "key", "rows", "timeline")

    def __init__(self, feeds: Feeds, rows: int, done: Callable[[Outcome], None]) -> None:
        self.feeds = feeds
        self.rows = rows
        if len(feeds) == 1:
            (array,) = feeds.values()
            self.key = array.shape[1:]
        else:
            self.key = tuple([array.shape[1:] for array in feeds.values()])
        self.done: Callable[[Outcome], None] | None = done
        self.timeline: Timeline | None = None

    def cancel(self) -> None:
        """Nobody waits for the answer any more; it will not run if it has not yet."""
        self.done = None


class DataPlane:
    """Batches requests for one engine. All methods belong to the event loop's thread."""

    def __init__(
        self, engine: Engine, metrics: Metrics, *, batched: bool = True, limits: PlaneLimits | None = None
    ) -> None:
        """Prepare.

        Args:
            engine: What computes.
            metrics: Where runs are counted.
            batched: Whether rows of several requests fit into one run.
            limits: Bounds; None: the defaults.
        """
        self._engine = engine
        self._metrics = metrics
        self._limits = limits or PlaneLimits()
        self._batch_rows = self._limits.batch_rows if batched else 1
        self._turn: list[Work] = []
        self._waiting: deque[Work] = deque()
        self._queued_rows = 0
        self._worker: ThreadPoolExecutor | None = None
        self._busy = False
        # Seconds of a run = fixed + rows * each; both learned, neither trusted for long.
        self._cost_fixed = 20e-6
        self._cost_row = 5e-6

    def learn(self, rows: int, seconds: float) -> None:
        """Take the processor time of a run into account when the next one's is predicted."""
        if rows <= 4:
            self._cost_fixed += 0.1 * (seconds - self._cost_fixed)
        else:
            each = max(seconds - self._cost_fixed, 0.0) / rows
            self._cost_row += 0.1 * (each - self._cost_row)

    def warm_up(self, feeds: Feeds, rows: int) -> None:
        """Run a few times before the first request: code and caches warm, and the time of a run known."""
        one = {name: array[:1] for name, array in feeds.items()}
        for some, count in ((feeds, rows), (one, 1)):
            fastest = min(self._timed(some) for _ in range(5))
            for _ in range(30):
                self.learn(count, fastest)

    def _timed(self, feeds: Feeds) -> float:
        start = thread_time()
        self._engine.run(feeds)
        return thread_time() - start

    def submit(
        self, feeds: Feeds, rows: int, done: Callable[[Outcome], None], timeline: Timeline | None = None
    ) -> Work:
        """Queue a request for the end of this turn.

        Args:
            feeds: The model's arrays, all of ``rows`` rows.
            rows: Their number.
            done: Called on this thread with the outcome, once, unless the work is cancelled.
            timeline: Of a request that is timed.

        Raises:
            Overloaded: If the queue is full.
        """
        limits = self._limits
        queued = len(self._turn) + len(self._waiting)
        # A request that is larger than the queue is taken when nothing else waits.
        if queued >= limits.queue_requests or (queued and self._queued_rows + rows > limits.queue_rows):
            raise Overloaded("too many requests are waiting; try again in a moment")
        work = Work(feeds, rows, done)
        if timeline is not None:
            timeline.parsed(rows)
            work.timeline = timeline
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._flush)
        self._turn.append(work)
        self._queued_rows += rows
        return work

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
        left = self._limits.loop_seconds
        for batch in self._batches(turn):
            rows = sum([work.rows for work in batch])
            left -= self._cost_fixed + rows * self._cost_row
            if left < 0:
                self._waiting.extend(batch)
            else:
                self._queued_rows -= rows
                self._settle(batch, self._compute(batch))
        self._feed_worker()

    def _batches(self, works: list[Work]) -> list[list[Work]]:
        """Group by shape, in order of arrival, each group capped by rows."""
        batches: list[list[Work]] = []
        open_batches: dict[object, tuple[list[Work], int]] = {}
        for work in works:
            if work.done is None:
                self._queued_rows -= work.rows
                continue
            batch, rows = open_batches.get(work.key, (None, 0))
            if batch is None or rows + work.rows > self._batch_rows:
                batch, rows = [], 0
                batches.append(batch)
            batch.append(work)
            open_batches[work.key] = (batch, rows + work.rows)
        return batches

    def _feed_worker(self) -> None:
        if self._busy or not self._waiting:
            return
        batches = self._batches(list(self._waiting))
        if not batches:
            self._waiting.clear()
            return
        batch = batches[0]
        taken = set(map(id, batch))
        self._waiting = deque(work for work in self._waiting if work.done is not None and id(work) not in taken)
        self._queued_rows -= sum([work.rows for work in batch])
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slipway-engine")
        self._busy = True
        loop = asyncio.get_running_loop()
        # Straight back to the loop: a future of asyncio's own would cost two more turns.
        self._worker.submit(self._compute_apart, loop, batch)

    def _compute_apart(self, loop: asyncio.AbstractEventLoop, batch: list[Work]) -> None:
        """Compute in the worker thread."""
        outcomes = self._compute(batch)
        try:
            loop.call_soon_threadsafe(self._return, batch, outcomes)
        except RuntimeError:
            _log.info("the loop ended before a run did")

    def _return(self, batch: list[Work], outcomes: Sequence[Outcome]) -> None:
        self._busy = False
        self._settle(batch, outcomes)
        self._feed_worker()

    def _settle(self, batch: list[Work], outcomes: Sequence[Outcome]) -> None:
        for work, outcome in zip(batch, outcomes, strict=True):
            if work.done is None:
                continue
            try:
                work.done(outcome)
            except Exception:  # noqa: BLE001 -- one answer must not take the others of its batch with it
                _log.exception("an answer could not be delivered")

    def _compute(self, batch: list[Work]) -> Sequence[Outcome]:
        """Run a batch; if it fails, each request alone, so that only the culprit gets the error."""
        try:
            return self._run(batch)
        except SlipwayRuntimeError as error:
            if len(batch) == 1:
                # What a caller's values bring about is counted, not logged: a log is no place for a flood.
                level = logging.DEBUG if isinstance(error, Refused) else logging.ERROR
                _log.log(level, "a run failed: %s", error.__cause__ or error)
                self._metrics.failed(type(error).__name__)
                return [error]
        except Exception:  # noqa: BLE001 -- an engine may raise anything; the worker must live on
            if len(batch) == 1:
                _log.exception("a run failed")
                self._metrics.failed(EngineFailed.__name__)
                return [EngineFailed("the model's engine failed")]
        return [outcome for work in batch for outcome in self._compute([work])]

    def _run(self, batch: list[Work]) -> Sequence[Outcome]:
        first = batch[0]
        if len(batch) == 1:
            feeds, rows = first.feeds, first.rows
        else:
            works = [work.feeds for work in batch]
            feeds = {name: np.concatenate([given[name] for given in works]) for name in first.feeds}
            rows = sum([work.rows for work in batch])
        start, start_worked = perf_counter(), thread_time()
        outputs = self._engine.run(feeds)
        self.learn(rows, thread_time() - start_worked)
        ended = perf_counter()
        self._metrics.ran(rows, ended - start, feeds, outputs)
        for work in batch:
            if work.timeline is not None:
                work.timeline.ran(start, ended)
        if len(batch) == 1:
            return [outputs]
        if any(output.shape[:1] != (rows,) for output in outputs):
            raise EngineFailed("the model gave another number of rows than it took")
        outcomes: list[Outcome] = []
        offset = 0
        for work in batch:
            end = offset + work.rows
            outcomes.append([output[offset:end] for output in outputs])
            offset = end
        return outcomes
