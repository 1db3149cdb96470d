"""Which shared libraries the programs of a tree need, read from their ELF headers.

Format: System V ABI, chapter 5 (dynamic section), 64-bit little-endian only, as are the
machines that images are made for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
_DYNAMIC_SEGMENT = 2
_LOAD_SEGMENT = 1
_NEEDED = 1
_STRING_TABLE = 5


def needed(path: Path) -> tuple[str, ...]:
    """Names of the libraries that an ELF file is linked to; empty for any other file."""
    with path.open("rb") as file:
        if file.read(6) != _MAGIC:
            return ()
        file.seek(0)
        image = file.read()
    offset, size, count = struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54)
    segments = [struct.unpack_from("<IIQQQQ", image, offset + number * size) for number in range(count)]
    loads = [(segment[3], segment[2], segment[5]) for segment in segments if segment[0] == _LOAD_SEGMENT]
    for kind, _, start, _, _, length in segments:
        if kind == _DYNAMIC_SEGMENT:
            entries = list(struct.iter_unpack("<QQ", image[start : start + length - length % 16]))
            table = next((value for tag, value in entries if tag == _STRING_TABLE), None)
            if table is None:
                return ()
            strings = _file_offset(table, loads)
            return tuple(_text(image, strings + value) for tag, value in entries if tag == _NEEDED)
    return ()


def missing_libraries(trees: Iterable[Path]) -> dict[str, list[str]]:
    """Libraries that something in these trees needs and none of them holds, with who needs them.

    The trees are laid over each other, as layers are.
    """
    present: set[str] = set()
    wanted: dict[str, list[str]] = {}
    for tree in trees:
        for path in _files(tree):
            present.add(path.name)
            if not path.is_symlink():
                for library in needed(path):
                    wanted.setdefault(library, []).append(str(path.relative_to(tree)))
    return {library: users for library, users in sorted(wanted.items()) if library not in present}


def _files(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or path.is_file():
            yield path


def _file_offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    for virtual, start, length in loads:
        if virtual <= address < virtual + length:
            return address - virtual + start
    raise ValueError(f"address {address:#x} is in no segment")


def _text(image: bytes, start: int) -> str:
    return image[start : image.index(b"\0", start)].decode()
