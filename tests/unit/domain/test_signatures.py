"""Whether callers of one model could go on with another: measured against what the runtime does with their requests."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from slipway_operator.domain.signatures import Signature, difference
from slipway_runtime.errors import InvalidRequest
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.datatypes import DATATYPES
from slipway_runtime.protocol.signature import read_signature
from slipway_runtime.protocol.tensors import from_json

LABEL = {"name": "label", "datatype": "INT64", "shape": [-1]}
EXTREMES: dict[str, list[Any]] = {
    "BYTES": ["", "x"],
    "BOOL": [False, True],
    **{f"UINT{bits}": [0, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    "FP16": [-65504.0, 0.5, 65504.0],
    "FP32": [-3.0e38, 0.5, 3.0e38],
    "FP64": [-3.0e38, 0.5, 3.0e38],
}
"""What a caller may send; of FP64 what a model of FP32 has room for, as exports take either."""


def column(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 1)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def signature(*inputs: dict[str, Any], columns: list[str] | None = None, **more: Any) -> dict[str, Any]:
    names = [item["name"] for item in inputs] if columns is None else columns
    return {"inputs": list(inputs), "outputs": [LABEL], "columns": names, **more}


def matrix(width: int, names: str, datatype: str = "FP32", name: str = "input") -> dict[str, Any]:
    return signature(column(name, datatype, (-1, width)), columns=list(names))


def differs(live: dict[str, Any], target: dict[str, Any]) -> str | None:
    return difference(Signature.model_validate(live), Signature.model_validate(target))


def takes(target: dict[str, Any], live: dict[str, Any]) -> bool:
    """Send the runtime of ``target`` what callers of ``live`` send."""
    given = {}
    for item in live["inputs"]:
        values = EXTREMES[item["datatype"]]
        shape = (len(values), *(1 if size == -1 else size for size in item["shape"][1:]))
        width = (len(item["shape"]) > 1 and shape[1]) or 1
        data = [value for value in values for _ in range(width)]
        array = from_json(data, DATATYPES[item["datatype"]], shape, item["name"])
        given[item["name"]] = (item["datatype"], array)
    rows = {array.shape[0] for _, array in given.values()}
    if len(rows) > 1:
        given = {name: (kind, array[: min(rows)]) for name, (kind, array) in given.items()}
    try:
        Aligner(read_signature(json.dumps(target).encode()), max_rows=100).align(given)
    except InvalidRequest:
        return False
    return True


A, B, TEXT = column("a"), column("b"), column("t", "BYTES")


@pytest.mark.parametrize(
    ("live", "target", "fits"),
    [
        pytest.param(signature(A, B), signature(A, B), True, id="the-same"),
        pytest.param(signature(A, TEXT), signature(A), False, id="one-too-many"),
        pytest.param(signature(A), signature(A, TEXT), False, id="one-too-few"),
        pytest.param(signature(A), signature(B), False, id="another-name"),
        pytest.param(signature(column("a", "FP64")), signature(A), True, id="wider-floats"),
        pytest.param(signature(A), signature(column("a", "INT64")), False, id="fractions-for-whole-numbers"),
        pytest.param(signature(column("a", "INT64")), signature(A), True, id="whole-numbers-for-floats"),
        pytest.param(signature(A), signature(column("a", "BYTES")), False, id="numbers-for-text"),
        pytest.param(signature(column("a", shape=(-1,))), signature(A), True, id="a-column-of-one-dimension"),
        pytest.param(signature(A), signature(column("a", shape=(-1,))), True, id="a-column-of-two-dimensions"),
        pytest.param(matrix(2, "ab"), matrix(2, "ab"), True, id="matrix"),
        pytest.param(matrix(2, "ab"), matrix(3, "abc"), False, id="wider-matrix"),
        pytest.param(matrix(2, "ab"), matrix(2, "ab", name="rows"), False, id="matrix-of-another-name"),
        pytest.param(signature(A, B), matrix(2, "ab"), True, id="columns-for-a-matrix"),
        pytest.param(signature(A, column("c")), matrix(2, "ab"), False, id="other-columns-for-a-matrix"),
        pytest.param(signature(A, TEXT), matrix(2, "at"), False, id="text-for-a-matrix"),
        pytest.param(matrix(2, "ab"), signature(A, B), True, id="matrix-for-columns"),
        pytest.param(matrix(3, "abc"), signature(A, B), False, id="wider-matrix-for-columns"),
        pytest.param(matrix(2, "at"), signature(A, TEXT), False, id="matrix-for-text"),
    ],
)
def test_inputs_as_the_runtime_takes_them(live: dict[str, Any], target: dict[str, Any], fits: bool):
    assert (differs(live, target) is None) is fits
    assert takes(target, live) is fits, "the runtime says otherwise"


@pytest.mark.parametrize(("sent", "taken"), list(itertools.product(EXTREMES, EXTREMES)))
def test_datatypes_as_the_runtime_takes_them(sent: str, taken: str):
    live, target = signature(column("a", sent)), signature(column("a", taken))

    if differs(live, target) is None:
        assert takes(target, live)
    elif not (taken == "FP16" and sent.startswith(("INT", "UINT"))):  # there the runtime gives infinity, silently
        assert not takes(target, live)


@pytest.mark.parametrize(
    ("live", "target", "words"),
    [
        pytest.param(
            signature(A, TEXT),
            signature(A, B),
            'callers send "t", which the target does not take; the target needs "b", which callers do not send',
            id="names",
        ),
        pytest.param(
            signature(A),
            signature(column("a", "INT64")),
            'input "a" is FP32 now, and the target takes INT64',
            id="datatype",
        ),
        pytest.param(matrix(2, "ab"), matrix(2, "ba"), "the same columns in another order", id="columns-side-by-side"),
        pytest.param(matrix(2, "ab"), matrix(2, "ac"), 'callers send "b"', id="columns-of-other-names"),
        pytest.param(matrix(2, "ab"), signature(B, A), "the same columns in another order", id="a-matrix-taken-apart"),
        pytest.param(
            signature(A, outputs=[LABEL, {**LABEL, "name": "score"}]),
            signature(A),
            'callers read "score", which the target does not give',
            id="output-missing",
        ),
        pytest.param(
            signature(A),
            signature(A, outputs=[{**LABEL, "datatype": "BYTES"}]),
            "BYTES with the target",
            id="output-text",
        ),
        pytest.param(
            signature(A, outputs=[{**LABEL, "shape": [-1, 3]}]),
            signature(A, outputs=[{**LABEL, "shape": [-1, 2]}]),
            "has shape [-1, 3] now, and [-1, 2]",
            id="output-width",
        ),
        pytest.param(
            signature(A, classes=[0, 1]), signature(A, classes=[1, 0]), "the classes are [0, 1]", id="classes"
        ),
        pytest.param(
            signature(*(column(f"c{n}") for n in range(9))), signature(A), '"c0", "c1", "c2" and 6 more', id="many"
        ),
    ],
)
def test_says_what_differs(live: dict[str, Any], target: dict[str, Any], words: str):
    found = differs(live, target)

    assert found is not None
    assert words in found


@pytest.mark.parametrize(
    "target",
    [
        signature(A, outputs=[LABEL, {**LABEL, "name": "more"}]),
        signature(A, outputs=[{**LABEL, "datatype": "INT32"}]),
        signature(A, classes=None),
    ],
)
def test_more_outputs_and_other_widths_of_numbers_fit(target: dict[str, Any]):
    assert differs(signature(A, classes=[0, 1]), target) is None
