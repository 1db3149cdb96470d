"""Infer requests of the usual form: read without an array each, and answered by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from slipway_runtime.dataplane import DataPlane, Outcome, PackedWork, Work
from slipway_runtime.errors import SlipwayRuntimeError
from slipway_runtime.http.answers import answer_to
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.protocol.answers import AnswerWriter
from slipway_runtime.protocol.packing import Packer


class UsualInfer:
    """Takes what `Packer` can read to the dataplane, and its answers back."""

    def __init__(self, packer: Packer, plane: DataPlane, writer: AnswerWriter) -> None:
        self._packer = packer
        self._plane = plane
        self._writer = writer

    def take(self, exchange: Exchange, document: dict[str, Any]) -> bool:
        """Have a request answered, if it is of the usual form.

        Raises:
            Overloaded: If the queue is full.
        """
        matrix = self._packer.matrix
        packed = self._packer.pack(document)
        if packed is None or matrix is None:
            return False
        exchange.answer_id = packed.id
        exchange.work = work = PackedWork(packed, matrix, self, exchange, exchange.deadline)
        work.timeline = exchange.timeline
        self._plane.enqueue(work)
        return True

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
        for work, exchange, body in zip(works, exchanges, bodies, strict=True):
            if work.sink is not None:
                exchange.finish_with(body)
