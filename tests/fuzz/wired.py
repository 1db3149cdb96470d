"""Connections without a network, for bytes of a fuzzer: HTTP/1.1, HTTP/2, and the one to a worker.

Each input has a connection of its own, to one server with a real model. When it is over, nothing may
be left of it: no request in flight, no byte that is counted as arriving, no error in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import hpack
import numpy as np
from tests.unit.runtime.conftest import echo

from slipway_runtime.dataplane import PlaneLimits
from slipway_runtime.engines.worker import WorkerEngine
from slipway_runtime.errors import SlipwayRuntimeError
from slipway_runtime.grpc.calls import Head
from slipway_runtime.grpc.connection import Connection as GrpcConnection
from slipway_runtime.grpc.frames import PREFACE, frame
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.grpc.messages import message_class
from slipway_runtime.grpc.site import Site
from slipway_runtime.http.connection import Connection
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import load_model
from slipway_runtime.protocol.signature import read_signature
from slipway_runtime.server import Server, ServerOptions

FIELDS = hpack.Encoder().encode(
    [
        (":method", "POST"), (":scheme", "http"), (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "here"), ("te", "trailers"), ("content-type", "application/grpc"),
    ]
)  # fmt: skip
_COLUMNS = (("carrier", "BYTES", b"\x02\0\0\0UA"), ("distance", "FP32", bytes(4)), ("month", "INT64", bytes(8)))
MESSAGE: bytes = message_class("inference.ModelInferRequest")(
    model_name="toy",
    inputs=[{"name": name, "datatype": kind, "shape": [1, 1]} for name, kind, _ in _COLUMNS],
    raw_input_contents=[raw for _, _, raw in _COLUMNS],
).SerializeToString()
_BODY = b"\0" + struct.pack(">I", len(MESSAGE)) + MESSAGE
CALL = b"\x28" + PREFACE + frame(4, 0, 0) + frame(1, 4, 1, FIELDS) + frame(0, 1, 1, _BODY) + frame(6, 0, 0, bytes(8))
FRAMES = [
    b"".join(
        bytes((kind, flags, stream)) + struct.pack(">H", len(payload)) + payload for kind, flags, stream, payload in one
    )
    for one in (
        [(4, 0, 0, b""), (1, 4, 1, FIELDS), (0, 1, 1, _BODY)],
        [(4, 0, 0, b"\0\4\0\0\0\1"), (1, 0, 1, FIELDS[:9]), (9, 4, 1, FIELDS[9:]), (8, 0, 0, b"\0\1\0\0")],
        [(4, 0, 0, b""), (1, 5, 1, FIELDS), (3, 0, 1, bytes(4)), (2, 0, 3, bytes(5)), (7, 0, 0, bytes(8))],
    )
]  # fmt: skip
"""Frames as `Wired.frames` has them: type, flags, stream, and the length in two bytes."""
_SIGNATURE = {
    "inputs": [{"name": "a", "datatype": "FP64", "shape": [-1, 1]}],
    "outputs": [
        {"name": "twice", "datatype": "FP64", "shape": [-1]},
        {"name": "greeting", "datatype": "BYTES", "shape": [-1]},
    ],
    "columns": ["a"],
    "task": "regression",
}
WORKER_ANSWER = (
    json.dumps({
        "outputs": [
            {"name": "twice", "datatype": "FP64", "shape": [1], "size": 8},
            {"name": "greeting", "datatype": "BYTES", "shape": [1], "size": 5},
        ],
        "bytes": 13,
    }).encode()
    + b"\0"
    + bytes(8)
    + b"\x01\0\0\0x"
)  # fmt: skip


class Transport(asyncio.Transport):
    """Takes bytes and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Complaints(logging.Handler):
    """Remembers errors: what a connection catches and logs is a bug all the same."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


class Wired:
    """One server, and connections to it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._complaints = Complaints()
        logging.getLogger().addHandler(self._complaints)
        self._loop.set_exception_handler(lambda _, context: self._complaints.said.append(str(context)))
        self._folder = Path(tempfile.mkdtemp(prefix="slipway-fuzz-"))
        metrics = Metrics("toy", "v")
        options = echo().write(self._folder)
        options = type(options)(
            options.folder, "toy", "v", options.digest, max_rows=1000, plane=PlaneLimits(loop_seconds=1e9)
        )
        self._model = load_model(options, metrics)
        self._server = Server([self._model], metrics, ServerOptions())
        self._shared = self._server._shared
        self._site = Site([self._model], self._shared, GrpcLimits())
        self._server._ready(ready=True)
        self._site.ready(ready=True)
        self._engine = self._worker_engine()

    def meaning(self, fields: dict[bytes, bytes]) -> Head:
        """Read a request's fields as a connection does."""
        return self._site.meaning(fields)

    def http1(self, raw: bytes) -> None:
        """Send bytes in pieces, whose size the first one says."""
        self._run(self._talk(Connection(self._shared), raw[1:], (raw[0] if raw else 0) * 4 + 1))

    def http2(self, raw: bytes) -> None:
        """As `http1`; the preface is the fuzzer's too."""
        self._run(self._talk(GrpcConnection(self._site), raw[1:], (raw[0] if raw else 0) * 4 + 1))

    def frames(self, raw: bytes) -> None:
        """Send whole frames, of which the fuzzer need not know the lengths, after a good beginning."""
        sent, offset = [PREFACE], 0
        while len(raw) - offset >= 5:
            kind, flags, stream, length = struct.unpack_from(">BBBH", raw, offset)
            offset += 5
            sent.append(frame(kind, flags, stream, raw[offset : offset + length]))
            offset += length
        whole = b"".join(sent)
        self._run(self._talk(GrpcConnection(self._site), whole, len(whole)))

    async def _talk(self, connection: Any, raw: bytes, size: int) -> None:
        transport = Transport()
        connection.connection_made(transport)
        for offset in range(0, len(raw), size):
            if transport.closed:
                break
            connection.data_received(raw[offset : offset + size])
            await asyncio.sleep(0)  # what was read runs, and its answers are written
        await asyncio.sleep(0)
        self._shared.now += 1.0
        connection.sweep(self._shared.now)
        connection.eof_received()
        connection.connection_lost(None)
        await asyncio.sleep(0)

    def _run(self, talk: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(talk)
        shared, metrics = self._shared, self._shared.metrics
        left = (len(shared.connections), metrics.connections, metrics.in_flight, shared.buffered)
        said, self._complaints.said = self._complaints.said, []
        if said:
            raise AssertionError(said[0])
        if left != (0, 0, 0, 0):
            raise AssertionError(f"connections, counted ones, requests in flight, bytes that arrive: {left}")

    def worker(self, raw: bytes) -> None:
        """Have the runtime ask a worker whose answer this is: the header up to a zero byte, and then tensors.

        An even first byte sends it as it is, without a length that is right.
        """
        answer = raw[1:]
        if raw and raw[0] & 1:
            header, _, body = answer.partition(b"\0")
            answer = b"SLW1" + struct.pack("<I", len(header)) + header + body
        ours, theirs = socket.socketpair()
        with theirs, contextlib.suppress(SlipwayRuntimeError):
            theirs.sendall(answer)
            theirs.shutdown(socket.SHUT_WR)
            self._engine._connection = ours
            try:
                self._engine.run({"a": np.ones((1, 1))})
            finally:
                self._engine._hang_up()
                ours.close()

    def _worker_engine(self) -> WorkerEngine:
        path = self._folder / "worker.sock"
        (self._folder / "short").write_bytes(bytes(5))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            return WorkerEngine(path, read_signature(json.dumps(_SIGNATURE).encode()), seconds=5, start_seconds=5)
