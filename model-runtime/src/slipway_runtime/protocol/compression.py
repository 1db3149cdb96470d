"""Bodies that were compressed on their way, with a bound on what they may become."""

from __future__ import annotations

import zlib

from slipway_runtime.errors import InvalidRequest, TooLarge

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_RATIO = 200
"""How many times as long a body may become. Rows that are all alike come to it; a bomb has a thousand."""
_SMALL = 1 << 20
"""Bytes that any body may become: a millisecond or two."""


def inflated(body: bytes, encoding: bytes, limit: int, said: str) -> bytes:
    """Decompress a body, never to more than the limit.

    Args:
        body: What arrived.
        encoding: ``gzip`` or ``deflate``, in lower case.
        limit: Bytes that may come of it.
        said: The field that names the encoding, for messages.

    Raises:
        InvalidRequest: If it is not compressed in that way.
        TooLarge: If more would come of it.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise InvalidRequest(f"{said} must be gzip, deflate or identity")
    most = min(limit, max(_SMALL, _RATIO * len(body)))
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(body, most + 1)
    except zlib.error:
        raise InvalidRequest(f"the body is not compressed as {said} says") from None
    if len(plain) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes; send fewer rows in one request")
    if len(plain) > most:
        raise TooLarge(f"the body becomes more than {_RATIO} times as long; send it as it is, not compressed")
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequest(f"the body is not compressed as {said} says")
    return plain
