"""Infer requests of the usual form: read without an array each, and answered by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import orjson

from slipway_runtime.dataplane import DataPlane, Outcome, PackedWork, Work
from slipway_runtime.errors import SlipwayRuntimeError
from slipway_runtime.http.answers import Answer, answer_to
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.metrics import Metrics
from slipway_runtime.protocol.answers import AnswerWriter
from slipway_runtime.protocol.packing import LARGE, Packed, Packer


class UsualInfer:
    """Takes what `Packer` can read to the dataplane, and its answers back."""

    def __init__(self, packer: Packer, plane: DataPlane, writer: AnswerWriter, metrics: Metrics) -> None:
        self._packer = packer
        self._row_shape = packer.matrix.shape[1:] if packer.matrix is not None else ()
        self._plane = plane
        self._writer = writer
        self._metrics = metrics

    def take_body(self, exchange: Exchange) -> bool:
        """As `take`, for a request of which only the body is left to look at."""
        body = exchange.body
        exchange.endpoint = "infer"
        try:
            if len(body) >= LARGE:
                return self.take_large(exchange, body)
            document = orjson.loads(body)
            return type(document) is dict and self.take(exchange, document)
        except (orjson.JSONDecodeError, SlipwayRuntimeError):
            return False  # the long way knows what to say

    def take_large(self, exchange: Exchange, body: bytes) -> bool:
        """As `take`, for the bytes of a large body.

        Raises:
            Overloaded: If the queue is full.
        """
        packed = self._packer.pack_large(body)
        if packed is not None:
            self._enqueue(exchange, packed)
        return packed is not None

    def take(self, exchange: Exchange, document: dict[str, Any]) -> bool:
        """Have a request answered, if it is of the usual form.

        Raises:
            Overloaded: If the queue is full.
        """
        packed = self._packer.pack(document)
        if packed is not None:
            self._enqueue(exchange, packed)
        return packed is not None

    def _enqueue(self, exchange: Exchange, packed: Packed) -> None:
        exchange.answer_id = packed.id
        exchange.work = work = PackedWork(packed, self._row_shape, self, exchange, exchange.deadline)
        work.timeline = exchange.timeline
        self._plane.enqueue(work)

    def settle(self, works: Sequence[Work], outcome: Outcome) -> None:
        """Answer the requests of one run."""
        exchanges: list[Exchange] = [work.caller for work in works]
        if isinstance(outcome, SlipwayRuntimeError):
            for exchange in exchanges:
                exchange.finish(answer_to(outcome))
            return
        sizes = [work.rows for work in works]
        ids = [orjson.dumps(exchange.answer_id or exchange.request_id) for exchange in exchanges]
        bodies = self._writer.write_batch(sizes, ids, outcome)
        ended = perf_counter()
        seconds = []
        for work, exchange, body in zip(works, exchanges, bodies, strict=True):
            if work.sink is not None:
                exchange.work = None
                if exchange.carrier.deliver_alone(exchange, body, ended):
                    seconds.append(ended - exchange.started)
                else:
                    exchange.finish(Answer(200, body))
        self._metrics.answered_together(exchanges[0].endpoint, 200, seconds)
