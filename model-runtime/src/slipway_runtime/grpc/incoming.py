"""What a client's frames do to a connection: the rules of HTTP/2 (RFC 9113, sections 5, 6 and 8).

Each violation ends the stream or the connection, as the RFC says. A client that keeps to the
rules but only makes work (floods of pings, settings, resets, continuations) is told to calm down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from slipway_runtime.grpc import frames
from slipway_runtime.grpc.calls import Call
from slipway_runtime.grpc.frames import Broken, BrokenStream
from slipway_runtime.grpc.headers import HeaderReader
from slipway_runtime.grpc.outgoing import Outgoing

if TYPE_CHECKING:
    from slipway_runtime.grpc.site import Site

GOODBYE = b"slipway\0"
"""Payload of the ping whose answer says that the client has read that it should go."""


class Incoming(asyncio.Protocol):
    """The receiving half of a connection, with all of its state."""

    __slots__ = (
        "_begun",
        "_block",
        "_calls",
        "_closing",
        "_continuations",
        "_credit",
        "_ended_here",
        "_final",
        "_given_up",
        "_last",
        "_leaving",
        "_noise",
        "_opened",
        "_reader",
        "_rest",
        "_since",
        "_started",
        "_transport",
        "_write_blocked_since",
        "out",
        "site",
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.out: Outgoing = cast("Outgoing", None)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._reader = HeaderReader(site.meaning, site.limits.header_bytes)
        self._calls: dict[int, Call] = {}
        self._ended_here: deque[int] = deque(maxlen=128)
        """Streams that ended here before the client had sent all: what still arrives on them is no offence."""
        self._rest = frames.PREFACE[:0]
        self._started = 0
        """0: the preface is due; 1: the first settings are; 2: anything may come."""
        self._block: tuple[int, int, bytes] | None = None
        """Stream, flags and beginning of a header block that is not complete."""
        self._continuations = 0
        self._last = 0
        """The newest stream that the client began."""
        self._credit = site.limits.connection_window
        self._begun = self._noise = self._given_up = 0
        self._since = self._opened = site.shared.now
        self._leaving = 0.0
        """When the client was told to go; 0: it may stay."""
        self._final = frames.MAX_WINDOW
        """The last stream that will be answered."""
        self._closing = False
        self._write_blocked_since = 0.0

    def _preface(self, data: bytes) -> int:
        preface = frames.PREFACE
        if not preface.startswith(data[: len(preface)]):
            raise Broken(frames.PROTOCOL_ERROR, "this port speaks HTTP/2 (gRPC)")
        if len(data) < len(preface):
            return 0
        self._started = 1
        return len(preface)

    def _frames(self, data: bytes, offset: int) -> bytes:
        """Take all whole frames; gives what is left."""
        if self._started == 0:
            return data
        end = len(data)
        while end - offset >= 9:
            high, low, kind, flags, stream = frames.read_head(data, offset)
            length = high << 8 | low
            if length > frames.DEFAULT_FRAME:
                raise Broken(frames.FRAME_SIZE_ERROR, "a frame is too large")
            begin = offset + 9
            if end - begin < length:
                break
            offset = begin + length
            try:
                self._frame(kind, flags, stream & 0x7FFF_FFFF, data[begin:offset])
            except BrokenStream as broken:
                self.reset(stream & 0x7FFF_FFFF, broken.code)
        return data[offset:] if offset < end else b""

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise Broken(frames.PROTOCOL_ERROR, "a header block is not complete")
        if self._started == 1:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise Broken(frames.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self._started = 2
        if kind == frames.DATA:
            self._on_data(stream, flags, payload)
        elif kind == frames.HEADERS:
            self._on_headers(stream, flags, payload)
        else:
            handler = _OTHERS.get(kind)
            if handler is None or kind != frames.WINDOW_UPDATE:
                self._make_noise()
            if handler is not None:
                handler(self, stream, flags, payload)

    def _make_noise(self) -> None:
        self._noise += 1
        if self._noise > self.site.limits.noise + 2 * self._begun:
            raise Broken(frames.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # Frames of calls.

    def _on_data(self, stream: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._credit -= size
        full = self.site.limits.connection_window
        if self._credit < 0:
            raise Broken(frames.FLOW_CONTROL_ERROR, "more was sent than the connection's window allows")
        if self._credit < full >> 1:
            self.out.write(frames.window_update(0, full - self._credit))
            self._credit = full
        call = self._calls.get(stream)
        if call is None or call.complete:
            self._on_closed(stream)
            return
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if size == 0 and not flags & frames.END_STREAM:
            self._make_noise()
        call.credit -= size
        if call.credit < 0:
            raise BrokenStream(frames.FLOW_CONTROL_ERROR)
        if flags & frames.END_STREAM:
            call.end(payload)
        else:
            if call.credit < self.site.limits.stream_window >> 1:
                self.out.write(frames.window_update(stream, self.site.limits.stream_window - call.credit))
                call.credit = self.site.limits.stream_window
            call.more(payload)

    def _on_closed(self, stream: int) -> None:
        """Take a frame for a stream that is not open."""
        if stream == 0 or (stream > self._last and stream <= self._final) or not stream & 1:
            raise Broken(frames.PROTOCOL_ERROR, "a frame for a stream that was not begun")
        self._make_noise()
        if stream not in self._ended_here and stream <= self._final:
            raise BrokenStream(frames.STREAM_CLOSED)

    def _on_headers(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream & 1:
            raise Broken(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise Broken(frames.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
            if int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF == stream:
                raise Broken(frames.PROTOCOL_ERROR, "a stream depends on itself")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_block(stream, flags, payload)
        else:
            self._block = (stream, flags, payload)
            self._continuations = 0

    def _on_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise Broken(frames.PROTOCOL_ERROR, "a CONTINUATION continues nothing")
        _, first_flags, begin = self._block
        block = begin + payload
        self._continuations += 1
        limits = self.site.limits
        if len(block) > limits.header_bytes or self._continuations > limits.continuations:
            raise Broken(frames.ENHANCE_YOUR_CALM, "the request's header is too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(stream, first_flags, block)
        else:
            self._block = (stream, first_flags, block)

    def _on_block(self, stream: int, flags: int, block: bytes) -> None:
        call = self._calls.get(stream)
        if call is not None and not call.complete:
            self._reader.trailer(block)
            if not flags & frames.END_STREAM:
                raise BrokenStream(frames.PROTOCOL_ERROR)
            call.end(b"")
            return
        if stream <= self._last or stream > self._final:
            self._reader.skip(block)
            if stream <= self._last and stream not in self._ended_here:
                raise Broken(frames.STREAM_CLOSED, "a stream was begun again")
            return
        self._last = stream
        self._begun += 1
        head = self._reader.request(block)
        limits = self.site.limits
        if len(self._calls) >= limits.streams:
            raise BrokenStream(frames.REFUSED_STREAM)
        self._since = self.site.shared.now
        call = self._calls[stream] = Call(self, stream, head)
        if flags & frames.END_STREAM:
            call.end(b"")

    def _on_reset(self, stream: int, _: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(frames.FRAME_SIZE_ERROR, "a RST_STREAM frame has 4 bytes")
        if stream == 0 or stream > self._last:
            raise Broken(frames.PROTOCOL_ERROR, "a stream that was not begun cannot be reset")
        call = self._calls.pop(stream, None)
        if call is not None:
            self.out.drop(call)
            call.cancel()
            self._given_up += 1
            if self._given_up > self.site.limits.resets and self._given_up * 2 > self._begun:
                raise Broken(frames.ENHANCE_YOUR_CALM, "too many calls were given up")
            self._close_if_done()

    # Frames of the connection.

    def _on_priority(self, stream: int, _: int, payload: bytes) -> None:
        if stream == 0:
            raise Broken(frames.PROTOCOL_ERROR, "the connection has no priority")
        if len(payload) != 5:
            raise BrokenStream(frames.FRAME_SIZE_ERROR)
        if int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF == stream:
            raise BrokenStream(frames.PROTOCOL_ERROR)

    def _on_settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream != 0:
            raise Broken(frames.PROTOCOL_ERROR, "settings are the connection's")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise Broken(frames.FRAME_SIZE_ERROR, "a SETTINGS frame has a wrong size")
        if flags & frames.ACK:
            return
        for key, value in frames.read_settings(payload):
            self._set(key, value)
        self.out.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.out.pump_all()

    def _set(self, key: int, value: int) -> None:
        out = self.out
        if key == frames.HEADER_TABLE_SIZE:
            out.headers.limit(value)
        elif key == frames.ENABLE_PUSH and value > 1:
            raise Broken(frames.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        elif key == frames.MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME <= value < 1 << 24:
                raise Broken(frames.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
            out.frame = min(value, 1 << 20)
        elif key == frames.INITIAL_WINDOW_SIZE:
            change = value - out.first_window
            if value > frames.MAX_WINDOW or any(call.window + change > frames.MAX_WINDOW for call in self._streams()):
                raise Broken(frames.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
            out.first_window = value
            for call in self._streams():
                call.window += change

    def _streams(self) -> tuple[Call, ...]:
        return tuple(self._calls.values())

    def _on_push(self, stream: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- as its neighbours
        raise Broken(frames.PROTOCOL_ERROR, "a client pushes nothing")

    def _on_ping(self, stream: int, flags: int, payload: bytes) -> None:
        if stream != 0:
            raise Broken(frames.PROTOCOL_ERROR, "pings are the connection's")
        if len(payload) != 8:
            raise Broken(frames.FRAME_SIZE_ERROR, "a PING frame has 8 bytes")
        if not flags & frames.ACK:
            self.out.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == GOODBYE and self._leaving:
            self._say_last()

    def _on_goaway(self, stream: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 -- as its neighbours
        if stream != 0:
            raise Broken(frames.PROTOCOL_ERROR, "a GOAWAY is the connection's")
        # The client begins nothing more; it closes when it has all answers.

    def _on_window_update(self, stream: int, _: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(frames.FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame has 4 bytes")
        size = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if stream == 0:
            if size == 0:
                raise Broken(frames.PROTOCOL_ERROR, "a window grows by at least 1")
            self.out.widen(size)
            return
        if stream > self._last:
            raise Broken(frames.PROTOCOL_ERROR, "a stream that was not begun has no window")
        if size == 0:
            raise BrokenStream(frames.PROTOCOL_ERROR)
        call = self._calls.get(stream)
        if call is None:
            self._make_noise()  # its answer has gone already
        else:
            self.out.widen_stream(call, size)

    # What a connection does of itself (`connection`).

    def reset(self, stream: int, code: int) -> None:
        """End a stream without an answer."""
        raise NotImplementedError

    def _say_last(self) -> None:
        """Name the last stream that will be answered."""
        raise NotImplementedError

    def _close_if_done(self) -> None:
        """Close if the client was told to go and has all its answers."""
        raise NotImplementedError


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Broken(frames.PROTOCOL_ERROR, "there is more padding than frame")
    return payload[1 : len(payload) - payload[0]]


_OTHERS = {
    frames.PRIORITY: Incoming._on_priority,  # noqa: SLF001 -- its own table
    frames.RST_STREAM: Incoming._on_reset,  # noqa: SLF001
    frames.SETTINGS: Incoming._on_settings,  # noqa: SLF001
    frames.PUSH_PROMISE: Incoming._on_push,  # noqa: SLF001
    frames.PING: Incoming._on_ping,  # noqa: SLF001
    frames.GOAWAY: Incoming._on_goaway,  # noqa: SLF001
    frames.WINDOW_UPDATE: Incoming._on_window_update,  # noqa: SLF001
    frames.CONTINUATION: Incoming._on_continuation,  # noqa: SLF001
}
