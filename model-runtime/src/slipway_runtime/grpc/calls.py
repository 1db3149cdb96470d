"""gRPC on a stream: what a request's fields say, messages in their frames, answers, status and deadline.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md is the source of the format.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_from_bytes

from slipway_runtime.dataplane import Work
from slipway_runtime.errors import Impatient, Overloaded, SlipwayRuntimeError, TooLate
from slipway_runtime.grpc.frames import CANCEL, PROTOCOL_ERROR, BrokenStream
from slipway_runtime.grpc.headers import Block, Fields
from slipway_runtime.grpc.outgoing import NOTHING, Sending
from slipway_runtime.grpc.status import HTTP, CallFailed, Code, code_of, counted_as
from slipway_runtime.identifiers import is_acceptable
from slipway_runtime.protocol.compression import inflated
from slipway_runtime.several.endpoint import ModelEndpoint

if TYPE_CHECKING:
    from slipway_runtime.grpc.carrier import Carrier

_log = logging.getLogger(__name__)

_OK = Block((b"grpc-status", b"0"))
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_SECONDS = 86_400.0
_STREAMED_BYTES = 65_536
"""Of one message among several: what has come of it is joined again with each frame."""
_ENCODINGS = frozenset({b"identity", b"gzip", b"deflate"})
_UNQUOTED = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What a status message holds as it is; all else is percent-encoded."""
_PLAIN = b"this port speaks gRPC: call inference.GRPCInferenceService, or ask for REST at the HTTP port\n"


class Method(NamedTuple):
    """What answers calls of one path."""

    endpoint: str
    """Its name in the metrics."""
    handle: Callable[[Call, bytes], None]
    """Takes a call and a message of it; answers now or later."""
    streams: bool = False
    """Whether it takes more than one message."""
    lasts: bool = False
    """Whether its answer has no end of its own."""


class Head(NamedTuple):
    """What a request's fields say."""

    method: Method | None
    timeout: float | None
    encoding: bytes
    request_id: str | None
    length: int | None
    refusal: CallFailed | None
    plain: bool
    """Whether it is no gRPC at all."""
    fields: Fields


def head_of(fields: Fields, methods: dict[bytes, Method]) -> Head:
    """Read a request's fields; what is wrong with them becomes the call's status."""
    kind = fields.get(b"content-type", b"").partition(b";")[0]
    plain = fields[b":method"] != b"POST" or kind not in (b"application/grpc", b"application/grpc+proto")
    method = methods.get(fields[b":path"])
    refusal = None
    if method is None:
        path = fields[b":path"][:200].decode("ascii", "replace")
        refusal = CallFailed(Code.UNIMPLEMENTED, f"there is no method {path}; ask the reflection service for a list")
    timeout = None
    if (text := fields.get(b"grpc-timeout")) is not None:
        if (match := _TIMEOUT.fullmatch(text)) is None:
            refusal = CallFailed(Code.INVALID_ARGUMENT, "grpc-timeout must be a number with a unit, such as 500m")
        else:
            timeout = min(int(match[1]) * _SECONDS[match[2]], _LONGEST_SECONDS)
    encoding = fields.get(b"grpc-encoding", b"identity")
    if encoding not in _ENCODINGS:
        refusal = CallFailed(Code.UNIMPLEMENTED, "grpc-encoding must be identity, gzip or deflate")
    given = fields.get(b"x-request-id")
    length = fields.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 16):
        raise BrokenStream(PROTOCOL_ERROR)
    return Head(
        method,
        timeout,
        encoding,
        given.decode() if given is not None and is_acceptable(given) else None,
        None if length is None else int(length),
        refusal,
        plain,
        fields,
    )


class Call(Sending):
    """One call: its stream, its message as far as it has arrived, and its answer."""

    __slots__ = (
        "_endpoint",
        "_headed",
        "_names",
        "_parts",
        "_sent",
        "_since",
        "_size",
        "_timer",
        "closed",
        "complete",
        "connection",
        "credit",
        "deadline",
        "head",
        "request_id",
        "started",
        "timeline",
        "work",
    )

    def __init__(self, connection: Carrier, stream: int, head: Head) -> None:
        super().__init__(stream, connection.out.first_window)
        site = connection.site
        self.connection = connection
        self.head = head
        self.started = perf_counter()
        self.request_id = head.request_id or site.shared.new_id()
        self.complete = False
        """Whether the client has sent all that it will send."""
        self.credit = site.limits.stream_window
        """Bytes that the client may still send without being asked for more."""
        self.work: Work | None = None
        self.timeline = site.shared.watch.begin() if site.shared.watch.is_on else None
        self.deadline = math.inf
        """When the client no longer waits, on `perf_counter`'s clock."""
        self._parts: list[bytes] = []
        self._size = 0
        self._headed = False
        self._names = site.head
        self._endpoint = head.method.endpoint if head.method is not None else "other"
        self._sent = 0
        self.closed = False
        """Whether its outcome is known; its bytes may still wait for the client."""
        self._since = 0.0
        """When its outcome was known; before that, of a stream, when the message began that is still arriving."""
        self._timer: asyncio.TimerHandle | None = None
        site.shared.metrics.in_flight += 1
        if head.timeout is not None:
            self.deadline = self.started + head.timeout
            self._timer = asyncio.get_running_loop().call_later(head.timeout, self._late)

    # What an access log or a trace shows of it.

    @property
    def endpoint(self) -> str:
        """What was asked, as the metrics name it."""
        return self._endpoint

    def belongs_to(self, model: str, names: Block) -> None:
        """Take note of which of several models it asks; ``names`` are the fields before that one's answers."""
        self._endpoint = ModelEndpoint(self._endpoint, model)
        self._names = names

    @property
    def method(self) -> bytes:
        """The HTTP method."""
        return self.head.fields[b":method"]

    @property
    def target(self) -> bytes:
        """The path: service and method."""
        return self.head.fields[b":path"]

    @property
    def headers(self) -> Fields:
        """The call's metadata."""
        return self.head.fields

    # What the client sends.

    def more(self, payload: bytes) -> None:
        """Take a part of the body that is not the last one."""
        if self.closed:
            return
        head, site = self.head, self.connection.site
        # Nobody reads what is refused, or is no gRPC: it takes no room from others.
        if head.refusal is not None and not head.plain:
            self.guarded(lambda: self._dispatch(b""))
            return
        self._size += len(payload)
        if not head.plain:
            self._parts.append(payload)
            site.shared.buffered += len(payload)
        if self._size > site.limits.message_bytes + 5:
            self._count_and_fail(self._too_large())
        elif site.shared.buffered > site.limits.buffered_bytes:
            self._count_and_fail(Overloaded("too many large requests are arriving"))
        elif head.method is not None and head.method.streams and not head.plain:
            self.guarded(lambda: self._messages(self._whole(b"")))
        elif len(self._parts) > 256:
            self._parts = [b"".join(self._parts)]

    def end(self, payload: bytes) -> None:
        """Take the last part of the body."""
        self.complete = True
        length = self.head.length
        if length is not None and length != self._size + len(payload):
            raise BrokenStream(PROTOCOL_ERROR)
        if not self.closed:
            self.guarded(lambda: self._dispatch(self._whole(payload) if self._parts else payload))

    def cancel(self) -> None:
        """Nobody waits for the answer any more: a client's own clock is often the first to know of a deadline."""
        self._close(HTTP[Code.CANCELLED] if self._leaves_early(perf_counter()) else HTTP[Code.DEADLINE_EXCEEDED])

    def _whole(self, payload: bytes) -> bytes:
        """Take everything that has arrived."""
        whole = b"".join((*self._parts, payload))
        self._drop_parts()
        return whole

    def _drop_parts(self) -> None:
        self.connection.site.shared.buffered -= self._size
        self._size = 0
        self._parts = []

    def guarded(self, take: Callable[[], None]) -> None:
        """Have something done for the client; errors become its status."""
        try:
            take()
        except SlipwayRuntimeError as error:
            self._count_and_fail(error)
        except Exception:  # noqa: BLE001 -- a bug must cost one call, not the connection
            _log.exception("a call could not be answered")
            self._count_and_fail(CallFailed(Code.INTERNAL, "the runtime failed on this request"))

    def _dispatch(self, body: bytes) -> None:
        head = self.head
        method = head.method
        if head.plain:
            self._answer_plainly()
        elif head.refusal is not None or method is None:
            raise head.refusal or CallFailed(Code.UNIMPLEMENTED, "there is no such method")
        elif head.timeout == 0:
            self._late()
        elif method.streams:
            self._messages(body)
            self.finish()
        elif (over := len(body) - 5 - int.from_bytes(body[1:5], "big")) > 0 or not body:
            raise CallFailed(Code.UNIMPLEMENTED, "the call must have exactly one message", counted=400)
        elif over < 0:
            raise CallFailed(Code.INVALID_ARGUMENT, "the message is cut off, or shorter than the length before it")
        else:
            method.handle(self, body[5:] if body[0] == 0 else self._inflated(body[0], body[5:]))

    def _messages(self, body: bytes) -> None:
        """Handle each message that is there as a whole, and keep the rest."""
        head = self.head
        if head.refusal is not None or head.method is None:
            raise head.refusal or CallFailed(Code.UNIMPLEMENTED, "there is no such method")
        offset, most = 0, min(_STREAMED_BYTES, self.connection.site.limits.message_bytes)
        while len(body) - offset >= 5 and not self.closed:
            size = int.from_bytes(body[offset + 1 : offset + 5], "big")
            if size > most:
                raise CallFailed(Code.RESOURCE_EXHAUSTED, f"a message of this method has at most {most} bytes")
            end = offset + 5 + size
            if end > len(body):
                break
            message = body[offset + 5 : end]
            head.method.handle(self, message if body[offset] == 0 else self._inflated(body[offset], message, most))
            offset = end
        if self.closed:
            return
        if offset == len(body):
            self._since = 0.0
            return
        if self.complete:
            raise CallFailed(Code.INVALID_ARGUMENT, "the last message is cut off")
        if offset or not self._since:
            self._since = perf_counter()
        self._parts, self._size = [body[offset:]], len(body) - offset
        self.connection.site.shared.buffered += self._size

    def _inflated(self, flag: int, message: bytes, most: int | None = None) -> bytes:
        if flag != 1 or self.head.encoding == b"identity":
            raise CallFailed(
                Code.INTERNAL, "a message is flagged as compressed, but grpc-encoding names no way", counted=400
            )
        limit = self.connection.site.limits.message_bytes if most is None else most
        return inflated(message, self.head.encoding, limit, "grpc-encoding")

    def _too_large(self) -> CallFailed:
        limit = self.connection.site.limits.message_bytes
        return CallFailed(
            Code.RESOURCE_EXHAUSTED, f"the message is larger than {limit} bytes; send fewer rows in one request"
        )

    # What it gets.

    def answer(self, message: bytes) -> None:
        """Give the one message of an answer, and end."""
        if not self.closed:
            self.send(message, _OK)
            self._close(HTTP[Code.OK])

    def send(self, message: bytes, last: Block | None = None) -> None:
        """Give a message; more may follow."""
        out = self.connection.out
        self._sent += len(message)
        payload = b"\0%b%b" % (len(message).to_bytes(4, "big"), message)
        if not self._headed:
            self._headed = True
            first = out.headers.block(self._names) + _request_id_field(self.request_id)
            if last is not None and out.whole(self, first, payload, last):
                return
            out.head(self, first)
        out.body(self, payload, last)

    def finish(self) -> None:
        """End well, after all messages."""
        if self.closed:
            return
        if not self._headed:
            raise CallFailed(Code.INVALID_ARGUMENT, "the call must have at least one message")
        self.connection.out.end(self, _OK)
        self._close(HTTP[Code.OK])

    def fail(self, error: SlipwayRuntimeError) -> None:
        """End with an error's status."""
        if self.closed:
            return
        code = code_of(error)
        text = quote_from_bytes(error.message.encode()[:2000], _UNQUOTED).encode()
        fields = [(b"grpc-status", b"%d" % code), (b"grpc-message", text)]
        if code is Code.UNAVAILABLE:
            fields.append((b"grpc-retry-pushback-ms", b"1000"))
        if not self._headed:
            fields = [*self._names.pairs, (b"x-request-id", self.request_id.encode()), *fields]
        self.connection.out.end(self, Block(*fields, again=False))
        self._close(counted_as(error))

    def _count_and_fail(self, error: SlipwayRuntimeError) -> None:
        """End with an error that no data plane has counted."""
        if not self.closed:
            self.connection.site.shared.metrics.of(self._endpoint).failed(type(error).__name__)
        self.fail(error)

    def _answer_plainly(self) -> None:
        out = self.connection.out
        fields = Block(
            (b":status", b"415"),
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(_PLAIN)),
            again=False,
        )
        out.head(self, out.headers.block(fields))
        out.body(self, _PLAIN, NOTHING)
        self._close(415)

    def _late(self) -> None:
        late = Impatient if self._leaves_early(self.deadline) else TooLate
        self._count_and_fail(late("the call's deadline has passed"))

    def _leaves_early(self, now: float) -> bool:
        """Whether a client who leaves now has sent too little, or not waited for as long as can be expected."""
        return self.work is None or now < self.work.overdue

    def sweep(self, now: float) -> None:
        """Give up a message that arrives too slowly, or an answer that nobody takes."""
        limits = self.connection.site.limits
        if self.closed:
            if now - self._since > limits.write_seconds:
                self.connection.reset(self.id, CANCEL)
            return
        begun = self.started
        if self.head.method is not None and self.head.method.streams:
            begun = self._since  # between its messages it may be silent for as long as it likes
        if self.complete or not begun:
            return
        if now - begun > limits.message_seconds + self._size / limits.message_bytes_per_second:
            self._count_and_fail(CallFailed(Code.DEADLINE_EXCEEDED, "the message did not arrive in time", counted=408))

    def _close(self, counted: int) -> None:
        """Count the call, once, by a status of HTTP's, and let go of what it holds."""
        if self.closed:
            return
        self.closed = True
        self._since = ended = perf_counter()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.work is not None:
            self.work.cancel()
            self.work = None  # it refers back to this call: only the collector could free the two
        if self._parts:
            self._drop_parts()
        shared = self.connection.site.shared
        shared.metrics.in_flight -= 1
        shared.metrics.answered(self.endpoint, counted, ended - self.started)
        if self.timeline is not None:
            shared.watch.finished(self, counted, self._sent, ended)


def _request_id_field(value: str) -> bytes:
    """Write ``x-request-id`` as a literal that no table keeps (RFC 7541, section 6.2.2); at most 128 characters."""
    size = len(value)
    return b"\x00\x0cx-request-id%b%b" % (bytes((size,)) if size < 127 else bytes((127, size - 127)), value.encode())
