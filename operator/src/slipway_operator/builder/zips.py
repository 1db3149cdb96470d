"""Zip files whose bytes depend on their content only.

The standard library's writer leaves some header fields to its version, and compressed
bytes depend on which zlib a Python was built with; a package must have the same digest
from a laptop and from a Job. So the few records of the format are written here, and
nothing is compressed: registries and nodes see the files' own bytes, which deduplicate
and need no time to pack. Format: APPNOTE.TXT 6.3.9 of PKWARE, without zip64.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

MOST_BYTES = 0xFFFF_FFFF - (1 << 24)
"""Bound of the format without zip64, with room for the records."""

MOST_FILES = 0xFFFF - 1

FILE_MODE, EXECUTABLE_MODE, LINK_MODE = 0o100644, 0o100755, 0o120777

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_NEEDED = 20
_MADE_BY = 3 << 8 | _NEEDED  # Unix, so that modes count
_UTF8_NAMES = 0x800
_STORED = 0
_TIME, _DATE = 0, 1 << 5 | 1  # midnight of 1980-01-01, the format's first day
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Written:
    name: bytes
    mode: int
    crc: int
    size: int
    offset: int


class ZipBody:
    """Entries of a zip file in the order they are added, before what comes first is known.

    Args:
        path: File for the entries, replaced when it exists; `finish` makes a zip file of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("w+b")
        self._entries: list[_Written] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, mode: int, content: Iterable[bytes]) -> None:
        """Append a file; its content is read once."""
        offset = self._file.tell()
        written = _Written(name=name.encode(), mode=mode, crc=0, size=0, offset=offset)
        self._file.write(_local(written))
        crc, size = 0, 0
        for chunk in content:
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            self._file.write(chunk)
        written = _Written(name=written.name, mode=mode, crc=crc, size=size, offset=offset)
        self._file.seek(offset)
        self._file.write(_local(written))
        self._file.seek(0, 2)
        self._entries.append(written)

    def finish(self, target: Path, first_name: str, first: bytes) -> None:
        """Write the zip file: ``first`` as the first entry, then all that was added."""
        head = _Written(name=first_name.encode(), mode=FILE_MODE, crc=zlib.crc32(first), size=len(first), offset=0)
        with target.open("wb") as out:
            out.write(_local(head))
            out.write(first)
            shift = out.tell()
            self._file.seek(0)
            shutil.copyfileobj(self._file, out, _CHUNK)
            start = out.tell()
            out.write(_central(head, 0))
            for entry in self._entries:
                out.write(_central(entry, shift))
            size = out.tell() - start
            number = len(self._entries) + 1
            out.write(_END.pack(b"PK\x05\x06", 0, 0, number, number, size, start, 0))


def _local(entry: _Written) -> bytes:
    record = _LOCAL.pack(
        b"PK\x03\x04", _NEEDED, _UTF8_NAMES, _STORED, _TIME, _DATE,
        entry.crc, entry.size, entry.size, len(entry.name), 0,
    )  # fmt: skip
    return record + entry.name


def _central(entry: _Written, shift: int) -> bytes:
    record = _CENTRAL.pack(
        b"PK\x01\x02", _MADE_BY, _NEEDED, _UTF8_NAMES, _STORED, _TIME, _DATE,
        entry.crc, entry.size, entry.size, len(entry.name), 0, 0, 0, 0,
        entry.mode << 16, entry.offset + shift,
    )  # fmt: skip
    return record + entry.name
