"""The engine of a model that cannot be ONNX: a worker in the project's own environment answers.

It runs in a second container of the pod, and is reached over a socket in a directory that both
mount; ``docs/worker-protocol.md`` is the description of the messages. The worker runs a project's
code, so nothing that it does may harm this process: its bytes are checked like a caller's, what
it shares is read and never mapped (a file that is cut off under a mapping ends the process), and
whatever takes too long is given up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import tempfile
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import orjson

from slipway_runtime.errors import CannotServe, EngineFailed, InvalidRequest, Refused, TooLarge, TooLate, Unavailable
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.datatypes import datatype_named
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import NULL, Array, from_binary, shape_of, to_binary

_MAGIC = b"SLW1"
_HEAD = struct.Struct("<4sI")
_HEADER_BYTES = 1 << 20
_ANSWER_BYTES = 256 << 20
_INLINE_BYTES = 64 << 10
_KEPT_BYTES = 1 << 20
"""What the file for large tensors may keep of the shared memory when messages are small again."""
_FILES = "runtime-"
"""How the names of such files begin; a process's number follows."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MISSING = struct.pack("<I", 0xFFFFFFFF)
_END_SECONDS = 1.0
"""What a worker that hangs is given to end: until then the kernel would still take connections for it."""
_CONNECT_SECONDS = 0.05  # a socket in this pod answers at once, or not at all


class WorkerEngine:
    """A model behind a socket. `run` belongs to one thread at a time, `is_ready` to any."""

    waits = True
    """A run waits for another process: it may not be done on the loop's thread."""

    def __init__(self, path: Path, signature: Signature, *, seconds: float, start_seconds: float) -> None:
        """Connect, once the worker has loaded its model.

        Args:
            path: The worker's socket.
            signature: What the model takes and gives.
            seconds: How long a prediction may take.
            start_seconds: How long the worker may take to begin.

        Raises:
            CannotServe: If it does not begin in time.
        """
        self._path = path
        self._signature = signature
        self._seconds = seconds
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._file: int | None = None
        self._name = ""
        self._file_bytes = 0
        self._pid = os.getpid()
        self._away_until = 0.0
        _remove_left(path.parent)
        end = monotonic() + start_seconds
        while not self.is_ready():
            if monotonic() > end:
                raise CannotServe(
                    f"the worker did not begin within {start_seconds:g} s; look at the log of its container"
                )
            sleep(0.05)

    def is_ready(self) -> bool:
        """Tell whether the worker could be asked now; connects again if it has been away."""
        if not self._lock.acquire(blocking=False):
            return True  # it is being asked
        try:
            self._own()
            if self._connection is not None and _is_gone(self._connection):
                self._hang_up()
            return self._connection is not None or self._connect()
        finally:
            self._lock.release()

    def run(self, feeds: Feeds) -> list[Array]:
        """Have the worker compute all outputs, in the signature's order.

        Raises:
            Refused: The model raised on these values.
            TooLarge: The rows, or the answers to them, have no room in what the two share.
            Unavailable: There is no worker at the moment.
            TooLate: It took too long, and was given up.
            EngineFailed: Its answer is not what the signature says.
        """
        with self._lock:
            self._own()
            if self._connection is None and not self._connect():
                raise Unavailable("the model's worker is starting; try again in a moment")
            try:
                return self._ask(feeds)
            except TimeoutError:
                self._hang_up()
                self._away_until = monotonic() + _END_SECONDS
                raise TooLate(f"the model did not answer within {self._seconds:g} s") from None
            except OSError as error:
                self._hang_up()
                raise Unavailable("the model's worker ended; try again in a moment") from error
            except EngineFailed:
                self._hang_up()
                raise

    def _own(self) -> None:
        """In a process that was forked: have a connection and a file of its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._hang_up()
            if self._file is not None:
                os.close(self._file)  # the name is the parent's
            self._file, self._file_bytes = None, 0
            _remove_left(self._path.parent)

    def _connect(self) -> bool:
        if monotonic() < self._away_until:
            return False
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:
            return False  # there is no descriptor left at the moment
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        return True

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, feeds: Feeds) -> list[Array]:
        inputs, parts = [], []
        for spec in self._signature.inputs:
            array = feeds[spec.tensor]
            raw = _text_bytes(array) if spec.datatype.is_text else to_binary(array, spec.datatype)
            inputs.append({"name": spec.name, "datatype": spec.datatype.name, "shape": array.shape, "size": len(raw)})
            parts.append(raw)
        end = monotonic() + self._seconds
        self._send({"inputs": inputs, "timeout": self._seconds}, parts, end)
        header, body = self._receive(end)
        if header.get("error") == "TooLarge":
            raise TooLarge("the answer to so many rows has no room beside the model's worker; send fewer rows")
        if "error" in header:
            raise Refused(f"the model cannot compute an answer for these values ({str(header['error'])[:60]})")
        try:
            return self._outputs(header["outputs"], body, self._rows_of(feeds))
        except (InvalidRequest, KeyError, TypeError, ValueError) as error:
            raise EngineFailed("the model's worker gave another answer than its signature says") from error

    def _rows_of(self, feeds: Feeds) -> int | None:
        """Give how many rows each output must have; None where they are not rows."""
        signature = self._signature
        return int(feeds[signature.inputs[0].tensor].shape[0]) if signature.is_batched else None

    def _outputs(self, described: list[dict[str, Any]], body: memoryview, rows: int | None) -> list[Array]:
        found: dict[str, Array] = {}
        offset = 0
        for item in described:
            spec = self._signature.output_named[item["name"]]
            size = int(item["size"])
            if datatype_named(item["datatype"], spec.name) is not spec.datatype or not 0 <= size <= len(body) - offset:
                raise ValueError(spec.name)
            shape = shape_of(item["shape"], spec.name)
            array = from_binary(body[offset : offset + size], spec.datatype, shape, spec.name, may_miss=True)
            found[spec.name] = _shaped(spec, array)
            offset += size
            if rows is not None and found[spec.name].shape[0] != rows:
                raise ValueError(f"{spec.name} has {found[spec.name].shape[0]} rows for {rows}")
        return [found[spec.name] for spec in self._signature.outputs]

    def _send(self, header: dict[str, Any], parts: list[bytes], end: float) -> None:
        length = sum(map(len, parts))
        header["bytes"] = length
        if self._file_bytes > max(_KEPT_BYTES, 4 * length):
            self._drop_file()
        if length > _INLINE_BYTES:
            header["file"] = self._write(parts, length)
            parts = []
        raw = orjson.dumps(header)
        connection = self._timed(end)
        connection.sendall(b"".join([_HEAD.pack(_MAGIC, len(raw)), raw, *parts]))

    def _write(self, parts: list[bytes], length: int) -> str:
        """Put large tensors into this process's own file beside the socket, which is memory; gives its name."""
        try:
            if self._file is None:
                self._file, path = tempfile.mkstemp(prefix=f"{_FILES}{self._pid}-", dir=self._path.parent)
                self._name = Path(path).name
                os.fchmod(self._file, 0o640)
            offset = 0
            for part in parts:
                view = memoryview(part)
                while view:
                    written = os.pwrite(self._file, view, offset)
                    offset += written
                    view = view[written:]
        except OSError as error:
            self._drop_file()
            if error.errno not in _NO_ROOM:
                raise
            raise TooLarge("so many rows have no room beside the model's worker; send fewer rows") from error
        self._file_bytes = max(self._file_bytes, length)
        return self._name

    def _drop_file(self) -> None:
        """Give its memory back; a worker that has mapped it keeps what it sees."""
        if self._file is not None:
            os.close(self._file)
            (self._path.parent / self._name).unlink(missing_ok=True)
        self._file, self._file_bytes = None, 0

    def _receive(self, end: float) -> tuple[dict[str, Any], memoryview]:
        magic, size = _HEAD.unpack(self._exactly(_HEAD.size, end))
        if magic != _MAGIC or size > _HEADER_BYTES:
            raise EngineFailed("the model's worker speaks another language")
        try:
            header = orjson.loads(self._exactly(size, end))
            length = int(header.get("bytes", 0))
            name = header.get("file")
        except (orjson.JSONDecodeError, TypeError, ValueError, AttributeError) as error:
            raise EngineFailed("the model's worker speaks another language") from error
        if not 0 <= length <= _ANSWER_BYTES:
            raise EngineFailed(f"the model's answer has {length} bytes; at most {_ANSWER_BYTES} are taken")
        body = self._exactly(length, end) if name is None else self._read(str(name), length)
        return header, memoryview(body)

    def _read(self, name: str, length: int) -> bytes:
        """Read from a file of the worker's: a regular one, in this directory, and no further than it goes."""
        if "\0" in name:
            raise EngineFailed("the model's worker names something that is no file")
        handle = os.open(
            self._path.parent / Path(name).name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        with os.fdopen(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise EngineFailed("the model's worker names something that is no file")
            pieces = []
            while length and (piece := file.read(length)):
                pieces.append(piece)
                length -= len(piece)
        if length:
            raise EngineFailed("the model's worker names a file that is too short")
        return b"".join(pieces)

    def _exactly(self, size: int, end: float) -> bytes:
        pieces = []
        while size:
            piece = self._timed(end).recv(min(size, 1 << 20))
            if not piece:
                raise ConnectionResetError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _timed(self, end: float) -> socket.socket:
        """Give the connection, with what is left of the time."""
        left = end - monotonic()
        if left <= 0 or self._connection is None:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection


def _remove_left(folder: Path) -> None:
    """Remove the files of processes that are no more: the directory is memory, and outlives a container."""
    own = os.getpid()
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += folder.glob(f"{_FILES}*")
    for path in found:
        number = path.name.removeprefix(_FILES).partition("-")[0]
        # A container's first process is alone when it begins: what has a number is of one before it, also its own.
        if own == 1 or not number.isdecimal() or not _lives(int(number)):
            with contextlib.suppress(OSError):
                path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is another user's
    return True


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the other side has closed, or says something that nobody asked for."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _text_bytes(array: Array) -> bytes:
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        if value is NULL or value is None:
            parts.append(_MISSING)
        else:
            text = str(value).encode()
            parts += (len(text).to_bytes(4, "little"), text)
    return b"".join(parts)


def _shaped(spec: TensorSpec, array: Array) -> Array:
    """Check an output's shape; a column of one value may come with or without its second dimension."""
    expected = spec.shape
    if array.ndim + 1 == len(expected) and expected[-1] == 1:
        array = array.reshape(*array.shape, 1)
    elif array.ndim == len(expected) + 1 and array.shape[-1] == 1:
        array = array.reshape(array.shape[:-1])
    if array.ndim != len(expected) or any(
        want not in (-1, size) for want, size in zip(expected, array.shape, strict=True)
    ):
        raise ValueError(f"{spec.name} has shape {array.shape}")
    return array
