"""Header blocks: HPACK by the hpack library, and what HTTP/2 demands of a request's fields.

To decode a block costs more than all the rest of a small call. Clients send nearly the same
block with every call, as bare references into the table that both sides keep; as long as that
table stays as it is, equal bytes have equal meaning, so their reading is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import hpack

from slipway_runtime.grpc.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, Broken, BrokenStream

Fields = dict[bytes, bytes]

T = TypeVar("T")

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_FORBIDDEN = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[^\x00\r\n]*")
_KEPT = 32
_KEPT_BYTES = 512
"""How many blocks are kept of a connection, and how long they may be: a client must not fill the memory with them."""


class HeaderReader(Generic[T]):
    """Reads the header blocks of one connection."""

    def __init__(self, meaning: Callable[[Fields], T], limit: int) -> None:
        """Prepare.

        Args:
            meaning: What a request's fields mean to the layer above; kept for blocks that come again.
            limit: Bytes that the fields of a request may have, as SETTINGS_MAX_HEADER_LIST_SIZE counts.
        """
        self._decoder = hpack.Decoder(max_header_list_size=limit)
        self._meaning = meaning
        self._known: dict[bytes, T] = {}

    def request(self, block: bytes) -> T:
        """Read the header of a request.

        Raises:
            Broken: If it cannot be decoded, or is too large.
            BrokenStream: If its fields are not those of a request.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        pairs, kept = self._decode(block)
        meaning = self._meaning(_request_fields(pairs))
        if kept and len(block) <= _KEPT_BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[block] = meaning
        return meaning

    def forget(self) -> None:
        """Read each block anew: what it means has changed, as who may call has."""
        self._known.clear()

    def trailer(self, block: bytes) -> None:
        """Read fields after a body: they mean nothing here, but change the table."""
        pairs, _ = self._decode(block)
        if any(name.startswith(b":") or not _NAME.fullmatch(name) for name, _ in pairs):
            raise BrokenStream(PROTOCOL_ERROR)

    def skip(self, block: bytes) -> None:
        """Read fields that nobody wants, as they change the table."""
        self._decode(block)

    def _decode(self, block: bytes) -> tuple[Sequence[tuple[bytes, bytes]], bool]:
        """Decode; says also whether the table is as it was before."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (len(entries), entries[0] if entries else None, table.maxsize)
        try:
            pairs = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.OversizedHeaderListError:
            raise Broken(ENHANCE_YOUR_CALM, "the request's header is too large") from None
        except hpack.HPACKError:
            raise Broken(COMPRESSION_ERROR, "the header block cannot be decoded") from None
        after = (len(entries), entries[0] if entries else None, table.maxsize)
        kept = before[0] == after[0] and before[1] is after[1] and before[2] == after[2]
        if not kept:
            self._known.clear()
        return pairs, kept


def _request_fields(pairs: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Check a request's fields (RFC 9113, sections 8.2 and 8.3).

    Raises:
        BrokenStream: If they are malformed.
    """
    fields: Fields = {}
    regular = False
    for name, value in pairs:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in _FORBIDDEN:
            raise BrokenStream(PROTOCOL_ERROR)
        if name.startswith(b":"):
            if regular or name not in _PSEUDO or name in fields:
                raise BrokenStream(PROTOCOL_ERROR)
        else:
            regular = True
        # Metadata may come more than once; nothing that is read here may, so the first one counts.
        fields.setdefault(name, value)
    if b":method" not in fields or b":scheme" not in fields or not fields.get(b":path"):
        raise BrokenStream(PROTOCOL_ERROR)
    if fields.get(b"te", b"trailers") != b"trailers":
        raise BrokenStream(PROTOCOL_ERROR)
    return fields


class Block:
    """Fields of an answer; compared by identity, as most are sent again and again."""

    __slots__ = ("again", "pairs")

    def __init__(self, *pairs: tuple[bytes, bytes], again: bool = True) -> None:
        self.pairs = pairs
        self.again = again
        """Whether the table should know them."""


class HeaderWriter:
    """Writes the header blocks of one connection; they must be sent in the order in which they are written."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()
        self._known: dict[Block, bytes] = {}

    def limit(self, size: int) -> None:
        """Keep the table as small as the client wants."""
        self._encoder.header_table_size = min(size, 4096)
        self._known.clear()

    def block(self, fields: Block) -> bytes:
        """Write fields."""
        known = self._known.get(fields)
        if known is not None:
            return known
        if not fields.again:
            return bytes(self._encoder.encode([(*pair, True) for pair in fields.pairs], huffman=False))
        known = bytes(self._encoder.encode(fields.pairs))
        if len(known) == len(fields.pairs):
            # Nothing but references into the table: it stays as it is.
            self._known[fields] = known
        else:
            self._known.clear()
        return known
