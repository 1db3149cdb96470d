"""A client of gRPC by another HTTP/2 implementation (the h2 library), which shows what the stock ones hide."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import numpy as np

from slipway_runtime.grpc.messages import message_class

INFER = "/inference.GRPCInferenceService/ModelInfer"
Request = message_class("inference.ModelInferRequest")
Answer = message_class("inference.ModelInferResponse")


class Reply:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.head: dict[str, str] = {}
        self.body = b""
        self.trailer: dict[str, str] = {}
        self.ended = False
        self.reset: int | None = None

    @property
    def code(self) -> int:
        return int((self.trailer or self.head)["grpc-status"])

    @property
    def message(self) -> str:
        return (self.trailer or self.head).get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        found, rest = [], self.body
        while rest:
            size = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


class Wire:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, updates: bool) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.updates = updates
        self.replies: dict[int, Reply] = {}
        self.goaways: list[tuple[int, int]] = []
        self.closed = False
        self.rest = b""
        self.held = False

    def flush(self) -> None:
        if not self.held:
            self.writer.write(self.h2.data_to_send())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Send all that is asked meanwhile in one piece, so that the server reads it in one turn."""
        self.held = True
        yield
        self.held = False
        self.flush()

    def call(self, path: str, message: bytes | None, end: bool = True, flag: int = 0, **fields: str) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here")]
        headers += [("te", "trailers"), ("content-type", "application/grpc")]
        headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.h2.send_headers(stream, headers, end_stream=message is None and end)
        if message is not None:
            body = bytes([flag]) + len(message).to_bytes(4, "big") + message
            for offset in range(0, len(body), 16_000):
                self.h2.send_data(stream, body[offset : offset + 16_000])
            if end:
                self.h2.end_stream(stream)
        self.replies[stream] = Reply()
        self.flush()
        return stream

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await self.read()

    async def read(self) -> None:
        data = await self.reader.read(65_536)
        if not data:
            self.closed = True
            if not self.goaways:
                raise ConnectionError("the server closed the connection")
            await asyncio.sleep(0.01)
            return
        self.rest += data
        while len(self.rest) >= 9 and len(self.rest) >= (size := 9 + int.from_bytes(self.rest[:3], "big")):
            one, self.rest = self.rest[:size], self.rest[size:]
            # To the h2 library a GOAWAY is the end; to gRPC's clients it is a request not to begin anything new.
            if one[3] == 7:
                self.goaways.append((int.from_bytes(one[13:17], "big"), int.from_bytes(one[9:13], "big")))
                continue
            for event in self.h2.receive_data(one):
                self.take(event)
        self.flush()

    def take(self, event: Any) -> None:
        reply = self.replies.get(getattr(event, "stream_id", None) or 0)
        if reply is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            reply.head = texts(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            reply.trailer = texts(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            reply.body += event.data
            if self.updates and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            reply.ended = True
        elif isinstance(event, h2.events.StreamReset):
            reply.reset = int(event.error_code)
            reply.ended = True

    async def reply(self, path: str, message: bytes | None, **fields: Any) -> Reply:
        stream = self.call(path, message, **fields)
        await self.until(lambda: self.replies[stream].ended)
        return self.replies[stream]


def texts(fields: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in fields}


@asynccontextmanager
async def wired(running: Any, *, updates: bool = True, window: int | None = None) -> AsyncIterator[Wire]:
    async with wired_to(running.server.grpc_port, updates=updates, window=window) as wire:
        yield wire


@asynccontextmanager
async def wired_to(port: int, *, updates: bool = True, window: int | None = None) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wire = Wire(reader, writer, updates=updates)
    wire.h2.initiate_connection()
    if window is not None:
        wire.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    wire.flush()
    try:
        yield wire
    finally:
        writer.close()


def rows(*values: tuple[float, float], raw: bool = True, **fields: Any) -> bytes:
    array = np.array(values, np.float32)
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": array.shape}
    if raw:
        fields.setdefault("raw_input_contents", [array.tobytes()])
    else:
        tensor["contents"] = {"fp32_contents": array.ravel().tolist()}
    given = {"model_name": "toy", "inputs": [tensor], **fields}
    written: bytes = Request(**given).SerializeToString()
    return written


def metric(running: Any, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", running.metrics.render().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0
