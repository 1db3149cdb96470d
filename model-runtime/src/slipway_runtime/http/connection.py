"""One client's connection: what was read becomes answers, in the order of the requests, and then an end.

Reading is the work of `slipway_runtime.http.incoming`. Timeouts are not timers of their own, which
would cost two heap operations a request: each connection knows until when it may stay as it is, and
the server asks all of them twice a second (`Connection.sweep`).
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import cast

from slipway_runtime.http.answers import LEFT, Answer, failure
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.incoming import Incoming, State
from slipway_runtime.http.shared import Shared
from slipway_runtime.sockets import has_unread, has_unsent

_LINGER_SECONDS = 2.0
_IDLE = State.IDLE  # to look a member up takes 40 ns


class Connection(Incoming):
    """The server's side of one connection."""

    __slots__ = ("_eof", "_paused", "_transport", "_until", "_write_blocked_since")

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._until = self._since + shared.limits.connection_seconds
        self._paused = False
        self._eof = False
        self._write_blocked_since = 0.0

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; refuse politely when there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)
        shared = self._shared
        shared.connections.add(self)
        shared.metrics.connections += 1
        # A crowd at the other port must not make the kubelet end the pod.
        if len(shared.connections) > shared.limits.connections and not self.is_probe:
            self._refuse(failure(503, "too many connections are open; try again in a moment", b"retry-after: 1\r\n"))

    def eof_received(self) -> bool:
        """Take the client's half-close: answers that are due are still given."""
        self._eof = True
        if self._pending and self._state is not State.CLOSING:
            self._pending[-1].keep_alive = False
            return True
        return bool(self._pending)

    def pause_writing(self) -> None:
        """Stop taking requests of a client that does not read its answers."""
        self._write_blocked_since = perf_counter()
        self._pause()

    def resume_writing(self) -> None:
        """Go on once it has read them."""
        self._write_blocked_since = 0.0
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Forget everything; nobody waits for the answers any more."""
        shared = self._shared
        shared.connections.discard(self)
        shared.metrics.connections -= 1
        shared.metrics.in_flight -= len(self._pending)
        self._drop_body()
        now = perf_counter()
        for exchange in self._pending:
            if exchange.work is not None:
                exchange.work.cancel()
                code = LEFT if now < exchange.work.overdue else 504
                shared.metrics.answered(exchange.endpoint, code, now - exchange.started)
        self._pending.clear()
        self._state = State.CLOSING

    # Answers.

    def deliver(self) -> None:
        """Write those answers that are due, in the order of their requests."""
        pending = self._pending
        if self._parsing or not pending or pending[0].answer is None:
            return
        shared = self._shared
        pieces: list[bytes] = []
        close = False
        while pending and not close and (answer := pending[0].answer) is not None:
            exchange = pending.popleft()
            # Only the last one may say "close": the others were sent before the client could know.
            close = not exchange.keep_alive or (not pending and self._is_over())
            connection = b""
            if close:
                connection = b"connection: close\r\n"
            elif exchange.old:
                connection = b"connection: keep-alive\r\n"
            pieces.append(shared.head.write(answer, exchange.request_id, connection))
            if exchange.method != b"HEAD":
                pieces.append(answer.body)
            shared.metrics.in_flight -= 1
            ended = perf_counter()
            shared.metrics.answered(exchange.endpoint, answer.counted or answer.status, ended - exchange.started)
            if exchange.timeline is not None:
                shared.watch.finished(exchange, answer.status, len(answer.body), ended)
        self._since = shared.now
        self._transport.write(b"".join(pieces))
        if close:
            self._finish()
        elif self._paused:
            self._resume()
        if self._continue_due:
            self._say_continue()

    def deliver_alone(self, exchange: Exchange, body: bytes, ended: float) -> bool:
        """As `Carrier`."""
        shared = self._shared
        if (
            len(self._pending) == 1
            and self._state is _IDLE
            and exchange.keep_alive
            and not (exchange.old or self._paused or self._parsing or shared.draining or self._eof)
            and shared.now < self._until
        ):
            self._pending.clear()
            shared.metrics.in_flight -= 1
            if exchange.timeline is not None:
                shared.watch.finished(exchange, 200, len(body), ended)
            self._since = shared.now
            self._transport.write(shared.head.write_json(body, exchange.request_id))
            return True
        return False

    def _is_over(self) -> bool:
        shared = self._shared
        if self._state not in (State.IDLE, State.CLOSING):
            return False  # the next request is arriving already; its answer will say so
        return shared.draining or self._eof or shared.now >= self._until

    def _say_continue(self) -> None:
        if not self._pending and self._refusal is None:
            self._continue_due = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be read to its end, after everything before it, and close."""
        exchange = self._current if self._state in (State.HEAD, State.BODY) else Exchange(self)
        exchange.request_id = exchange.request_id or self._shared.new_id()
        exchange.keep_alive = False
        self._drop_body()
        self._state = State.CLOSING
        self._pending.append(exchange)
        self._shared.metrics.in_flight += 1
        if self._shared.watch.is_on:
            exchange.timeline = self._shared.watch.begin()
        exchange.finish(answer)

    def _finish(self) -> None:
        """Close once the client has had the chance to read the last answer.

        To close while its bytes still arrive would reset the connection, and could take the
        answer away from it; so this half-closes, reads on for a moment and throws away.
        """
        self._state = State.CLOSING
        self._since = self._shared.now
        for exchange in self._pending:
            if exchange.work is not None:
                exchange.work.cancel()
        self._shared.metrics.in_flight -= len(self._pending)
        self._pending.clear()
        if self._eof or self._transport.is_closing() or not self._transport.can_write_eof():  # TLS says its own end
            self._transport.close()
        else:
            self._resume()
            self._transport.write_eof()

    # Time.

    def sweep(self, now: float) -> None:
        """Close what has stayed as it is for too long."""
        limits = self._shared.limits
        if self._write_blocked_since and now - self._write_blocked_since > limits.write_seconds:
            self._transport.abort()
            return
        if self._pending:
            return
        waited = now - self._since
        if self._state is State.CLOSING:
            self._linger(now)
        elif self._state is State.IDLE:
            if waited > limits.idle_seconds:
                self._transport.close()
        elif self._state is State.HEAD:
            if waited > limits.header_seconds:
                self._refuse(failure(408, "the request's header did not arrive in time"))
        elif waited > limits.body_seconds + self._received / limits.body_bytes_per_second:
            self._refuse(failure(408, "the request's body did not arrive in time"))

    def _linger(self, now: float) -> None:
        if has_unsent(self._transport):
            # The last answer is on its way to a client that reads slowly: it has as long as others are given.
            self._write_blocked_since = self._write_blocked_since or self._since
            self._since = now
        elif now - self._since > _LINGER_SECONDS:
            self._transport.abort()

    def touch(self, now: float) -> None:
        """Count time from now."""
        self._since = now

    def close_if_idle(self, now: float, settled: float) -> None:
        """Close if nothing has been asked for a moment (while draining)."""
        if self._state is not State.IDLE or self._pending or now - self._since < settled:
            return
        if not has_unread(self._transport):
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        waits = self._write_blocked_since or len(self._pending) > self._shared.limits.pipelined // 2
        if self._paused and not waits and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()


class ProbeConnection(Connection):
    """One that came by the port for probes."""

    __slots__ = ()
    is_probe = True
