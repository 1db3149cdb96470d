"""Why a request is refused before its body is read, or when it cannot be read at all."""

from __future__ import annotations

import logging
import re

import httptools

from slipway_runtime.http.answers import JSON, Answer, failure
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.limits import HttpLimits

_log = logging.getLogger(__name__)

_JSON_TYPES = frozenset(
    {
        b"",
        b"application/json",
        b"application/octet-stream",
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
    }
)
"""What a body that holds JSON is sent as. The last is what curl says of any body; octet-stream is the
protocol's own for JSON with raw tensors behind it."""

_ROWS = re.compile(rb"/models/[^/?]+/predict")
"""Where rows are sent to one of several models; `/predict` is where they usually are."""

_OFFER = (b"upgrade", b"http2-settings")


def refusal_of(exchange: Exchange, version: str, limits: HttpLimits) -> Answer | None:
    """Look at a complete header; None: the body may come."""
    headers = exchange.headers
    length = headers.get(b"content-length")
    if version not in ("1.1", "1.0"):
        return failure(400, "this server speaks HTTP/1.1")  # 505 would count as a failure of the server's
    if b"host" not in headers and version == "1.1":
        return failure(400, "an HTTP/1.1 request needs a Host header")
    if len(exchange.target) > limits.header_bytes or len(headers) > limits.header_lines:
        return header_too_large(limits)
    if length is not None and int(length) > limits.body_bytes:
        return body_too_large(limits)
    if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
        return failure(417, "Expect may only be 100-continue")
    return _media_type_refusal(headers.get(b"content-type"), exchange.target) if exchange.method == b"POST" else None


def without_upgrade(exchange: Exchange, version: str) -> bytes:
    """Write a request's header again, without its offer to speak another protocol."""
    lines = [b"%b %b HTTP/%b" % (exchange.method, exchange.target, version.encode())]
    for name, value in exchange.headers.items():
        if name == b"connection":
            options = [option.strip() for option in value.lower().split(b",")]
            value = b", ".join([option for option in options if option not in _OFFER])  # noqa: PLW2901
        if name not in _OFFER:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def header_too_large(limits: HttpLimits) -> Answer:
    """Refuse a header by its size."""
    return failure(
        431, f"the request's header is larger than {limits.header_bytes} bytes or {limits.header_lines} lines"
    )


def body_too_large(limits: HttpLimits) -> Answer:
    """Refuse a body by its size."""
    return failure(413, f"the body is larger than {limits.body_bytes} bytes; send fewer rows in one request")


def malformed(error: httptools.HttpParserError) -> Answer:
    """Say what the parser could not read, or own up to a failure inside."""
    if isinstance(error, httptools.HttpParserCallbackError):
        _log.error("a request could not be taken", exc_info=error)
        return failure(500, "the runtime failed on this request")
    return failure(400, "this is not an HTTP/1.1 request")


def _media_type_refusal(content_type: bytes | None, target: bytes) -> Answer | None:
    """Refuse a body that says it is something else than JSON, before it is read."""
    if content_type is None or content_type == JSON:
        return None
    media = content_type.partition(b";")[0].strip().lower()
    if media in _JSON_TYPES or (media.startswith(b"application/") and media.endswith(b"+json")):
        return None
    if not (target.startswith(b"/predict") or _ROWS.match(target)):
        return failure(415, "send the body as application/json", b"accept: application/json\r\n")
    if media == b"text/csv":
        return None
    return failure(415, "send the rows as application/json or text/csv", b"accept: application/json, text/csv\r\n")
