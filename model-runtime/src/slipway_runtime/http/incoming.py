"""The half of a connection that reads: bytes to exchanges, within the bounds of `HttpLimits`.

What has been read goes to `Shared.handle`; answers, and the end of a connection, are those of
`slipway_runtime.http.connection`.
"""

from __future__ import annotations

import asyncio
import enum
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


class State(enum.Enum):
    """What a connection waits for."""

    IDLE = "the next request"
    HEAD = "the rest of a header"
    BODY = "the rest of a body"
    CLOSING = "the client to read the last answer"


_IDLE = State.IDLE  # to look a member up takes 40 ns
_ABOUT_ONE_REQUEST = (401, 404, 415)
"""Refusals of a header that say nothing against the connection that it came by."""
_UNWANTED_BYTES = 65_536
"""A body of a refused request that is read all the same: for less than that, a new connection costs more."""


def _may_stay(exchange: Exchange, refusal: Answer) -> bool:
    """Whether the connection can go on after a refused header: its body is short, and comes without being asked for."""
    headers = exchange.headers
    return (
        refusal.status in _ABOUT_ONE_REQUEST
        and b"transfer-encoding" not in headers
        and b"expect" not in headers
        and int(headers.get(b"content-length", b"0")) <= _UNWANTED_BYTES
    )


class Incoming(asyncio.Protocol):
    """What a connection reads, one request after the other."""

    __slots__ = (
        "_body",
        "_chunks",
        "_continue_due",
        "_current",
        "_head_bytes",
        "_in_trailer",
        "_known",
        "_parser",
        "_parsing",
        "_pending",
        "_received",
        "_refusal",
        "_shared",
        "_since",
        "_size",
        "_state",
        "_without_upgrade",
    )

    is_probe = False
    """Whether it came by the port for probes."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._known: KnownHead | None = None
        """The head of the newest request that needed no parsing."""
        self._pending: deque[Exchange] = deque()
        """Requests that are not answered yet."""
        self._state = State.IDLE
        self._since = perf_counter()
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

    # What the other half does.

    def deliver(self) -> None:
        """Write those answers that are due, in the order of their requests."""
        raise NotImplementedError

    def deliver_alone(self, exchange: Exchange, body: bytes, ended: float) -> bool:
        """As `Carrier`."""
        raise NotImplementedError

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be read to its end, after everything before it, and close."""
        raise NotImplementedError

    def _pause(self) -> None:
        """Read no more for now."""
        raise NotImplementedError

    def _say_continue(self) -> None:
        """Ask for the body of a client that waits to be asked."""
        raise NotImplementedError

    # What arrives.

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
                # What is refused teaches nothing: a known head is not asked again whether it may be.
                if exchange.answer is None or exchange.answer.status < 400:
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
            if not _may_stay(exchange, refusal):
                self._abort(refusal)
            exchange.answer = refusal
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
        if exchange.answer is None:
            shared.handle(exchange)
        else:
            exchange.finish(exchange.answer)

    # Limits.

    def _is_closing(self) -> bool:
        return self._state is State.CLOSING

    def _abort(self, answer: Answer) -> None:
        """Refuse from within a callback: the parser stops at the exception and tells `data_received`."""
        if self._refusal is None:
            self._refusal = answer
        raise httptools.HttpParserError(answer.status)

    def _drop_body(self) -> None:
        self._shared.buffered -= self._size
        self._size = 0
        self._body = []

    def _wire_limit(self) -> int:
        # Chunk headers and their extensions may cost a little beside what they frame.
        return self._shared.limits.body_bytes + 65_536 + 32 * self._chunks
