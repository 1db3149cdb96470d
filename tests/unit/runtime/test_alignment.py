"""From what a caller sent to what a model takes."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from slipway_runtime.errors import CannotServe, InvalidRequest, TooLarge
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.rows import RowReader
from slipway_runtime.protocol.signature import read_signature
from slipway_runtime.protocol.tensors import NULL


def text(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return ("BYTES", array)


def fp32(values):
    return ("FP32", np.array(values, np.float32))


def fp64(values):
    return ("FP64", np.array(values, np.float64))


def int64(values):
    return ("INT64", np.array(values, np.int64))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"input": fp32([[1, 2], [3, 4]])}, id="matrix"),
        pytest.param({"input": fp64([[1, 2], [3, 4]])}, id="matrix-of-doubles"),
        pytest.param({"input": int64([[1, 2], [3, 4]])}, id="matrix-of-integers"),
        pytest.param({"b": fp32([2, 4]), "a": fp32([1, 3])}, id="columns-in-any-order"),
        pytest.param({"a": int64([[1], [3]]), "b": fp64([2, 4])}, id="columns-of-many-types"),
    ],
)
def test_a_matrix_model_takes_a_matrix_or_columns(toy, given):
    feeds, rows = toy.aligner.align(given)

    assert rows == 2
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].tolist() == [[1, 2], [3, 4]]


def test_a_model_of_columns_takes_them_flat_or_upright(echoing):
    feeds, rows = echoing.aligner.align(
        {"month": fp64([0, 2]), "carrier": text("UA", NULL), "distance": int64([[1], [2]])}
    )

    assert rows == 2
    assert feeds["carrier"].tolist() == [["UA"], ["(none)"]]
    assert (feeds["distance"].dtype, feeds["distance"].tolist()) == (np.float32, [[1], [2]])
    assert (feeds["month"].dtype, feeds["month"].tolist()) == (np.int64, [[0], [2]])


def test_a_model_of_number_columns_takes_a_matrix():
    signature = read_signature(
        orjson.dumps(
            {
                "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in "ab"],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
                "columns": ["a", "b"],
            }
        )
    )
    feeds, _ = Aligner(signature, max_rows=9).align({"input": fp64([[1, 2], [3, 4]])})

    assert {name: array.tolist() for name, array in feeds.items()} == {"a": [[1], [3]], "b": [[2], [4]]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"imput": fp32([[1, 2]])}, 'no input "imput"; the model has "a", "b"', id="unknown"),
        pytest.param({"input": fp32([[1, 2]]), "c": fp32([1])}, 'no input "c"', id="one-too-many"),
        pytest.param({"a": fp32([1])}, 'inputs are missing: "b"', id="column-missing"),
        pytest.param({"input": fp32([[1, 2, 3]])}, r"shape \[1, 3\]; the model takes \[n, 2\]", id="wide"),
        pytest.param({"input": fp32([1, 2])}, r"shape \[2\]; the model takes \[n, 2\]", id="flat"),
        pytest.param({"a": fp32([1]), "b": fp32([1, 2])}, "same number of rows", id="uneven"),
        pytest.param({"a": fp32([[1, 2]]), "b": fp32([1])}, r"a column has \[n\] or \[n, 1\]", id="column-wide"),
        pytest.param({"input": fp32(np.zeros((0, 2)))}, "no rows", id="none"),
        pytest.param({"input": fp64([[1e300, 0]])}, "a number that is too large; FP32", id="overflow"),
        pytest.param({"a": text("x"), "b": fp32([1])}, r'"a" is BYTES; the model takes numbers', id="text"),
    ],
)
def test_what_does_not_fit_a_matrix_model_is_named(toy, given, message):
    with pytest.raises(InvalidRequest, match=message):
        toy.aligner.align(given)


GOOD = {"carrier": text("UA"), "distance": fp32([1]), "month": int64([1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"month": fp64([1.5])}, '"month" has a number with a fraction; .* whole numbers', id="fraction"),
        pytest.param({"month": fp64([np.nan])}, '"month" has a missing value', id="missing"),
        pytest.param({"month": fp64([np.inf])}, '"month" has a number with a fraction', id="infinite"),
        pytest.param({"month": fp64([2.0**63])}, '"month" has a value that does not fit', id="beyond-int64"),
        pytest.param({"month": ("UINT64", np.array([2**63], np.uint64))}, "does not fit", id="beyond-unsigned"),
        pytest.param({"carrier": fp32([1])}, r'"carrier" is FP32; the model takes strings \(BYTES\)', id="number"),
        pytest.param({"distance": fp32([1, 2])}, r"same number of rows; there are \[1, 2\]", id="uneven"),
        pytest.param({"distanse": fp32([1])}, 'no input "distanse"; did you mean "distance"', id="misspelt"),
    ],
)
def test_what_does_not_fit_a_model_of_columns_is_named(echoing, change, message):
    with pytest.raises(InvalidRequest, match=message):
        echoing.aligner.align(GOOD | change)


def test_too_many_rows_are_refused(toy):
    aligner = Aligner(toy.signature, max_rows=3)

    with pytest.raises(TooLarge, match="4 rows; send at most 3"):
        aligner.align({"input": fp32(np.zeros((4, 2)))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"inputs": []}, "no input or no output", id="no-inputs"),
        pytest.param({"inputs": [{"name": "x"}]}, "KeyError", id="no-shape"),
        pytest.param({"inputs": [{"name": "x", "datatype": "REAL", "shape": [-1]}]}, "REAL", id="datatype"),
        pytest.param({"columns": ["a"]}, "has 1 columns, but input input takes 2", id="columns"),
        pytest.param({"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}] * 2}, "twice", id="twice"),
    ],
)
def test_a_wrong_signature_is_refused(parts, change, message):
    with pytest.raises(CannotServe, match=message):
        read_signature(orjson.dumps(parts.linear().signature | change))


def rows(*items):
    return orjson.dumps({"rows": list(items)})


def test_rows_become_columns(echoing):
    given = echoing.rows.read(
        rows(
            {"month": 2, "carrier": "UA", "distance": 719},
            {"carrier": None, "month": 1.0, "distance": None},
        )
    )
    feeds, count = echoing.aligner.align(given)

    assert count == 2
    assert feeds["carrier"].tolist() == [["UA"], ["(none)"]]
    assert np.isnan(feeds["distance"]).tolist() == [[False], [True]]
    assert feeds["month"].tolist() == [[2], [1]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", 'send JSON such as {"rows":.*"carrier":"UA"', id="empty"),
        pytest.param(b'{"rows": {}}', '"rows" must be a list of at least one object', id="object"),
        pytest.param(rows(), "at least one object", id="none"),
        pytest.param(rows([1]), r"rows\[0\] must be an object", id="list"),
        pytest.param(
            rows({"carrier": "UA", "distanse": 1, "month": 1}),
            r'rows\[0\] has "distanse", which the model does not take; did you mean "distance"',
            id="misspelt",
        ),
        pytest.param(
            rows({"carrier": "UA", "month": 1}), r'rows\[0\] has no "distance"; send a value such as 719', id="absent"
        ),
        pytest.param(
            rows({"carrier": "UA", "distance": 1, "month": 1}, {"carrier": "UA", "distance": "far", "month": 1}),
            r'rows\[1\]."distance" is "far"; it takes numbers.* such as 719',
            id="text",
        ),
        pytest.param(
            rows({"carrier": 5, "distance": 1, "month": 1}),
            r'rows\[0\]."carrier" is 5; it takes strings, or null where missing such as "UA"',
            id="number",
        ),
        pytest.param(
            rows({"carrier": "UA", "distance": 1, "month": 1.5}),
            r'rows\[0\]."month" is 1.5; it takes whole numbers',
            id="fraction",
        ),
        pytest.param(
            rows({"carrier": "UA", "distance": {"a": [1] * 99}, "month": 1}), r'\[0\]."distance" is {"a"', id="nested"
        ),
    ],
)
def test_a_wrong_row_is_explained(echoing, body, message):
    with pytest.raises(InvalidRequest, match=message):
        echoing.rows.read(body)


def test_answers_are_objects(toy, echoing):
    labels, chances = np.array([1, 0]), np.array([[0.1, 0.9], [0.75, np.nan]], np.float32)
    assert orjson.loads(toy.objects.write("7", [labels, chances])) == {
        "model_name": "toy",
        "model_version": "c0ffee1234",
        "id": "7",
        "predictions": [
            {"label": 1, "probabilities": {"no": 0.1, "yes": 0.9}},
            {"label": 0, "probabilities": {"no": 0.75, "yes": None}},
        ],
    }
    upright = [text("UA")[1].reshape(1, 1), np.array([[0.1]], np.float32), np.array([[5]])]
    assert orjson.loads(echoing.objects.write("7", upright))["predictions"] == [
        {"carrier": "UA", "distance": 0.1, "month": 5}
    ]


def test_a_whole_number_too_large_for_a_half_is_refused():
    aligner = Aligner(
        read_signature(
            orjson.dumps(
                {
                    "inputs": [{"name": "x", "datatype": "FP16", "shape": [-1, 1]}],
                    "outputs": [{"name": "y", "datatype": "FP16", "shape": [-1]}],
                }
            )
        ),
        max_rows=9,
    )

    feeds, _ = aligner.align({"x": int64([[65504], [-7]])})
    assert feeds["x"].tolist() == [[65504], [-7]]
    with pytest.raises(InvalidRequest, match="a number that is too large; FP16 takes numbers up to 65504"):
        aligner.align({"x": ("INT32", np.array([[70_000]], np.int32))})


def test_rows_need_answers_that_are_rows():
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}], "columns": ["x"]}
    document["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [3]}]
    reader = RowReader(read_signature(orjson.dumps(document)), {}, max_rows=9)

    for read in (reader.read, reader.read_table):
        with pytest.raises(InvalidRequest, match="does not give an answer for each row; use the infer endpoint"):
            read(rows({"x": 1}))
