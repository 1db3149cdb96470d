"""Tensors, requests and answers against NumPy and the protocol's text."""

from __future__ import annotations

import json
import math
from time import thread_time
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.grpc.codec import GrpcAnswerWriter
from slipway_runtime.grpc.messages import message_class
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.answers import AnswerWriter
from slipway_runtime.protocol.datatypes import DATATYPES
from slipway_runtime.protocol.packing import Packer
from slipway_runtime.protocol.requests import RequestedOutput, decode_infer, infer_of
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import NULL, from_json, from_values, to_binary

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
NUMERIC = [name for name in DATATYPES if name != "BYTES"]


@st.composite
def tensors(draw):
    name = draw(st.sampled_from(list(DATATYPES)))
    shape = draw(SHAPES)
    if name == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        return name, draw(hnp.arrays(object, shape, elements=texts))
    dtype = DATATYPES[name].array
    elements = {"allow_infinity": False, "allow_nan": True} if dtype.kind == "f" else None
    return name, draw(hnp.arrays(dtype, shape, elements=elements))


def same(left, right):
    if left.dtype.kind == "O":
        return left.shape == right.shape and left.tolist() == right.tolist()
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def writer_for(name, array):
    spec = TensorSpec("y", DATATYPES[name], (-1, *array.shape[1:]), "y")
    return AnswerWriter(Signature((spec,), (spec,), (), (), ""), "m", "v")


def as_request(answer: bytes) -> bytes:
    """An answer has a request's form, but for the name of its list of tensors."""
    document = orjson.loads(answer)
    document["inputs"] = document.pop("outputs")
    return orjson.dumps(document)


@given(tensors())
@settings(max_examples=200, deadline=None)
def test_json_round_trip(tensor):
    """What is written as JSON reads as the same array, NaN as null."""
    name, array = tensor
    body = writer_for(name, array).write("1", [array], None, binary=False).body

    datatype, read = decode_infer(as_request(body)).inputs["y"]

    assert datatype == name
    assert same(read, array)


@given(tensors())
@settings(max_examples=200, deadline=None)
def test_binary_round_trip(tensor):
    """What is written as raw bytes reads as the same array, wherever in the body it begins."""
    name, array = tensor
    encoded = writer_for(name, array).write("1", [array], None, binary=True)
    head = as_request(encoded.body[: encoded.json_length])

    datatype, read = decode_infer(head + encoded.body[encoded.json_length :], len(head)).inputs["y"]

    assert datatype == name
    assert same(read, array)
    assert read.dtype.kind == "O" or read.flags.aligned


@given(tensors())
@settings(max_examples=50, deadline=None)
def test_nested_data_is_the_same_as_flat(tensor):
    name, array = tensor
    flat = [None if isinstance(item, float) and math.isnan(item) else item for item in array.ravel().tolist()]
    nested = np.array(flat, dtype=object).reshape(array.shape).tolist()

    assert same(from_json(nested, DATATYPES[name], array.shape, "d"), array)


@pytest.mark.parametrize("name", [name for name in NUMERIC if DATATYPES[name].is_integer])
def test_integers_hold_exactly_their_range(name):
    limits = np.iinfo(str(DATATYPES[name].array))
    ends = [int(limits.min), int(limits.max)]

    assert from_values(ends, DATATYPES[name], "d").tolist() == ends
    for beyond in (ends[0] - 1, ends[1] + 1):
        with pytest.raises(InvalidRequest, match="whole numbers from"):
            from_values([beyond], DATATYPES[name], "d")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        pytest.param("FP32", [1.0, "2"], r'd\[1\] is "2"; FP32 takes numbers', id="text-for-number"),
        pytest.param("FP32", [1e300], r"d\[0\] is 1e\+300; FP32", id="too-large-for-float"),
        pytest.param("FP16", [70000], r"d\[0\] is 70000; FP16", id="too-large-for-half"),
        pytest.param("FP64", [[1.0]], r"d\[0\] is a list", id="list-for-number"),
        pytest.param("FP64", [1.0, {}], r"d\[1\] is an object", id="object-for-number"),
        pytest.param("INT64", [1, 1.5], r"d\[1\] is 1.5; INT64 takes whole numbers", id="fraction"),
        pytest.param("INT64", [None], r"d\[0\] is null; INT64", id="null-for-integer"),
        pytest.param("UINT8", [-1], r"d\[0\] is -1; UINT8", id="negative"),
        pytest.param("BOOL", [2], r"d\[0\] is 2; BOOL takes true or false", id="two-for-truth"),
        pytest.param("BOOL", [None], r"d\[0\] is null; BOOL", id="null-for-truth"),
        pytest.param("BYTES", ["a", 1], r"d\[1\] is 1; BYTES takes strings", id="number-for-text"),
        pytest.param("BYTES", ["a", "x" * 99, []], r"d\[2\] is a list", id="list-for-text"),
    ],
)
def test_a_wrong_value_is_named(name, values, message):
    with pytest.raises(InvalidRequest, match=message):
        from_values(values, DATATYPES[name], "d")


def test_null_is_nan_among_floats_and_marked_among_strings():
    assert np.isnan(from_values([1, None], DATATYPES["FP32"], "d")).tolist() == [False, True]
    assert from_values(["a", None], DATATYPES["BYTES"], "d").tolist() == ["a", NULL]


def test_a_whole_float_is_an_integer():
    assert from_values([2.0, 3], DATATYPES["INT8"], "d").tolist() == [2, 3]


TENSOR = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"name": 7}, r"inputs\[0\].name must be a string", id="name"),
        pytest.param({"datatype": "FLOAT"}, r"inputs\[0\].datatype must be one of BOOL, UINT8", id="datatype"),
        pytest.param({"datatype": []}, r"inputs\[0\].datatype must be one of", id="datatype-unhashable"),
        pytest.param({"shape": []}, r"inputs\[0\].shape must be a list", id="shape-empty"),
        pytest.param({"shape": [1] * 9}, r"inputs\[0\].shape must be a list of 1 to 8", id="shape-deep"),
        pytest.param({"shape": [-1]}, "not negative", id="shape-negative"),
        pytest.param({"shape": [True]}, "whole numbers", id="shape-truth"),
        pytest.param({"shape": [2]}, r"inputs\[0\].data has 1 value, but shape \[2\] needs 2", id="too-few"),
        pytest.param({"shape": [1 << 60, 1 << 60]}, "needs 13292", id="shape-huge"),
        pytest.param({"data": 1}, "must be a list of values", id="data-scalar"),
        pytest.param({"shape": [2, 1], "data": [[1], 2]}, "not as shape", id="ragged"),
        pytest.param({"data": None}, "must be a list of values", id="data-null"),
        pytest.param({"parameters": []}, "parameters must be an object", id="parameters"),
        pytest.param({"parameters": {"binary_data_size": 4}}, "0 are left", id="binary-without-bytes"),
    ],
)
def test_a_malformed_input_is_named(change, message):
    with pytest.raises(InvalidRequest, match=message):
        decode_infer(orjson.dumps({"inputs": [TENSOR | change]}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "the body is empty", id="empty"),
        pytest.param(b"{", "not valid JSON at line 1", id="cut"),
        pytest.param(b'{"inputs": [NaN]}', "JSON has no NaN, send null", id="nan"),
        pytest.param(b"[]", "must be a JSON object", id="list"),
        pytest.param(b"\xff\xfe", "not valid JSON", id="not-utf8"),
        pytest.param(b"[" * 5000, "not valid JSON", id="deep"),
        pytest.param(b"{}", '"inputs" must be a list', id="no-inputs"),
        pytest.param(b'{"inputs": []}', "at least one tensor", id="none"),
        pytest.param(b'{"inputs": [1]}', r"inputs\[0\] must be an object", id="number"),
        pytest.param(orjson.dumps({"inputs": [TENSOR, TENSOR]}), "given twice", id="twice"),
        pytest.param(orjson.dumps({"inputs": [TENSOR], "id": 5}), '"id" must be a string', id="id"),
        pytest.param(orjson.dumps({"inputs": [TENSOR], "outputs": {}}), '"outputs" must be a list', id="outputs"),
        pytest.param(orjson.dumps({"inputs": [TENSOR], "outputs": [{}]}), r"outputs\[0\] must be", id="output"),
        pytest.param(orjson.dumps({"inputs": [TENSOR], "parameters": 1}), "must be an object", id="parameters"),
    ],
)
def test_a_malformed_body_is_explained(body, message):
    with pytest.raises(InvalidRequest, match=message):
        decode_infer(body)


def binary_body(raw: bytes, *, datatype="BYTES", shape=(2,), size=None) -> tuple[bytes, int]:
    parameters = {"binary_data_size": len(raw) if size is None else size}
    tensor = {"name": "x", "datatype": datatype, "shape": list(shape), "parameters": parameters}
    head = orjson.dumps({"inputs": [tensor]})
    return head + raw, len(head)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(binary_body(b"\x01\0\0\0a"), "ends before its 2 strings", id="few"),
        pytest.param(binary_body(b"\x01\0\0\0a\xff\xff\xff\xff"), "ends within string 1", id="length"),
        pytest.param(binary_body(b"\x01\0\0\0\xff\0\0\0\0"), "string 0 is not UTF-8", id="utf8"),
        pytest.param(binary_body(b"\0\0\0\0\0\0\0\0z"), "1 bytes after its last string", id="rest"),
        pytest.param(binary_body(b"abc", datatype="FP32", shape=[1]), "has 3 bytes, but 1 values", id="size"),
        pytest.param(binary_body(b"abcd", datatype="FP32", shape=[1], size=9), "4 are left", id="beyond"),
        pytest.param(binary_body(b"abcd1", datatype="FP32", shape=[1], size=4), "1 bytes after its last", id="tail"),
        pytest.param((b"{}", 99), "Inference-Header-Content-Length is 99", id="header"),
    ],
)
def test_malformed_binary_tensors_are_explained(body, message):
    with pytest.raises(InvalidRequest, match=message):
        decode_infer(*body)


def test_outputs_are_chosen_and_mixed(toy):
    arrays = [np.array([1]), np.array([[0.25, 0.75]], np.float32)]
    wanted = (RequestedOutput("probabilities", binary=True), RequestedOutput("label", binary=False))

    encoded = toy.writer.write("id-1", arrays, wanted, binary=False)

    document = orjson.loads(encoded.body[: encoded.json_length])
    assert document == {
        "model_name": "toy",
        "model_version": "c0ffee1234",
        "id": "id-1",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]},
        ],
    }
    assert encoded.body[encoded.json_length :] == to_binary(arrays[1], DATATYPES["FP32"])


def test_an_unknown_output_is_named(toy):
    with pytest.raises(InvalidRequest, match='no output "labels"; did you mean "label"'):
        toy.writer.check((RequestedOutput("labels", binary=False),))


VALUES = st.one_of(st.floats(-1e3, 1e3), st.integers(-5, 300), st.none(), st.booleans(), st.just("7"), st.just(1e39))


@given(
    st.sampled_from(["FP32", "FP64", "INT64", "INT8", "UINT16", "BOOL"]),
    st.one_of(st.lists(st.sampled_from([0, 1, 2, 3, True, 2.0]), min_size=1, max_size=3), st.just([2, 2])),
    st.one_of(st.lists(VALUES, max_size=6), st.lists(st.floats(-9, 9), min_size=4, max_size=4)),
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), st.sampled_from(["a", [], {}, 3]), max_size=2),
)
@settings(max_examples=400)
def test_what_the_packer_reads_is_what_the_general_way_reads(name, shape, data, extra):
    spec = TensorSpec("x", DATATYPES[name], (-1, 2), "x")
    signature = Signature((spec,), (spec,), ("a", "b"), (), "")
    document = {"inputs": [{"name": "x", "datatype": name, "shape": shape, "data": data}], **extra}

    packed = Packer(signature, max_rows=2).pack(document)

    if packed is not None:
        request = infer_of(document)
        feeds, rows = Aligner(signature, max_rows=2).align(request.inputs)
        assert (packed.raw, packed.rows, packed.id) == (feeds["x"].tobytes(), rows, request.id)
        assert (request.outputs, request.binary) == (None, False)


MATRIX = TensorSpec("x", DATATYPES["FP32"], (-1, 2), "x")
NUMBER = (
    st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.sampled_from([True, None, "1", [1.0], 1e39])
)


@given(
    st.lists(NUMBER, max_size=8),
    st.lists(st.integers(-1, 4), min_size=1, max_size=3),
    st.sampled_from([{}, {}, {"id": "é["}, {"id": 1}, {"outputs": []}, {"id": "a", "parameters": {}}]),
    st.sampled_from(["", " ", "\ufeff", "{", "]"]),
    st.sampled_from(
        [
            ("", ""),
            ('"x"', '"[x"'),
            ('"FP32"', '"FP64"'),
            ('"inputs"', '"inputs":[],"inputs"'),
            ('"name"', '"name":"y","name"'),
        ]
    ),
)
@settings(max_examples=800, deadline=None)
def test_a_large_body_is_packed_as_the_long_way_reads_it_or_left_to_it(data, shape, extra, around, change):
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}], **extra}
    body = around.encode() + json.dumps(document, ensure_ascii=False).replace(*change).encode() + around.encode()
    packer = Packer(Signature((MATRIX,), (MATRIX,), ("a", "b"), (), ""), max_rows=3)

    packed = packer.pack_large(body)

    if packed is not None:
        request = decode_infer(body)
        feeds, rows = Aligner(Signature((MATRIX,), (MATRIX,), ("a", "b"), (), ""), max_rows=3).align(request.inputs)
        assert (packed.raw, packed.rows, packed.id) == (feeds["x"].tobytes(), rows, request.id)
        assert (request.outputs, request.binary) == (None, False)


def test_large_bodies_of_the_usual_form_are_not_left_to_the_long_way():
    packer = Packer(Signature((MATRIX,), (MATRIX,), ("a", "b"), (), ""), max_rows=100_000)
    for rows in (1, 300, 40_000, 2):  # the third is larger than what simdjson's buffers are kept for
        for extra in ({}, {"id": "i"}):
            packed = packer.pack_large(json.dumps({"inputs": [tensor_of(rows)], **extra}).encode())
            assert packed == (np.arange(rows * 2, dtype="<f4").tobytes(), rows, extra.get("id"))


def test_the_packer_reads_the_usual_form_and_leaves_the_rest():
    spec = TensorSpec("x", DATATYPES["FP32"], (-1, 2), "x")
    packer = Packer(Signature((spec,), (spec,), ("a", "b"), (), ""), max_rows=300)
    for rows in range(1, 301):  # more row counts than packers are kept
        packed = packer.pack({"inputs": [tensor_of(rows)], "id": "i"})
        assert packed is not None
        assert packed.raw == np.arange(rows * 2, dtype="<f4").tobytes()
    assert packer.pack({"inputs": [tensor_of(301)]}) is None


def tensor_of(rows):
    return {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [float(value) for value in range(rows * 2)]}


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=200)
def test_a_batch_of_answers_reads_as_each_by_itself(data, sizes):
    total = sum(sizes)
    specs, arrays = [], []
    for index in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(list(DATATYPES)))
        shape = (total, *data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)))
        elements: Any = st.sampled_from(["a", '],["%b%', "é", ""]) if name == "BYTES" else None
        if DATATYPES[name].is_float:
            elements = st.floats(-100, 100, width=16) | st.just(math.nan)
        arrays.append(data.draw(hnp.arrays(DATATYPES[name].array, shape, elements=elements)))
        specs.append(TensorSpec(f"o%{index}", DATATYPES[name], (-1, *shape[1:]), "t"))
    writer = AnswerWriter(Signature((specs[0],), tuple(specs), (), (), ""), "m%b", "v")
    ids = [f'"{index}"'.encode() for index in range(len(sizes))]

    bodies = writer.write_batch(sizes, ids, arrays)

    start = 0
    for index, (rows, body) in enumerate(zip(sizes, bodies, strict=True)):
        part = [array[start : start + rows] for array in arrays]
        assert body == writer.write(str(index), part, None, binary=False).body
        start += rows


def asks_for(names):
    return orjson.dumps({"inputs": [TENSOR], "outputs": [{"name": name} for name in names]})


def test_an_output_that_is_asked_for_twice_is_named():
    with pytest.raises(InvalidRequest, match=r'outputs\[2\].name "a" is given twice'):
        decode_infer(asks_for(["a", "b", "a"]))


def test_many_outputs_take_a_time_that_grows_with_their_number_alone():
    start = thread_time()
    decode_infer(asks_for(f"x{number}" for number in range(20_000)))

    assert thread_time() - start < 1.0, "8 s where each was compared with all before it"


def test_outputs_behind_one_that_the_model_does_not_have_are_not_read(toy):
    request = decode_infer(asks_for(["label", "labels", "more"]), known=toy.writer.names)

    assert [output.name for output in request.outputs or ()] == ["label", "labels"]


@pytest.mark.parametrize("size", [1 << 32, 1 << 62, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("name", ["FP32", "BOOL", "BYTES"])
def test_a_shape_that_hides_its_size_behind_a_zero_is_refused(name, size):
    for shape in ([0, size], [0, 1 << 40, 1 << 40]):
        with pytest.raises(InvalidRequest, match=r"inputs\[0\].data has no values, but shape .* is larger than any"):
            decode_infer(orjson.dumps({"inputs": [TENSOR | {"datatype": name, "shape": shape, "data": []}]}))
        with pytest.raises(InvalidRequest, match=r"inputs\[0\] has no values, but shape"):
            decode_infer(*binary_body(b"", datatype=name, shape=shape))


def test_an_answer_alone_has_the_shape_that_its_outputs_have(toy):
    """Outputs of some models are not rows: a model of one row may give three values for it."""
    arrays = [np.array([1, 2, 3]), np.array([[0.25, 0.75]], np.float32)]

    (body,) = toy.writer.write_batch([1], [b'"7"'], arrays)

    assert [output["shape"] for output in orjson.loads(body)["outputs"]] == [[3], [1, 2]]
    message = GrpcAnswerWriter(toy.signature, "m", "v").write_batch([1], ["7"], arrays)[0]
    answer = message_class("inference.ModelInferResponse").FromString(message)
    assert [list(output.shape) for output in answer.outputs] == [[3], [1, 2]]
    assert [np.frombuffer(answer.raw_output_contents[0], np.int64).tolist()] == [[1, 2, 3]]
