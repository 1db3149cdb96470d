"""Bytes without end for the parsers, guided by what they reach: ``make fuzz-runtime`` (atheris).

    uv run python tests/fuzz/fuzz_parsers.py [-max_total_time=40] [-runs=1000000]
    ONLY=frames uv run python tests/fuzz/fuzz_parsers.py [-max_total_time=20]

The first byte chooses the parser, unless ``ONLY`` names it. A parser may say no in its own words
(`SlipwayRuntimeError`, with a message that can be sent); anything else that it raises is a crash, and
libFuzzer keeps the input. Connections are whole ones, of HTTP and of gRPC, with a model behind them
(`tests.fuzz.wired`).
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # it ships no types

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["slipway_runtime"]):
    from tests.fuzz.wired import CALL, FIELDS, FRAMES, MESSAGE, WORKER_ANSWER, Wired

    from slipway_runtime.engines.onnx_file import refuse_external_data
    from slipway_runtime.errors import SlipwayRuntimeError
    from slipway_runtime.grpc.codec import read_infer
    from slipway_runtime.grpc.frames import Broken, BrokenStream
    from slipway_runtime.grpc.headers import HeaderReader
    from slipway_runtime.observing.reference import read_reference
    from slipway_runtime.protocol.alignment import Aligner
    from slipway_runtime.protocol.compression import inflated
    from slipway_runtime.protocol.datatypes import DATATYPES
    from slipway_runtime.protocol.feedback import EXAMPLE, read_feedback
    from slipway_runtime.protocol.packing import Packer
    from slipway_runtime.protocol.requests import decode_infer
    from slipway_runtime.protocol.rows import RowReader
    from slipway_runtime.protocol.signature import read_signature
    from slipway_runtime.protocol.tables import read_table, wants_table

from tests.fuzz.attacks import GOOD, ROWS, TABLE, request
from tests.unit.runtime.conftest import echo, linear

_SIGNATURES = [read_signature(json.dumps(files().signature).encode()) for files in (echo, linear)]
_ALIGNERS = [Aligner(signature, max_rows=1000) for signature in _SIGNATURES]
_PACKER = Packer(_SIGNATURES[1], max_rows=1000)
_WIRED = Wired()
_READERS = [RowReader(signature, {}, max_rows=1000) for signature in _SIGNATURES]


def _infer(raw: bytes, length: int | None) -> None:
    request = decode_infer(raw, length)
    for aligner in _ALIGNERS:
        aligner.align(request.inputs)


def _rows(raw: bytes) -> None:
    for reader, aligner in zip(_READERS, _ALIGNERS, strict=True):
        aligner.align(reader.read(raw))


def _table(raw: bytes) -> None:
    for reader, aligner in zip(_READERS, _ALIGNERS, strict=True):
        aligner.align(reader.read_table(raw))
    read_table(raw, DATATYPES, "", max_rows=1000)


def _reference(raw: bytes) -> None:
    try:
        read_reference(raw, _SIGNATURES[0], most=10)
    except ValueError:
        return


def _packed(raw: bytes) -> None:
    packed = _PACKER.pack_large(raw)
    if packed is not None:
        feeds, rows = _ALIGNERS[1].align(decode_infer(raw, None).inputs)
        ((_, array),) = feeds.items()
        if (packed.raw, packed.rows) != (array.tobytes(), rows):
            raise AssertionError("simdjson reads something else")


def _headers(raw: bytes) -> None:
    """Read blocks one after the other: what one means depends on those before it."""
    reader = HeaderReader(_WIRED.meaning, 16_384)
    for place, block in enumerate(raw.split(b"\0\0\0")):
        try:
            (reader.request, reader.request, reader.trailer, reader.skip)[place % 4](block)
        except BrokenStream:
            continue
        except Broken as broken:
            str(broken).encode()
            return


def _inflated(raw: bytes) -> None:
    for encoding in (b"gzip", b"deflate", b"br"):
        try:
            if len(inflated(raw, encoding, 10_000, "grpc-encoding")) > 10_000:
                raise AssertionError("more than the limit")
        except SlipwayRuntimeError as error:
            error.message.encode()


PARSERS = {
    "infer": lambda raw: _infer(raw, None),
    "binary": lambda raw: _infer(raw[1:], raw[0] if raw else 0),
    "rows": _rows,
    "table": _table,
    "onnx": refuse_external_data,
    "signature": read_signature,
    "reference": _reference,
    "accept": wants_table,
    "packed": _packed,
    "feedback": lambda raw: read_feedback(raw, max_rows=100),
    "message": read_infer,
    "headers": _headers,
    "inflated": _inflated,
    "frames": _WIRED.frames,
    "http2": _WIRED.http2,
    "http1": _WIRED.http1,
    "worker": _WIRED.worker,
}
_NAMES = list(PARSERS)
_ONLY = os.environ.get("ONLY")

SEEDS: dict[str, list[bytes | str]] = {
    "infer": [json.dumps(GOOD).encode()],
    "binary": [b"\x40" + json.dumps(GOOD).encode()],
    "rows": [json.dumps(ROWS).encode()],
    "table": [TABLE],
    "packed": [
        json.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1e3]}], "id": "a"})
    ],
    "feedback": [EXAMPLE, json.dumps({"id": "a", "truth": [1, "x", None, True]})],
    "message": [MESSAGE],
    "headers": [FIELDS, FIELDS + b"\0\0\0" + FIELDS],
    "inflated": [gzip.compress(bytes(9)), gzip.compress(bytes(20_000)), b"\x78\x9c\x63\x00\x00\x00\x01\x00\x01"],
    "frames": [*FRAMES],
    "http2": [CALL],
    "http1": [
        b"\x20" + request(json.dumps(GOOD).encode()) + request(json.dumps(ROWS).encode(), path="/predict"),
        b"\x07POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n\r\n",
        b"\xffGET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
    "worker": [b"\1" + WORKER_ANSWER, b'\1{"error":"ValueError"}\0', b'\1{"bytes":13,"file":"short\\u0000"}\0'],
}


def one_input(data: bytes) -> None:
    """Give some bytes to the parser that is chosen, or that the first of them names."""
    if not data:
        return
    name = _ONLY or _NAMES[data[0] % len(_NAMES)]
    try:
        PARSERS[name](data if _ONLY else data[1:])
    except SlipwayRuntimeError as error:
        error.message.encode()  # what cannot be written cannot be answered


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    if corpus is not None:
        corpus.mkdir(parents=True, exist_ok=True)
        for name, seeds in SEEDS.items():
            first = b"" if _ONLY else bytes([_NAMES.index(name)])
            for place, seed in enumerate(seeds if _ONLY in (None, name) else []):
                raw = seed if isinstance(seed, bytes) else seed.encode()
                (corpus / f"good-{name}-{place}").write_bytes(first + raw)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
