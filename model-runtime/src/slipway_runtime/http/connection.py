"""One client's connection: bytes to exchanges, answers to bytes, in the order of the requests.

Every bound of `HttpLimits` is held here. Timeouts are not timers of their own, which would cost
two heap operations a request: each connection knows until when it may stay as it is, and the
server asks all of them twice a second (`Connection.sweep`).
"""

from __future__ import annotations

import asyncio
import enum
import fcntl
import termios
from collections import deque
from time import perf_counter
from typing import cast

import httptools

from slipway_runtime.http.answers import Answer, failure
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.known import KnownHead
from slipway_runtime.http.refusals import body_too_large, header_too_large, malformed, refusal_of, without_upgrade
from slipway_runtime.http.shared import Shared
from slipway_runtime.identifiers import is_acceptable

_LINGER_SECONDS = 2.0


class State(enum.Enum):
    """What a connection waits for."""

    IDLE = "the next request"
    HEAD = "the rest of a header"
    BODY = "the rest of a body"
    CLOSING = "the client to read the last answer"


_IDLE = State.IDLE  # to look a member up takes 40 ns


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    __slots__ = (
        "_body",
        "_chunks",
        "_continue_due",
        "_current",
        "_eof",
        "_head_bytes",
        "_in_trailer",
        "_known",
        "_parser",
        "_parsing",
        "_paused",
        "_pending",
        "_received",
        "_refusal",
        "_shared",
        "_since",
        "_size",
        "_state",
        "_transport",
        "_until",
        "_without_upgrade",
        "_write_blocked_since",
    )

    is_probe = False
    """Whether it came by the port for probes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._known: KnownHead | None = None
        """The head of the newest request that needed no parsing."""
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._pending: deque[Exchange] = deque()
        self._state = State.IDLE
        self._since = perf_counter()
        self._until = self._since + shared.limits.connection_seconds
        self._current: Exchange = cast("Exchange", None)
        self._body: list[bytes] = []
        self._size = 0
        self._received = 0
        self._chunks = 0
        self._head_bytes = 0
        self._parsing = False
        self._in_trailer = False
        self._continue_due = False
        self._refusal: Answer | None = None
        self._without_upgrade = b""
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

    def data_received(self, data: bytes) -> None:
        """Take bytes: none, one or many requests, or parts of them."""
        at_boundary = self._state is _IDLE and not self._pending
        if at_boundary:
            known = self._known
            if known is None or len(data) != known.size or not data.startswith(known.head):
                known = self._known = self._shared.known_heads.of(data)
            if known is not None:
                self._take(known, data)
                return
        if self._state is not State.CLOSING:
            self._parse(data, at_boundary=at_boundary)

    def _parse(self, data: bytes, *, at_boundary: bool) -> None:
        """Have the parser read bytes; it calls back for each part of a request."""
        if self._state is State.BODY:
            self._received += len(data)
            if self._received > self._wire_limit():
                self._refuse(failure(400, "the body has more framing than content"))
                return
        else:
            # Counted per read, as the parser keeps an unfinished header to itself.
            self._head_bytes += len(data)
        # Answers that are there at once are written together, when the parser has seen all of the data.
        self._parsing = True
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # After a request that said "close", the parser refuses what follows: so do we, in silence.
            if not self._is_closing():
                self._refuse(self._refusal or malformed(error))
        finally:
            self._parsing = False
        if self._pending:
            if at_boundary and len(self._pending) == 1 and self._state is State.IDLE:
                exchange = self._pending[0]
                self._shared.known_heads.learn(data, exchange, self._shared.shortcut(exchange))
            self.deliver()
        if self._state is State.HEAD and self._head_bytes > self._shared.limits.header_bytes:
            self._refuse(header_too_large(self._shared.limits))
        elif len(self._pending) > self._shared.limits.pipelined:
            self._pause()

    def _feed(self, data: bytes) -> None:
        """Parse. An offer to speak another protocol (Java's client makes one with each request) is not taken.

        The parser gives up on the body behind such a header: another one reads it, from a header without the offer.
        """
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade + data[upgrade.args[0] :] if self._without_upgrade else b""
                if not data:
                    self._state = State.CLOSING  # CONNECT: what follows is not HTTP
                self._without_upgrade = b""
                self._parser = httptools.HttpRequestParser(self)
            else:
                return

    def _take(self, known: KnownHead, data: bytes) -> None:
        """Take a whole request whose head was read before."""
        shared = self._shared
        exchange = Exchange(self, known.method, known.target, known.headers, data[known.end :])
        exchange.request_id = known.request_id or shared.new_id()
        self._since = shared.now
        self._pending.append(exchange)
        shared.metrics.in_flight += 1
        if shared.watch.is_on:
            exchange.timeline = shared.watch.begin()
        if shared.guard is not None and (refusal := self._kept_out(exchange)) is not None:
            exchange.finish(refusal)
            return
        if known.shortcut is None or not known.shortcut(exchange):
            shared.handle(exchange)

    def _kept_out(self, exchange: Exchange) -> Answer | None:
        guard = self._shared.guard
        return None if guard is None else guard.refusal_of(exchange, is_probe=self.is_probe)

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
        for exchange in self._pending:
            if exchange.work is not None:
                exchange.work.cancel()
        self._pending.clear()
        self._state = State.CLOSING

    # What the parser says.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._current = Exchange(self)
        self._state = State.HEAD
        self._since = self._shared.now
        self._in_trailer = False

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._current.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header line. Those of a trailer are not believed."""
        if not self._in_trailer:
            self._current.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The header is complete: refuse what will be refused before its body is sent."""
        exchange, parser, shared = self._current, self._parser, self._shared
        exchange.method = parser.get_method()
        headers = exchange.headers
        self._in_trailer = True
        if parser.should_upgrade() and exchange.method != b"CONNECT":
            self._without_upgrade = without_upgrade(exchange, parser.get_http_version())
            return
        version = parser.get_http_version()
        exchange.old = version == "1.0"
        exchange.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        given = headers.get(b"x-request-id")
        exchange.request_id = given.decode() if given is not None and is_acceptable(given) else shared.new_id()
        self._state = State.BODY
        self._since = shared.now
        self._received = self._chunks = 0
        if not 0 < self._head_bytes <= shared.limits.header_bytes:
            # What was read holds a body, or other requests, too: count this header by itself.
            size = sum(map(len, headers)) + sum(map(len, headers.values()))
            if size > shared.limits.header_bytes:
                self._abort(header_too_large(shared.limits))
        if (refusal := self._kept_out(exchange) or refusal_of(exchange, version, shared.limits)) is not None:
            self._abort(refusal)
        if headers.get(b"expect", b"").lower() == b"100-continue" and not exchange.old:
            self._continue_due = True
            self._say_continue()

    def on_chunk_header(self) -> None:
        """One more chunk; many tiny ones are an attack on the parser's callbacks."""
        limits = self._shared.limits
        self._chunks += 1
        if self._chunks > limits.free_chunks and self._chunks * limits.chunk_bytes > self._size:
            self._abort(failure(400, "the body comes in chunks that are too small"))

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        shared = self._shared
        self._continue_due = False
        self._body.append(part)
        self._size += len(part)
        shared.buffered += len(part)
        if self._size > shared.limits.body_bytes:
            self._abort(body_too_large(shared.limits))
        if shared.buffered > shared.limits.buffered_bytes:
            self._abort(failure(503, "too many large requests are arriving", b"retry-after: 1\r\n"))
        if len(self._body) > 256:
            self._body = [b"".join(self._body)]

    def on_message_complete(self) -> None:
        """The request is complete: have it answered."""
        if self._without_upgrade:
            return
        exchange, shared, body = self._current, self._shared, self._body
        if body:
            exchange.body = body[0] if len(body) == 1 else b"".join(body)
            self._drop_body()
        self._state = State.IDLE if exchange.keep_alive else State.CLOSING
        self._since = shared.now
        self._head_bytes = 0
        self._continue_due = False
        self._pending.append(exchange)
        shared.metrics.in_flight += 1
        if shared.watch.is_on:
            exchange.timeline = shared.watch.begin()
        shared.handle(exchange)

    # Limits.

    def _is_closing(self) -> bool:
        return self._state is State.CLOSING

    def _drop_body(self) -> None:
        self._shared.buffered -= self._size
        self._size = 0
        self._body = []

    def _wire_limit(self) -> int:
        # Chunk headers and their extensions may cost a little beside what they frame.
        return self._shared.limits.body_bytes + 65_536 + 32 * self._chunks

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
            shared.metrics.answered(exchange.endpoint, answer.status, ended - exchange.started)
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

    def _abort(self, answer: Answer) -> None:
        """Refuse from within a callback: the parser stops at the exception and tells `data_received`."""
        if self._refusal is None:
            self._refusal = answer
        raise httptools.HttpParserError(answer.status)

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
            if waited > _LINGER_SECONDS:
                self._transport.abort()
        elif self._state is State.IDLE:
            if waited > limits.idle_seconds:
                self._transport.close()
        elif self._state is State.HEAD:
            if waited > limits.header_seconds:
                self._refuse(failure(408, "the request's header did not arrive in time"))
        elif waited > limits.body_seconds + self._received / limits.body_bytes_per_second:
            self._refuse(failure(408, "the request's body did not arrive in time"))

    def touch(self, now: float) -> None:
        """Count time from now."""
        self._since = now

    def close_if_idle(self, now: float, settled: float) -> None:
        """Close if nothing has been asked for a moment (while draining)."""
        if self._state is not State.IDLE or self._pending or now - self._since < settled:
            return
        if not self._has_unread():
            self._transport.close()

    def _has_unread(self) -> bool:
        """Whether the kernel holds a request that the loop has not read: to close now would lose it."""
        socket = self._transport.get_extra_info("socket")
        try:
            waiting = fcntl.ioctl(socket.fileno(), termios.FIONREAD, bytes(4))
        except OSError:
            return False
        return any(waiting)

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
