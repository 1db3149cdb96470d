"""What a connection sends: frames put together into few writes, and bodies within the client's windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from slipway_runtime.grpc import frames
from slipway_runtime.grpc.frames import END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, MAX_WINDOW, Broken, BrokenStream
from slipway_runtime.grpc.headers import Block, HeaderWriter

NOTHING = Block()
"""No fields: a stream that ends with its body."""


class Sending:
    """The sending half of one stream."""

    __slots__ = ("body", "finished", "id", "last", "window")

    def __init__(self, stream: int, window: int) -> None:
        self.id = stream
        self.window = window
        """Bytes that the client will take."""
        self.body: bytes | memoryview = b""
        """What waits for the window."""
        self.last: Block | None = None
        """The fields that follow the body when all of it has gone."""
        self.finished = False
        """Whether the stream's end has been written."""


class Outgoing:
    """Writes to one connection, in the order in which it is told to, once a turn of the loop."""

    __slots__ = (
        "_blocked",
        "_due",
        "_finished",
        "_loop",
        "_pieces",
        "_transport",
        "first_window",
        "frame",
        "headers",
        "window",
    )

    def __init__(self, transport: asyncio.Transport, finished: Callable[[Sending], None]) -> None:
        """Prepare.

        Args:
            transport: Where bytes go.
            finished: Called when the end of a stream has been written.
        """
        self._transport = transport
        self._finished = finished
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes | memoryview] = []
        self._due = False
        self._blocked: dict[int, Sending] = {}
        self.headers = HeaderWriter()
        self.window = frames.DEFAULT_WINDOW
        """Bytes that the client will take on all streams together."""
        self.first_window = frames.DEFAULT_WINDOW
        self.frame = frames.DEFAULT_FRAME
        """The largest payload that the client takes in one frame."""

    def write(self, *pieces: bytes | memoryview) -> None:
        """Send frames as they are."""
        self._pieces += pieces
        if not self._due:
            # At the end of this turn: the answers of one batch leave together.
            self._due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand what was written to the transport."""
        self._due = False
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()

    def head(self, stream: Sending, block: bytes) -> None:
        """Send the fields before a body."""
        self.write(frames.head(len(block) << 8 | frames.HEADERS, END_HEADERS, stream.id), block)

    def body(self, stream: Sending, payload: bytes, last: Block | None) -> None:
        """Send a part of a body as far as the windows allow, and keep the rest for later.

        Args:
            stream: Whose body it is.
            payload: Its bytes.
            last: The fields that end the stream, to follow the body; None: more will come.
        """
        size = len(payload)
        if size <= self.window and size <= stream.window and size <= self.frame and not stream.body:
            self.window -= size
            stream.window -= size
            self.write(frames.head(size << 8 | frames.DATA, 0, stream.id), payload)
            if last is not None:
                self._end(stream, last)
            return
        stream.body = b"".join((stream.body, payload)) if stream.body else memoryview(payload)
        stream.last = last
        self._blocked[stream.id] = stream
        self.pump(stream)

    def whole(self, stream: Sending, first: bytes, payload: bytes, last: Block) -> bool:
        """Send all of an answer at once, if the windows allow.

        Args:
            stream: Whose answer it is; nothing of it was sent before.
            first: The header block before the body, written just now.
            payload: The body.
            last: The fields that end the stream.
        """
        size = len(payload)
        if size > self.window or size > stream.window or size > self.frame:
            return False
        self.window -= size
        stream.window -= size
        block, number = self.headers.block(last), stream.id
        self.write(
            frames.head(len(first) << 8 | frames.HEADERS, END_HEADERS, number),
            first,
            frames.head(size << 8 | frames.DATA, 0, number),
            payload,
            frames.head(len(block) << 8 | frames.HEADERS, END_HEADERS | END_STREAM, number),
            block,
        )
        stream.finished = True
        self._finished(stream)
        return True

    def end(self, stream: Sending, last: Block) -> None:
        """End a stream once its body has gone."""
        if stream.body:
            stream.last = last
        else:
            self._end(stream, last)

    def _end(self, stream: Sending, last: Block) -> None:
        # Written down only now: what a header block means depends on all that went before it.
        if last is NOTHING:
            self.write(frames.frame(frames.DATA, END_STREAM, stream.id))
        else:
            block = self.headers.block(last)
            self.write(frames.head(len(block) << 8 | frames.HEADERS, END_HEADERS | END_STREAM, stream.id), block)
        stream.finished = True
        self._finished(stream)

    def drop(self, stream: Sending) -> None:
        """Forget what waits for a stream that is no more."""
        self._blocked.pop(stream.id, None)
        stream.body = b""
        stream.finished = True

    def pump(self, stream: Sending) -> None:
        """Send what a stream's and the connection's windows allow."""
        body = stream.body
        offset, end = 0, min(len(body), self.window, stream.window)
        while offset < end:
            part = body[offset : min(offset + self.frame, end)]
            self.write(frames.head(len(part) << 8 | frames.DATA, 0, stream.id), part)
            offset += len(part)
        if offset:
            self.window -= offset
            stream.window -= offset
            stream.body = body[offset:]
        if not stream.body:
            del self._blocked[stream.id]
            if stream.last is not None:
                self._end(stream, stream.last)

    def pump_all(self) -> None:
        """Send what the connection's window allows."""
        for stream in tuple(self._blocked.values()):
            if self.window <= 0:
                return
            self.pump(stream)

    def widen(self, size: int) -> None:
        """Take more bytes for the whole connection."""
        if self.window + size > MAX_WINDOW:
            raise Broken(FLOW_CONTROL_ERROR, "the connection's window is too large")
        self.window += size
        if self._blocked:
            self.pump_all()

    def widen_stream(self, stream: Sending, size: int) -> None:
        """Take more bytes for one stream."""
        if stream.window + size > MAX_WINDOW:
            raise BrokenStream(FLOW_CONTROL_ERROR)
        stream.window += size
        if stream.body:
            self.pump(stream)
