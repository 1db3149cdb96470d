"""The wire between a runtime and the worker beside it; ``docs/worker-protocol.md`` is its description.

Standard library only and free of the rest of this package: it is the reference for workers in
other languages. Values are little-endian and in row-major order; strings as a length of four
bytes and their UTF-8, the length 0xFFFFFFFF standing for a missing one.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
from pathlib import Path
from typing import Any

MAGIC = b"SLW1"
HEADER_LIMIT = 1 << 20
INLINE_LIMIT = 64 << 10
"""Bytes of a message's tensors that go through the socket; more go through the sender's file."""
KEPT_LIMIT = 1 << 20
"""Bytes that the sender's file may keep when messages are small again."""
MISSING = 0xFFFFFFFF
TOO_LARGE = "TooLarge"
"""The error of an answer for which the directory has no room."""

_HEAD = struct.Struct("<4sI")


class Closed(Exception):  # noqa: N818 - named after what happened
    """The other side has gone."""


class Channel:
    """One connection, seen from the worker."""

    def __init__(self, connection: socket.socket, folder: Path, number: int) -> None:
        self._socket = connection
        self._folder = folder
        self._own_name = f"worker-{os.getpid()}-{number}"
        self._own: int | None = None
        self._own_bytes = 0

    def receive(self) -> tuple[dict[str, Any], memoryview]:
        """Wait for a message; gives its header and the bytes of its tensors.

        Raises:
            Closed: The other side has gone, or speaks another language.
        """
        magic, size = _HEAD.unpack(self._exactly(_HEAD.size))
        if magic != MAGIC or size > HEADER_LIMIT:
            raise Closed
        header = json.loads(self._exactly(size).decode())
        length = int(header.get("bytes", 0))
        if "file" not in header:
            return header, memoryview(self._exactly(length))
        path = self._folder / Path(str(header["file"])).name
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return header, memoryview(mmap.mmap(handle, length, prot=mmap.PROT_READ))
        finally:
            os.close(handle)

    def send(self, header: dict[str, Any], parts: list[bytes]) -> None:
        """Send a message; that it is too large instead, where the directory has no room for it."""
        length = sum(map(len, parts))
        if self._own_bytes > max(KEPT_LIMIT, 4 * length):
            self._drop()
        header = {**header, "bytes": length}
        if length > INLINE_LIMIT:
            try:
                self._write(parts)
                header["file"] = self._own_name
            except OSError:
                self._drop()
                header = {"id": header.get("id"), "error": TOO_LARGE, "bytes": 0}
            parts = []
        raw = json.dumps(header).encode()
        self._socket.sendall(b"".join([_HEAD.pack(MAGIC, len(raw)), raw, *parts]))

    def close(self) -> None:
        """End, and leave no file."""
        self._socket.close()
        self._drop()

    def _drop(self) -> None:
        """Remove the file, which is memory."""
        if self._own is not None:
            os.close(self._own)
            (self._folder / self._own_name).unlink(missing_ok=True)
        self._own, self._own_bytes = None, 0

    def _write(self, parts: list[bytes]) -> None:
        if self._own is None:
            self._own = os.open(
                self._folder / self._own_name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640
            )
        offset = 0
        for part in parts:
            view = memoryview(part)
            while view:
                written = os.pwrite(self._own, view, offset)
                offset += written
                view = view[written:]
        self._own_bytes = max(self._own_bytes, offset)

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._socket.recv(min(size, 1 << 20))
            if not piece:
                raise Closed
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def strings_from(raw: memoryview) -> list[str | None]:
    """Read strings."""
    values: list[str | None] = []
    offset = 0
    while offset < len(raw):
        (size,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        if size == MISSING:
            values.append(None)
            continue
        values.append(bytes(raw[offset : offset + size]).decode())
        offset += size
    return values


def strings_to(values: list[Any]) -> bytes:
    """Write strings."""
    parts = []
    for value in values:
        if value is None:
            parts.append(struct.pack("<I", MISSING))
        else:
            text = str(value).encode()
            parts += [struct.pack("<I", len(text)), text]
    return b"".join(parts)
