"""Recording requests with their answers, and truths that became known later, as Arrow batches.

A request that is recorded costs the loop an entry in a queue that is bounded by bytes; rows are
taken apart, encoded and written in a thread of its own. What there is no room for, and what the sink
does not take, is left out and counted. A column that is redacted does not reach the queue's other end.
"""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import nanoarrow as na  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import orjson
from nanoarrow.ipc import StreamWriter  # type: ignore[import-untyped]  # as above

from slipway_runtime.observing.background import Background
from slipway_runtime.observing.sinks import Sink
from slipway_runtime.observing.watching import Finished
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import Array

_log = logging.getLogger(__name__)

_BYTES = 64 << 20
_PIECE_ROWS = 20_000
_PIECE_BYTES = 16 << 20
_FLUSH_SECONDS = 5.0


class _Prediction(NamedTuple):
    at: int
    request_id: str
    feeds: dict[str, Array]
    outputs: Sequence[Array]
    offset: int
    rows: int
    weight: int


class _Truth(NamedTuple):
    at: int
    request_id: str
    values: Sequence[Any]
    weight: int


class Part(NamedTuple):
    """One column of a record."""

    name: str
    tensor: str
    """The input's; empty for an output."""
    place: int
    """Of the column in the tensor."""
    output: int


class Recorder:
    """Records for one model."""

    def __init__(
        self, parts: list[Part], content: str, sink: Sink, ratio: float, count: Callable[[str, int], None]
    ) -> None:
        """Prepare.

        Args:
            parts: The columns that are recorded.
            content: Short digest of what answers.
            sink: Where records go.
            ratio: Share of the requests that is recorded.
            count: Takes what became of records (``written``, ``dropped``, ``failed``) and their number.
        """
        self._content = content
        self._sink = sink
        self._ratio = ratio
        self._credit = 0.0
        self._count = count
        self._parts = parts
        self._predictions: list[_Prediction] = []
        self._truths: list[_Truth] = []
        self._rows = 0
        self._weight = 0
        """Of what has gathered and is not written."""
        self._ending = False
        self._written_at = time.monotonic()
        self._background: Background[_Prediction | _Truth] = Background(
            self._gather, most=_BYTES, name="slipway-recording", keeps=lambda: self._weight
        )

    def __call__(self, finished: Finished) -> None:
        """Take a request that was answered."""
        timeline = finished.timeline
        feeds = timeline.feeds
        if feeds is None or finished.status != 200:
            return
        self._credit += self._ratio
        if self._credit < 1:
            return
        self._credit -= 1
        rows = timeline.rows
        begin, end = timeline.offset, timeline.offset + rows
        own = sum([_weight(array[begin:end]) for array in (*feeds.values(), *timeline.outputs)])
        # A batch's arrays are kept as a whole: where few of its requests are recorded, each stands for more of them.
        times = min(1 / self._ratio, next(iter(feeds.values())).shape[0] / max(1, rows))
        weight = 200 + int(times * own)
        identifier, now = finished.request.request_id, time.time_ns() // 1000
        entry = _Prediction(now, identifier, feeds, timeline.outputs, begin, rows, weight)
        if not self._background.put(entry, weight):
            self._count("dropped", 1)

    def take_truth(self, request_id: str, values: Sequence[Any]) -> bool:
        """Take what turned out to be true, for each row of a request; False: there is no room."""
        weight = 200 + 100 * len(values) + sum([len(value) for value in values if isinstance(value, str)])
        return self._background.put(_Truth(time.time_ns() // 1000, request_id, values, weight), weight)

    def close(self) -> None:
        """Write what waits, and end."""
        # By its own thread, so that a sink that is stuck keeps nobody from ending.
        self._ending = True
        self._background.close()

    def _gather(self, entries: list[_Prediction | _Truth]) -> None:
        for entry in entries:
            if isinstance(entry, _Prediction):
                self._predictions.append(entry)
                self._rows += entry.rows
            else:
                self._truths.append(entry)
            self._weight += entry.weight
            if self._rows >= _PIECE_ROWS or self._weight >= _PIECE_BYTES:
                self._write()
        if self._ending or time.monotonic() - self._written_at > _FLUSH_SECONDS:
            self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        self._rows = self._weight = 0
        predictions, self._predictions = self._predictions, []
        truths, self._truths = self._truths, []
        if predictions:
            self._give("predictions", len(predictions), lambda: self._encoded(predictions))
        if truths:
            self._give("feedback", len(truths), lambda: self._encoded_truths(truths))

    def _give(self, kind: str, number: int, encode: Callable[[], bytes]) -> None:
        try:
            self._sink.write(kind, encode())
        except Exception as error:  # noqa: BLE001 -- a sink may raise anything; records are not worth a pod
            _log.warning("%d records are lost: %s", number, error)
            self._count("failed", number)
        else:
            self._count("written", number)

    def _encoded(self, entries: list[_Prediction]) -> bytes:
        counts = [entry.rows for entry in entries]
        columns = {
            "at": _timestamps(np.repeat([entry.at for entry in entries], counts)),
            "request_id": _texts([entry.request_id for entry in entries for _ in range(entry.rows)]),
            "row": na.c_array(np.concatenate([np.arange(rows, dtype=np.int32) for rows in counts])),
            "content": _texts([self._content] * sum(counts)),
        }
        whole: dict[tuple[str, int], Array] = {}
        for part in self._parts:
            key = (part.tensor, part.output)
            if key not in whole:
                arrays = [entry.feeds[part.tensor] if part.tensor else entry.outputs[part.output] for entry in entries]
                ends = zip(entries, arrays, strict=True)
                joined = np.concatenate([array[entry.offset : entry.offset + entry.rows] for entry, array in ends])
                whole[key] = joined.reshape(len(joined), -1)
            columns[part.name] = _column(whole[key][:, part.place])
        return _stream(columns, sum(counts))

    def _encoded_truths(self, entries: list[_Truth]) -> bytes:
        counts = [len(entry.values) for entry in entries]
        columns = {
            "at": _timestamps(np.repeat([entry.at for entry in entries], counts)),
            "request_id": _texts([entry.request_id for entry in entries for _ in entry.values]),
            "row": na.c_array(np.concatenate([np.arange(rows, dtype=np.int32) for rows in counts])),
            "content": _texts([self._content] * sum(counts)),
            "truth": _texts([orjson.dumps(value).decode() for entry in entries for value in entry.values]),
        }
        return _stream(columns, sum(counts))


def _weight(array: Array) -> int:
    """Give about how many bytes an array holds, its strings by their letters."""
    if array.dtype.kind != "O":
        return array.nbytes
    return 60 * array.size + sum([len(value) for value in array.ravel().tolist() if isinstance(value, str)])


def recorded_parts(signature: Signature, redacted: frozenset[str]) -> list[Part]:
    """Name the columns of a record, without those that are redacted."""
    return _parts(signature, redacted)[0]


def unknown_columns(signatures: Sequence[Signature], redacted: frozenset[str]) -> list[str]:
    """Name what is to be redacted and is a column of no model."""
    return sorted(redacted.difference(*[_parts(signature, redacted)[1] for signature in signatures]))


def _parts(signature: Signature, redacted: frozenset[str]) -> tuple[list[Part], set[str]]:
    """Give the columns that are recorded, and every name that could be redacted."""
    parts: list[Part] = []
    known: set[str] = set()
    for spec in signature.inputs:
        for place, name in enumerate(_names(spec, signature.columns if signature.matrix is spec else ())):
            known.add(name)
            if name not in redacted and spec.name not in redacted:
                parts.append(Part(f"in.{name}", spec.tensor, place, -1))
        known.add(spec.name)
    for index, spec in enumerate(signature.outputs):
        classes = tuple(str(one) for one in signature.classes)
        width = spec.shape[1] if len(spec.shape) == 2 else 1
        names = [f"{spec.name}.{one}" for one in classes] if len(classes) == width > 1 else _names(spec, ())
        for place, name in enumerate(names):
            if name not in redacted and spec.name not in redacted:
                parts.append(Part(f"out.{name}", "", place, index))
        known |= {spec.name, *names}
    return parts, known


def _names(spec: TensorSpec, columns: tuple[str, ...]) -> list[str]:
    width = spec.shape[1] if len(spec.shape) == 2 else 1
    if width <= 1:
        return [columns[0] if columns else spec.name]
    return list(columns) if len(columns) == width else [f"{spec.name}[{place}]" for place in range(width)]


def _texts(values: Sequence[str | None]) -> Any:
    return na.c_array(values, na.string())


def _timestamps(values: Array) -> Any:
    return na.c_array_from_buffers(na.timestamp("us", timezone="UTC"), len(values), [None, values.astype("<i8")])


def _column(values: Array) -> Any:
    if values.dtype.kind == "O":
        return _texts([None if value is None else str(value) for value in values.tolist()])
    if values.dtype.kind == "b":
        return na.c_array(values.tolist(), na.bool_())
    return na.c_array(np.ascontiguousarray(values))


def _stream(columns: dict[str, Any], rows: int) -> bytes:
    """Write one batch as a stream of its own."""
    kinds = {name: column.schema for name, column in columns.items()}
    schema = na.struct({name: na.Schema(kind) for name, kind in kinds.items()})
    array = na.c_array_from_buffers(schema, rows, [None], children=list(columns.values()))
    raw = io.BytesIO()
    with StreamWriter.from_writable(raw) as writer:
        writer.write_array(array)
    return raw.getvalue()


def recorder_name() -> str:
    """Name who records: the pod, by its host name, and the process in it."""
    node = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in os.uname().nodename)
    return f"{node or 'pod'}-{os.getpid()}"
