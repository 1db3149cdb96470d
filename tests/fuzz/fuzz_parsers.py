"""Bytes without end for the parsers, guided by what they reach: ``make fuzz-runtime`` (atheris).

    uv run python tests/fuzz/fuzz_parsers.py [-max_total_time=40] [-runs=1000000]

The first byte chooses the parser. A parser may say no in its own words (`SlipwayRuntimeError`, with a
message that can be sent); anything else that it raises is a crash, and libFuzzer keeps the input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # it ships no types

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["slipway_runtime"]):
    from slipway_runtime.engines.onnx_file import refuse_external_data
    from slipway_runtime.errors import SlipwayRuntimeError
    from slipway_runtime.observing.reference import read_reference
    from slipway_runtime.protocol.alignment import Aligner
    from slipway_runtime.protocol.datatypes import DATATYPES
    from slipway_runtime.protocol.packing import Packer
    from slipway_runtime.protocol.requests import decode_infer
    from slipway_runtime.protocol.rows import RowReader
    from slipway_runtime.protocol.signature import read_signature
    from slipway_runtime.protocol.tables import read_table, wants_table

from tests.fuzz.attacks import GOOD, ROWS, TABLE
from tests.unit.runtime.conftest import echo, linear

_SIGNATURES = [read_signature(json.dumps(files().signature).encode()) for files in (echo, linear)]
_ALIGNERS = [Aligner(signature, max_rows=1000) for signature in _SIGNATURES]
_PACKER = Packer(_SIGNATURES[1], max_rows=1000)
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


_PARSERS = [
    lambda raw: _infer(raw, None),
    lambda raw: _infer(raw[1:], raw[0] if raw else 0),
    _rows,
    _table,
    refuse_external_data,
    read_signature,
    _reference,
    wants_table,
    _packed,
]


def one_input(data: bytes) -> None:
    """Give some bytes to the parser that the first of them names."""
    if not data:
        return
    try:
        _PARSERS[data[0] % len(_PARSERS)](data[1:])
    except SlipwayRuntimeError as error:
        error.message.encode()  # what cannot be written cannot be answered


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    if corpus is not None:
        corpus.mkdir(parents=True, exist_ok=True)
        for place, good in enumerate(
            (json.dumps(GOOD).encode(), b"\x40" + json.dumps(GOOD).encode(), json.dumps(ROWS).encode(), TABLE)
        ):
            (corpus / f"good-{place}").write_bytes(bytes([place]) + good)
        matrix = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1e3]}
        packed = bytes([_PARSERS.index(_packed)]) + json.dumps({"inputs": [matrix], "id": "a"}).encode()
        (corpus / "good-packed").write_bytes(packed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
