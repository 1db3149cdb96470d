"""The form of infer request that nearly everybody sends, read in a tenth of the time.

One tensor of plain numbers in JSON, in the model's own datatype, for a model with one matrix:
its values become bytes, and no array, in one call of `struct`. The numbers of a large request
become no Python objects at all: simdjson reads a hundred rows of thirty in half of the time that
orjson and `struct` need for it. Whatever is not of this form, or not right, is left to
`slipway_runtime.protocol.requests`, which knows all forms and all messages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slipway_runtime.protocol.signature import Signature

if TYPE_CHECKING:
    import simdjson

_KEPT_PACKERS = 256
LARGE = 2048
"""Bytes of a body from which on simdjson is faster: it gives every list and object a wrapper."""
_KEPT_PARSER = 1 << 18
"""Bytes of a body up to which simdjson's buffers, some ten times as large, are kept for the next one."""
_CANNOT_READ = (KeyError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError)


class Packed(NamedTuple):
    """Rows as the bytes of the model's matrix, and the caller's id."""

    raw: bytes
    rows: int
    id: str | None


class Packer:
    """Reads requests for one model, if they are of the usual form."""

    def __init__(self, signature: Signature, *, max_rows: int) -> None:
        only = signature.inputs[0]
        # Booleans are left out: `struct` would take anything for one.
        fits = len(signature.inputs) == 1 and only.is_plain and len(only.shape) == 2 and only.datatype.code != "?"
        self.matrix = only if fits else None
        """The input that packed rows are for; None where the model has no such input."""
        self._name = only.name
        self._datatype = only.datatype
        self._width = only.shape[-1]
        self._max_rows = max_rows
        self._packers: dict[int, Callable[..., bytes]] = {}
        self._is_float = self.matrix is not None and self.matrix.datatype.name in ("FP32", "FP64")
        self._parser: simdjson.Parser | None = None

    def pack_large(self, body: bytes) -> Packed | None:
        """Read a large request from its bytes; None if it is of another form, or wrong.

        A body of the usual form has three lists, so that none is inside another, and begins with
        its object: simdjson would take a nested list for a flat one, and pass over a mark of byte order.
        """
        if not self._is_float or not body.startswith(b"{") or not _has_three_lists(body):
            return None
        parser, self._parser = self._parser or _parser(), None
        try:
            packed = self._read(parser.parse(body))
        except _CANNOT_READ:
            return None
        if len(body) <= _KEPT_PARSER:
            self._parser = parser
        return packed

    def _read(self, document: Any) -> Packed | None:
        tensor = document["inputs"][0]
        identifier = document["id"] if len(document) == 2 else None
        shape, values = tensor["shape"].as_list(), np.frombuffer(tensor["data"].as_buffer(of_type="d"))
        if (
            len(document) > 2  # a key that comes twice counts twice
            or len(tensor) != 4
            or (len(document) == 2 and type(identifier) is not str)
            or tensor["name"] != self._name
            or tensor["datatype"] != self._datatype.name
            or len(document["inputs"]) != 1
        ):
            return None
        rows, width = shape
        whole = type(width) is int and type(rows) is int
        if not whole or width != self._width or not 0 < rows <= self._max_rows or len(values) != rows * width:
            return None
        with np.errstate(over="ignore"):
            array = values.astype(self._datatype.array)
        if np.isinf(array).any():  # JSON has none: a number was too large
            return None
        return Packed(array.tobytes(), rows, identifier)

    def pack(self, document: dict[str, Any]) -> Packed | None:
        """Read a request; None if it is of another form, or wrong."""
        tensors = document.get("inputs")
        identifier = document.get("id")
        if len(document) != 1 and (len(document) != 2 or type(identifier) is not str):
            return None
        if self.matrix is None or type(tensors) is not list or len(tensors) != 1:
            return None
        tensor = tensors[0]
        try:
            shape, data = tensor["shape"], tensor["data"]
            rows, width = shape
            if (
                len(tensor) != 4
                or tensor["name"] != self._name
                or tensor["datatype"] != self._datatype.name
                or width != self._width
                or type(width) is not int
                or type(rows) is not int
                or not 0 < rows <= self._max_rows
                or type(data) is not list
                or len(data) != rows * width
            ):
                return None
            return Packed(self._packer(rows)(*data), rows, identifier)
        except (KeyError, TypeError, ValueError, OverflowError, struct.error):
            return None

    def _packer(self, rows: int) -> Callable[..., bytes]:
        """Give the function that packs so many rows; made once, as to read a format takes half of the time."""
        packer = self._packers.get(rows)
        if packer is None:
            if len(self._packers) >= _KEPT_PACKERS:
                self._packers.clear()
            packer = self._packers[rows] = struct.Struct(f"<{rows * self._width}{self._datatype.code}").pack
        return packer


def _has_three_lists(body: bytes) -> bool:
    place = 0
    for _ in range(3):
        place = body.find(b"[", place) + 1
        if place == 0:
            return False
    return body.find(b"[", place) < 0  # to search is six times as fast as to count


def _parser() -> simdjson.Parser:
    import simdjson  # noqa: PLC0415 -- who is never asked for many rows does not pay for it

    return simdjson.Parser()
