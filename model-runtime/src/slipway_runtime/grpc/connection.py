"""One client's connection: its beginning, its limits in time, and its graceful end."""

from __future__ import annotations

import asyncio
from typing import cast

from slipway_runtime.grpc import frames
from slipway_runtime.grpc.frames import Broken
from slipway_runtime.grpc.incoming import GOODBYE, Incoming
from slipway_runtime.grpc.outgoing import Outgoing, Sending
from slipway_runtime.grpc.status import CallFailed, Code
from slipway_runtime.sockets import has_unsent

_LINGER_SECONDS = 2.0
_GOODBYE_SECONDS = 1.0


class Connection(Incoming):
    """The server's side of one connection."""

    __slots__ = ()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; refuse politely when there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)
        self.out = Outgoing(self._transport, self._sent_all)
        site = self.site
        site.shared.connections.add(self)
        site.shared.metrics.connections += 1
        limits = site.limits
        self.out.write(site.greeting)
        if len(site.shared.connections) > limits.connections:
            self._break(Broken(frames.ENHANCE_YOUR_CALM, "too many connections are open; try again in a moment"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Forget everything; nobody waits for the answers any more."""
        self._closing = True
        self.site.shared.connections.discard(self)
        self.site.shared.metrics.connections -= 1
        self._drop_calls()

    def pause_writing(self) -> None:
        """Stop taking calls of a client that does not read its answers."""
        self._write_blocked_since = self.site.shared.now
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on once it has read them."""
        self._write_blocked_since = 0.0
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take bytes: none, one or many frames, or parts of them."""
        if self._closing:
            return
        if self._rest:
            data = self._rest + data
        try:
            offset = 0
            if self._started == 0:
                offset = self._preface(data)
            self._rest = self._frames(data, offset)
        except Broken as broken:
            self._break(broken)

    # Ends.

    def _sent_all(self, sending: Sending) -> None:
        """Take a call off the books when the end of its answer was written."""
        call = self._calls.pop(sending.id)
        if not call.complete:
            # The answer is known before the client has sent all: it may stop sending.
            self.out.write(frames.reset(call.id, frames.NO_ERROR))
            self._ended_here.append(call.id)
        self._since = self.site.shared.now
        self._close_if_done()

    def reset(self, stream: int, code: int) -> None:
        """End a stream without an answer."""
        call = self._calls.pop(stream, None)
        if call is not None:
            self.out.drop(call)
            call.cancel()
        self._ended_here.append(stream)
        self.out.write(frames.reset(stream, code))
        self._make_noise()
        self._close_if_done()

    def _break(self, broken: Broken) -> None:
        self.out.write(frames.goaway(self._last, broken.code, str(broken)))
        self._drop_calls()
        self._finish()

    def _drop_calls(self) -> None:
        for call in self._streams():
            call.cancel()
        self._calls.clear()

    def _finish(self) -> None:
        """Close once the client has had the chance to read the last frames."""
        self._closing = True
        self._since = self.site.shared.now
        self._rest = b""
        self.out.flush()
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def go_away(self) -> None:
        """Ask the client to go elsewhere with its next calls; those that it has begun are answered.

        It may be beginning one just now: only once it has read of it (it answers a ping), the
        last stream that will be answered is named.
        """
        if not self._leaving and not self._closing:
            self._leaving = self.site.shared.now
            self.out.write(frames.goaway(frames.MAX_WINDOW, frames.NO_ERROR))
            self.out.write(frames.frame(frames.PING, 0, 0, GOODBYE))

    def _say_last(self) -> None:
        if self._final == frames.MAX_WINDOW:
            self._final = self._last
            self.out.write(frames.goaway(self._last, frames.NO_ERROR))
            for call in self._streams():
                if call.head.method is not None and call.head.method.lasts:
                    call.fail(CallFailed(Code.UNAVAILABLE, "this connection ends; call again"))
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._final != frames.MAX_WINDOW and not self._calls and not self._closing:
            self._finish()

    # Time; the server asks twice a second.

    def sweep(self, now: float) -> None:
        """Close what has stayed as it is for too long."""
        limits = self.site.limits
        self._begun = self._noise = self._given_up = 0
        if self.site.shared.keys is not None:
            self._reader.forget()  # they may have been read again
        if self._closing and has_unsent(self._transport):
            # The last frames are on their way to a client that reads slowly: the first of the bounds is theirs.
            self._write_blocked_since = self._write_blocked_since or self._since
            self._since = now
        waited = now - self._since
        if (
            (self._write_blocked_since and now - self._write_blocked_since > limits.write_seconds)
            or (self._closing and waited > _LINGER_SECONDS)
            or (self._started < 2 and now - self._opened > limits.preface_seconds)
        ):
            self._transport.abort()
        elif self._leaving:
            if now - self._leaving > _GOODBYE_SECONDS:
                self._say_last()
        elif (not self._calls and waited > limits.idle_seconds) or now - self._opened > limits.connection_seconds:
            self.go_away()
        for call in self._streams():
            call.sweep(now)

    def touch(self, now: float) -> None:
        """Count time from now."""
        self._since = now

    def close_if_idle(self, now: float, settled: float) -> None:
        """Have the client go elsewhere (while draining), but not before it has asked what it came for."""
        if self._leaving:
            if now - self._leaving > _GOODBYE_SECONDS:
                self._say_last()
        elif self._last or now - self._since >= settled:
            self.go_away()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()
