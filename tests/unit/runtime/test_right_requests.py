"""Whatever is wrong with an infer request, its error names the field and shows a request that is right."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import orjson
import pytest
from tests.unit.runtime.conftest import echo, linear

from slipway_runtime.engines.model_files import read_examples
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.routes import Router
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import load_model
from slipway_runtime.protocol.signature import read_signature


def by_columns():
    """The linear classifier, whose example came as columns and not as its matrix."""
    files = linear()
    columns = (("a", [1.0, 0.0]), ("b", [0.0, 1.0]))
    files.examples["inputs"] = [
        {"name": name, "datatype": "FP64", "shape": [2], "data": values} for name, values in columns
    ]
    return files


def with_nothing():
    """The echo, whose example lacks what may be missing."""
    files = echo()
    for tensor in files.examples["inputs"][:2]:
        tensor["data"] = [None]
    return files


KINDS = {"linear": linear, "by-columns": by_columns, "echo": echo, "with-nothing": with_nothing}
WRONG: dict[str, list[Any]] = {
    "name": [None, "", 7, "carier", "\x00"],
    "datatype": [None, "", 7, "FP31", "fp32"],
    "shape": [None, "", 7, [], [-1], [1.5], [0, 2], [3, 1], [1, 1, 1], [0, 2**63 - 1], [1] * 9],
    "data": [None, "", 7, {}, [], [[]], [{}], [[[]]], [1, 2, 3, 4, 5], [1e300, 1e300]],
    "parameters": ["", 7, {"binary_data_size": 4}, {"binary_data_size": "4"}],
}
"""Values of a tensor's fields that no model takes."""
BESIDE: dict[str, list[Any]] = {
    "id": [7, {}, []],
    "parameters": [7, "", [], {"binary_data_output": "yes"}],
    "outputs": [7, {}, ["label"], [{"name": 7}], [{"name": "nonsense"}], [{"name": "label", "parameters": 7}]],
    "inputs": [None, {}, "", [], [None], ["x"]],
}
"""The same beside the tensors."""


def wrongs(right):
    """Give requests with one thing wrong each, and what an error about it must name."""
    for field, values in BESIDE.items():
        for value in values:
            yield field.removesuffix("s"), {**right, field: value}
    yield "inputs", {}
    yield "inputs", {"inputs": [right["inputs"][0]] * 2}
    for place, tensor in enumerate(right["inputs"]):
        where = rf'inputs\[{place}\].*{{}}|inputs? "{tensor["name"]}"|no input|inputs are missing|the inputs'
        yield "inputs are missing|must be a list", {"inputs": right["inputs"][:place] + right["inputs"][place + 1 :]}
        for field in ("name", "datatype", "shape", "data"):
            yield where.format(field), _changed(right, place, field)
        for field, values in WRONG.items():
            for value in values:
                yield where.format(field), _changed(right, place, field, value)
        other = "FP32" if tensor["datatype"] == "BYTES" else "BYTES"
        yield where.format("data"), _changed(right, place, "datatype", other)


def _changed(right, place, field, *values):
    document = copy.deepcopy(right)
    document["inputs"][place].pop(field, None)
    for value in values:
        document["inputs"][place][field] = value
    return document


class Alone:
    """A connection with one request."""

    def deliver(self):
        pass

    def deliver_alone(self, *_):
        return False


@pytest.fixture
def asking(tmp_path):
    """Ask a model; a request that would be answered has work, and no answer yet."""

    def ask_of(files, **changes):
        metrics = Metrics("toy", "v")
        model = dataclasses.replace(load_model(files.write(tmp_path / "model"), metrics), **changes)
        router = Router(model, metrics, max_body=1 << 20)

        def ask(body):
            exchange = Exchange(Alone(), b"POST", b"/v2/models/toy/infer", {}, body)
            router.handle(exchange)
            return exchange

        return model, ask

    return ask_of


def shown(said):
    """Take an error apart: what is wrong, and what would be right."""
    match = re.fullmatch(r"(.*) \(right would be (\{.*\})\)", said)
    assert match is not None, said
    return match.groups()


@pytest.mark.parametrize("kind", KINDS)
async def test_every_wrong_request_is_told_the_field_and_a_request_that_is_right(asking, kind):
    model, ask = asking(KINDS[kind]())
    asked = 0
    for named, document in wrongs(orjson.loads(model.request)):
        answer = ask(json.dumps(document).encode()).answer
        assert answer is not None, document
        assert answer.status == 400, (document, answer)
        what, right = shown(orjson.loads(answer.body)["error"])
        assert re.search(named, what), (document, what)
        again = ask(right.encode())
        assert again.answer is None, again.answer
        assert again.work is not None
        again.work.cancel()
        asked += 1
    assert asked > 60


def test_a_request_has_all_rows_where_the_model_takes_no_other_number():
    files = linear()
    files.signature["inputs"][0]["shape"] = [2, 2]
    signature = read_signature(orjson.dumps(files.signature))
    right = orjson.loads(read_examples(orjson.dumps(files.examples), signature).request(signature))

    assert right == {"inputs": files.examples["inputs"]}


async def test_where_a_request_would_be_too_long_it_is_told_where_to_look(asking):
    files = linear()
    files.examples["inputs"][0] |= {"shape": [1, 5000], "data": [0.5] * 5000}
    signature = read_signature(orjson.dumps(files.signature))
    assert read_examples(orjson.dumps(files.examples), signature).request(signature) == ""

    _, ask = asking(linear(), request="")
    assert "right would be made of what GET /v2/models/toy tells" in ask(b"{}").answer.body.decode()
