"""HTTP/2 frames: their numbers, and how they are written (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
SETTINGS_TIMEOUT = 0x4
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

MAX_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384

read_head = struct.Struct(">HBBBI").unpack_from
"""Length (its upper 16 bits, then the lower 8), type, flags and stream of a frame."""

_HEAD = struct.Struct(">IBI")
_HEAD_WITH_NUMBER = struct.Struct(">IBII")
_SETTING = struct.Struct(">HI")
head = _HEAD.pack


class Broken(Exception):  # noqa: N818 -- named after what the connection is
    """The client broke the rules in a way that ends its connection."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BrokenStream(Exception):  # noqa: N818 -- as above
    """The client broke the rules in a way that ends one stream."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*pair) for pair in values.items()]))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Read the payload of a SETTINGS frame."""
    return [(key, value) for key, value in _SETTING.iter_unpack(payload)]


def reset(stream: int, code: int) -> bytes:
    """Write a RST_STREAM frame."""
    return _HEAD_WITH_NUMBER.pack(4 << 8 | RST_STREAM, 0, stream, code)


def window_update(stream: int, size: int) -> bytes:
    """Write a WINDOW_UPDATE frame."""
    return _HEAD_WITH_NUMBER.pack(4 << 8 | WINDOW_UPDATE, 0, stream, size)


def goaway(last: int, code: int, why: str = "") -> bytes:
    """Write a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode())
