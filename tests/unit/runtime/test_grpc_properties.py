"""Properties of gRPC's codecs: arrays against NumPy, header blocks against the hpack library alone."""

from __future__ import annotations

import contextlib
import math
import struct
from types import SimpleNamespace
from typing import Any

import hpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slipway_runtime.dataplane import PackedWork
from slipway_runtime.errors import SlipwayRuntimeError
from slipway_runtime.grpc.codec import _FIELDS, GrpcAnswerWriter, read_infer
from slipway_runtime.grpc.frames import BrokenStream
from slipway_runtime.grpc.headers import Block, HeaderReader, HeaderWriter
from slipway_runtime.grpc.messages import message_class
from slipway_runtime.grpc.usual import UsualCalls
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.datatypes import DATATYPES
from slipway_runtime.protocol.signature import Signature, TensorSpec

Request = message_class("inference.ModelInferRequest")
Answer = message_class("inference.ModelInferResponse")
NUMBERS = [name for name in DATATYPES if name != "BYTES"]
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


def writer(datatype: str, dimensions: int) -> GrpcAnswerWriter:
    spec = TensorSpec("y", DATATYPES[datatype], (-1,) * dimensions, "y")
    return GrpcAnswerWriter(Signature((spec,), (spec,), (), (), ""), "m", "v")


@pytest.mark.parametrize("datatype", NUMBERS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_numbers_arrive_as_numpy_has_them(datatype, data):
    array = data.draw(hnp.arrays(DATATYPES[datatype].array, shapes))
    tensor = {"name": "x", "datatype": datatype, "shape": array.shape}
    requests = [Request(inputs=[tensor], raw_input_contents=[array.tobytes()])]
    if datatype in _FIELDS:
        requests.append(Request(inputs=[{**tensor, "contents": {_FIELDS[datatype]: array.ravel().tolist()}}]))
    for request in requests:
        name, read = read_infer(request.SerializeToString()).inputs["x"]

        assert name == datatype
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("datatype", NUMBERS)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_numbers_leave_as_numpy_has_them(datatype, data):
    array = data.draw(hnp.arrays(DATATYPES[datatype].array, shapes))
    write = writer(datatype, array.ndim)

    raw = Answer.FromString(write.write("r", [array], None, raw=True))
    typed = Answer.FromString(write.write("r", [array], None, raw=False))

    assert list(raw.outputs[0].shape) == list(array.shape)
    np.testing.assert_array_equal(np.frombuffer(raw.raw_output_contents[0], array.dtype), array.ravel())
    if datatype in _FIELDS:
        values = getattr(typed.outputs[0].contents, _FIELDS[datatype])
        np.testing.assert_array_equal(np.array(values, array.dtype), array.ravel())
    else:
        assert typed == raw


@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=20))
def test_strings_come_and_go(texts):
    raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    tensor = {"name": "x", "datatype": "BYTES", "shape": [len(texts)]}
    typed = Request(inputs=[{**tensor, "contents": {"bytes_contents": [text.encode() for text in texts]}}])
    for request in (Request(inputs=[tensor], raw_input_contents=[raw]), typed):
        _, read = read_infer(request.SerializeToString()).inputs["x"]

        assert read.tolist() == texts
        answer = Answer.FromString(writer("BYTES", 1).write("r", [read], None, raw=True))
        assert answer.raw_output_contents == [raw]
        answer = Answer.FromString(writer("BYTES", 1).write("r", [read], None, raw=False))
        assert [value.decode() for value in answer.outputs[0].contents.bytes_contents] == texts


@settings(deadline=None)
@given(message=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message):
    with contextlib.suppress(SlipwayRuntimeError):
        read_infer(message)


@settings(deadline=None)
@given(size=st.integers(0, 70_000))
def test_an_id_of_any_length_comes_back(size):
    answer = Answer.FromString(writer("FP32", 1).write("x" * size, [np.zeros(1, np.float32)], None, raw=True))

    assert answer.id == "x" * size


names = st.sampled_from([b"grpc-timeout", b"x-request-id", b"user-agent", b"a", b"te"])
regular = st.tuples(names, st.sampled_from([b"trailers", b"1S", b"abc", b"x" * 300]), st.booleans())
start = [(b":method", b"POST", False), (b":scheme", b"http", False), (b":path", b"/s/m", False)]
header_lists = st.lists(st.lists(regular, max_size=4).map(lambda rest: start + rest), max_size=12)


@settings(deadline=None)
@given(lists=header_lists, sizes=st.lists(st.sampled_from([0, 60, 400, 4096]), max_size=12))
def test_blocks_that_come_again_mean_what_they_say(lists, sizes):
    """The reader keeps meanings of blocks; with a table that changes all the time it must never mix them up."""
    encoder = hpack.Encoder()
    decoder = hpack.Decoder(max_header_list_size=16_384)
    reader = HeaderReader(dict, 16_384)
    for index, pairs in enumerate([*lists, *lists]):
        if index < len(sizes) and encoder.header_table_size != sizes[index]:
            encoder.header_table_size = sizes[index]
        block = encoder.encode(pairs)
        wanted: dict[bytes, bytes] = {}
        for name, value in decoder.decode(block, raw=True):
            wanted.setdefault(name, value)
        try:
            found = reader.request(block)
        except BrokenStream:
            assert wanted.get(b"te") not in (None, b"trailers")
        else:
            assert found == wanted


def test_what_is_kept_of_blocks_has_a_bound():
    """A client that never sends the same block twice, none of them through the table, fills no memory."""
    reader = HeaderReader(dict, 16_384)
    encoder = hpack.Encoder()
    for number in range(1000):
        pairs = [*start, (b"x-request-id", b"%d" % number * (1 if number % 2 else 200), True)]
        assert reader.request(encoder.encode(pairs, huffman=False))[b"x-request-id"].startswith(b"%d" % number)

    assert len(reader._known) <= 32
    assert max(map(len, reader._known)) <= 512


blocks = st.lists(st.integers(0, 5), max_size=30)


@settings(deadline=None)
@given(order=blocks, sizes=st.lists(st.sampled_from([0, 50, 120, 4096, 65_536]), max_size=30))
def test_blocks_are_written_so_that_others_read_them(order, sizes):
    known = [
        Block((b":status", b"200"), (b"content-type", b"application/grpc"), (b"slipway-content", b"abc")),
        Block((b"grpc-status", b"0")),
        Block((b"grpc-status", b"3"), (b"grpc-message", b"what"), again=False),
        Block((b":status", b"200"), (b"x", b"y" * 100)),
        Block((b":status", b"200"), (b"x", b"y" * 100), (b"z", b"1"), again=False),
        Block((b":status", b"200")),
    ]
    writing = HeaderWriter()
    decoder = hpack.Decoder()
    for index, choice in enumerate(order):
        if index < len(sizes):
            writing.limit(sizes[index])
        assert list(decoder.decode(writing.block(known[choice]), raw=True)) == list(known[choice].pairs)


@settings(deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_a_batch_of_answers_reads_as_each_by_itself(data, sizes):
    specs, arrays = [], []
    for place in range(data.draw(st.integers(1, 3))):
        datatype = data.draw(st.sampled_from([*NUMBERS, "BYTES"] if place == 2 else NUMBERS))
        tail = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3))
        elements = st.sampled_from(["a", "é", ""]) if datatype == "BYTES" else None
        arrays.append(data.draw(hnp.arrays(DATATYPES[datatype].array, (sum(sizes), *tail), elements=elements)))
        specs.append(TensorSpec(f"o{place}", DATATYPES[datatype], (-1, *tail), "t"))
    write = GrpcAnswerWriter(Signature((specs[0],), tuple(specs), (), (), ""), "m", "v")

    messages = write.write_batch(sizes, [str(place) for place in range(len(sizes))], arrays)

    row = 0
    for place, (rows, message) in enumerate(zip(sizes, messages, strict=True)):
        assert message == write.write(str(place), [array[row : row + rows] for array in arrays], None, raw=True)
        row += rows


class Taken:
    """A dataplane that only takes work."""

    work: PackedWork | None = None

    def enqueue(self, work: PackedWork) -> None:
        self.work = work


def asked() -> Any:
    """Give as much of a call as is looked at."""
    return SimpleNamespace(deadline=math.inf, timeline=None, work=None)


MATRIX = TensorSpec("x", DATATYPES["FP32"], (-1, 2), "x")
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
# A field that no reader knows, which ends as values would: they are not the message's last bytes.
UNKNOWN = b"\x7a\x0a\x3a\x08" + bytes(8)
usual = st.sampled_from(
    [
        Request(inputs=[TENSOR], raw_input_contents=[bytes(8)]).SerializeToString(),
        Request(inputs=[{**TENSOR, "shape": [2, 2]}], raw_input_contents=[bytes(16)]).SerializeToString(),
        Request(inputs=[TENSOR], raw_input_contents=[bytes(8)], id="i").SerializeToString(),
        Request(inputs=[TENSOR], raw_input_contents=[bytes(8)]).SerializeToString() + UNKNOWN,
        Request(inputs=[{**TENSOR, "contents": {"fp32_contents": [0, 0]}}]).SerializeToString(),
        Request(inputs=[TENSOR], outputs=[{"name": "y"}], raw_input_contents=[bytes(8)]).SerializeToString(),
    ]
)
changed = st.tuples(
    usual, st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=2), st.integers(0, 2)), max_size=2)
)


@settings(deadline=None, max_examples=500)
@given(pieces=st.lists(changed, min_size=1, max_size=8))
def test_a_message_that_is_known_means_what_protobuf_reads(pieces):
    plane: Any = Taken()
    write = writer("FP32", 2)
    calls = UsualCalls(plane, MATRIX, write)
    for whole, changes in pieces:
        message = whole
        for start_, new, drop in changes:
            message = message[:start_] + new + message[start_ + drop :]
        known = calls.take(asked(), message)
        try:
            request = read_infer(message)
            feeds, rows_ = Aligner(Signature((MATRIX,), (MATRIX,), (), (), ""), max_rows=9).align(request.inputs)
        except SlipwayRuntimeError:
            assert not known
            continue
        if known:
            assert (plane.work.packed, plane.work.rows) == (feeds["x"].tobytes(), rows_)
            assert (request.id, request.outputs, request.raw) == ("", None, True)
        else:
            calls.learn(message, request)


def test_usual_messages_are_learnt_and_others_are_not():
    plane: Any = Taken()
    calls = UsualCalls(plane, MATRIX, writer("FP32", 2))
    good = Request(inputs=[TENSOR], raw_input_contents=[bytes(8)]).SerializeToString()
    for message, kept in ((good, True), (good + UNKNOWN, False)):
        calls.learn(message, read_infer(message))

        assert calls.take(asked(), message[:-8] + b"12345678") is kept
    for number in range(2, 200):
        many = {**TENSOR, "shape": [number, 2]}
        message = Request(inputs=[many], raw_input_contents=[bytes(8 * number)]).SerializeToString()
        calls.learn(message, read_infer(message))
    assert 0 < len(calls._known) <= 64
