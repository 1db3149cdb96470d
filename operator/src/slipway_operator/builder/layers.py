"""Image layers that are equal whenever their files are: tar and gzip without chance.

A layer's digest decides whether a registry stores and a node pulls it again, so nothing
but names, modes and bytes may reach it: entries are sorted, times are zero, owners are
given, modes are normalised, the gzip header carries neither name nor time. Compression
runs in threads over blocks of a fixed size, so that the bytes do not depend on how many.
(They do depend on the version of zlib; two builders with one image agree.)

Neighbours: `bytecode` fills a tree before it is packed; `registry` pushes what is made here.
Standard library only: the tool that makes Slipway's own images uses it too.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from slipway_operator.builder.errors import StepFailed

BLOCK = 1 << 20
"""Bytes that are compressed on their own; part of the format, as it decides the digest."""

LEVEL = 1
"""zlib's fastest: a layer is written once and read over a fast network; 6 costs three times the CPU for 8 % less."""

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, no flags (so no name), time zero, "fastest", no operating system."""

_THREADS = 2
_AHEAD = 8
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_STICKY = 0o1777


@dataclass(frozen=True, kw_only=True)
class LayerDigests:
    """What a registry and an image's config need to know of a layer.

    Attributes:
        digest: ``sha256:<hex>`` of the compressed file, which names the blob.
        diff_id: ``sha256:<hex>`` of the uncompressed tar, for the image's config.
        size: Bytes of the compressed file.
        unpacked: Bytes of the uncompressed tar.
    """

    digest: str
    diff_id: str
    size: int
    unpacked: int


def write_layer(root: Path, prefix: str, out: Path, *, uid: int = 0, gid: int = 0) -> LayerDigests:
    """Write the tree below ``root`` as a gzipped layer in which it appears below ``prefix``.

    Directories become 0755 (0777 with the sticky bit stays), files 0755 when their owner may
    execute them and 0644 when not; setuid and setgid bits are dropped. Symbolic links are
    kept and never followed; hard links within the tree stay links to the first name in order.

    Args:
        root: Directory whose content is packed.
        prefix: Path in the image, such as ``opt/env``; empty for the image's root. Its
            directories are entries of the layer, owned by root.
        out: File to write, replaced when it exists.
        uid: Owner of everything below ``prefix``.
        gid: Group of everything below ``prefix``.

    Raises:
        StepFailed: The tree holds a device, a socket or a pipe.
    """
    with out.open("wb") as file, _Gzip(cast("BinaryIO", file)) as sink:
        # The sink has all that tarfile asks of a file: write and tell.
        tar = tarfile.TarFile(fileobj=cast("BinaryIO", sink), mode="w", format=tarfile.PAX_FORMAT, copybufsize=BLOCK)
        for parent in _parents(prefix):
            tar.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))
        links: dict[tuple[int, int], str] = {}
        for name, path, status in _walk(root, prefix.strip("/")):
            entry = _entry_for(name, path, status, links)
            entry.uid, entry.gid = uid, gid
            if entry.isreg():
                with open(os.open(path, _OPEN_FLAGS), "rb") as content:  # noqa: PTH123  # a descriptor, not a path
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
        tar.close()
    return sink.digests()


def _parents(prefix: str) -> list[str]:
    parts = [part for part in prefix.split("/") if part]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _walk(root: Path, name: str) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield everything below ``root`` in the order of its path's bytes, a directory before its content."""
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        below = f"{name}/{entry.name}" if name else entry.name
        status = entry.stat(follow_symlinks=False)
        path = root / entry.name
        yield below, path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, below)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    return entry


def _entry_for(name: str, path: Path, status: os.stat_result, links: dict[tuple[int, int], str]) -> tarfile.TarInfo:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return _entry(name, tarfile.DIRTYPE, _STICKY if mode & _STICKY == _STICKY else 0o755)
    if stat.S_ISLNK(mode):
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = os.readlink(path)  # noqa: PTH115  # the text as it is, not a path to normalise
        return entry
    if not stat.S_ISREG(mode):
        raise StepFailed("UnsupportedFile", f"{name} is neither a file, a directory nor a link: remove it")
    permissions = 0o755 if mode & stat.S_IXUSR else 0o644
    first = links.setdefault((status.st_dev, status.st_ino), name)
    if first != name:
        entry = _entry(name, tarfile.LNKTYPE, permissions)
        entry.linkname = first
        return entry
    entry = _entry(name, tarfile.REGTYPE, permissions)
    entry.size = status.st_size
    return entry


class _Gzip:
    """A write-only file that compresses blocks in threads into one gzip member.

    Each block is a deflate stream of its own, ended by a sync flush, as pigz does it
    (https://zlib.net/pigz/, --independent), so any gunzip reads the result.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._check = 0
        self._read = 0
        self._written = 0

    def __enter__(self) -> Self:
        self._emit(GZIP_HEADER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def tell(self) -> int:
        return self._read

    def write(self, data: bytes) -> int:
        self._read += len(data)
        self._block += data
        while len(self._block) >= BLOCK:
            self._submit(bytes(self._block[:BLOCK]), last=False)
            del self._block[:BLOCK]
        return len(data)

    def digests(self) -> LayerDigests:
        return LayerDigests(
            digest=f"sha256:{self._packed.hexdigest()}",
            diff_id=f"sha256:{self._plain.hexdigest()}",
            size=self._written,
            unpacked=self._read,
        )

    def _finish(self) -> None:
        self._submit(bytes(self._block), last=True)
        self._block.clear()
        while self._pending:
            self._emit(self._pending.popleft().result())
        self._emit(struct.pack("<LL", self._check, self._read & 0xFFFFFFFF))

    def _submit(self, block: bytes, *, last: bool) -> None:
        self._pending.append(self._pool.submit(_deflate, block, last=last))
        # Hashing here, beside the threads: all three let go of the interpreter's lock.
        self._plain.update(block)
        self._check = zlib.crc32(block, self._check)
        while len(self._pending) > _AHEAD or (self._pending and self._pending[0].done()):
            self._emit(self._pending.popleft().result())

    def _emit(self, data: bytes) -> None:
        self._packed.update(data)
        self._written += len(data)
        self._file.write(data)


def _deflate(block: bytes, *, last: bool) -> bytes:
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(block) + stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
