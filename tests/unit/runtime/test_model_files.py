"""A model is served only as it was proven."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import orjson
import pytest

from slipway_operator.exporter.files import MODEL_LIMIT, ONNX_LIMIT
from slipway_runtime.engines.model_files import check_model, read_examples, read_model
from slipway_runtime.engines.onnx import OnnxEngine
from slipway_runtime.engines.onnx_file import refuse_external_data
from slipway_runtime.errors import CannotServe, EngineFailed, TooLarge
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import load_model


def load(options):
    return load_model(options, Metrics("toy", "v"))


def test_a_good_model_loads(toy):
    assert toy.signature.is_batched
    assert toy.plane.is_idle


def test_another_digest_is_refused(parts, tmp_path):
    options = dataclasses.replace(parts.linear().write(tmp_path), digest="sha256:" + "0" * 64)

    with pytest.raises(CannotServe, match=r"model.onnx is sha256:[0-9a-f]{64}, but sha256:0{64} should be served"):
        load(options)


@pytest.mark.parametrize(
    ("output", "data", "message"),
    [
        pytest.param(0, [0, 0], "answer label to example row 1 is 1; recorded was 0", id="label"),
        pytest.param(
            1, [0.880797, 0.119203, 0.18243, 0.8177], "probabilities to example row 1 is 0.8175.*0.8177", id="number"
        ),
    ],
)
def test_other_answers_than_recorded_are_refused(parts, tmp_path, output, data, message):
    files = parts.linear()
    files.examples["outputs"][output]["data"] = data

    with pytest.raises(CannotServe, match=message):
        load(files.write(tmp_path))


def change_signature(**change):
    return lambda files: files.signature.update(change)


FP64 = {"name": "input", "datatype": "FP64", "shape": [-1, 2], "tensor": "x"}
ELSEWHERE = {"name": "input", "datatype": "FP32", "shape": [-1, 2], "tensor": "there"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(change_signature(inputs=[FP64]), r"input is FP64; the model has tensor\(float\)", id="datatype"),
        pytest.param(change_signature(inputs=[ELSEWHERE]), "names input there, but the model has x", id="name"),
        pytest.param(lambda files: files.examples.update(inputs=[]), "holds no rows", id="no-examples"),
        pytest.param(lambda files: files.examples.pop("outputs"), "examples.json cannot be read", id="no-outputs"),
        pytest.param(lambda files: setattr(files, "onnx", b"\x08\x08"), "cannot load the model", id="not-a-model"),
        pytest.param(lambda files: setattr(files, "onnx", b""), "cannot load the model", id="empty"),
    ],
)
def test_files_that_contradict_each_other_are_refused(parts, tmp_path, change, message):
    files = parts.linear()
    change(files)

    with pytest.raises(CannotServe, match=message):
        load(files.write(tmp_path))


def test_an_absent_or_strange_file_is_refused(parts, tmp_path):
    options = parts.linear().write(tmp_path)
    (tmp_path / "examples.json").unlink()
    with pytest.raises(CannotServe, match=r"examples.json cannot be read: No such file"):
        load(options)
    os.mkfifo(tmp_path / "examples.json")
    with pytest.raises(CannotServe, match="is not a regular file"):
        load(options)


def test_a_model_that_a_worker_loads_is_compared_in_little_memory(tmp_path):
    """The runtime's container has room for a runtime; it reads the file to its end, and holds none of it."""
    size = 96 << 20
    with (tmp_path / "model.joblib").open("wb") as file:
        file.truncate(size)
    digest = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
    script = f"""
import resource
from pathlib import Path
from slipway_runtime.engines.model_files import check_model
folder = Path({str(tmp_path)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
check_model(folder, {digest!r}, "model.joblib")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert int(said.stdout) < size // 8
    with pytest.raises(CannotServe, match=f"model.joblib is {digest}, but sha256:0{{64}} should be served"):
        check_model(tmp_path, "sha256:" + "0" * 64, "model.joblib")


def test_a_worker_loads_what_an_export_takes_and_an_onnx_file_has_no_more_than_protobuf(tmp_path):
    for name, size in (("model.joblib", MODEL_LIMIT), ("model.onnx", ONNX_LIMIT)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size + 1)
    with pytest.raises(CannotServe, match=f"has {MODEL_LIMIT + 1} bytes; at most {MODEL_LIMIT} are loaded"):
        check_model(tmp_path, "sha256:0", "model.joblib")
    with pytest.raises(CannotServe, match=f"has {ONNX_LIMIT + 1} bytes; at most {ONNX_LIMIT} are loaded"):
        read_model(tmp_path, "sha256:0")


def test_external_data_is_refused_wherever_it_hides(parts, tmp_path):
    part, number = parts.part, parts.number
    elsewhere = part(13, part(1, "location"), part(2, "../../etc/passwd"))
    tensor = part(5, number(1, 1), number(2, 1), part(8, "w"), elsewhere, number(14, 1))
    inside_node = part(1, part(4, "Constant"), part(5, part(1, "value"), part(5, elsewhere)))
    inside_branch = part(1, part(5, part(1, "then_branch"), part(6, tensor)))
    for graph in (tensor, inside_node, inside_branch, part(15, part(1, elsewhere))):
        with pytest.raises(CannotServe, match="keeps tensors in other files"):
            refuse_external_data(parts.onnx_model(graph))
    with pytest.raises(CannotServe, match="keeps tensors in other files"):
        refuse_external_data(part(25, part(7, part(5, part(5, elsewhere)))))

    files = parts.linear()
    files.onnx = parts.onnx_model(*parts.LINEAR, parts.floats("w", parts.WEIGHTS, elsewhere), *parts.LINEAR_ENDS)
    with pytest.raises(CannotServe, match="keeps tensors in other files"):
        load(files.write(tmp_path))


def test_a_model_that_only_speaks_of_a_location_is_served(parts, tmp_path):
    files = parts.linear()
    files.onnx += parts.part(14, parts.part(1, "location"), parts.part(2, "Paris"))

    assert load(files.write(tmp_path)).name == "toy"


@pytest.mark.parametrize("raw", [b"location\xff", b"\x3a\xff\x01location", b"\x0flocation", b"\x3a\xff\xff\xff"])
def test_bytes_that_are_no_model_are_refused(raw):
    if b"location" not in raw:
        raw += b"location"
    with pytest.raises(CannotServe):
        refuse_external_data(raw)


def test_example_values_are_shown_as_people_wrote_them(toy, echoing):
    assert orjson.loads(toy.rows._example) == {"rows": [{"a": 1.0, "b": 0.0}]}
    assert orjson.loads(echoing.rows._example) == {"rows": [{"carrier": "UA", "distance": 719.0, "month": 2}]}


def test_operators_of_another_library_are_refused_and_none_is_loaded(parts, tmp_path):
    """ONNX Runtime takes custom operators from libraries that a program registers: this one registers none."""
    files = parts.linear()
    part = parts.part
    foreign = part(1, part(1, "x"), part(2, "z"), part(4, "LoadLibrary"), part(7, "evil.ops"))
    library = part(14, part(1, "custom_op_library"), part(2, str(tmp_path / "evil.so")))
    (tmp_path / "evil.so").write_bytes(b"\x7fELF")
    opset = part(8, part(1, "evil.ops"), parts.number(2, 1))
    files.onnx = parts.onnx_model(foreign, *parts.LINEAR[1:], *parts.LINEAR_ENDS) + opset + library

    with pytest.raises(CannotServe, match="cannot load the model"):
        load(files.write(tmp_path / "model"))


def one_output(parts, name, *nodes, more=(), rows=1, data=(0.0,), **specified):
    """A model of one matrix with one output of numbers."""
    width = 2
    graph = (*nodes, *more, parts.value(11, "x", parts.FLOAT, specified.pop("fixed", -1), width))
    files = parts.linear()
    files.onnx = parts.onnx_model(*graph, parts.value(12, name, parts.FLOAT, -1))
    shape = specified.pop("shape", [-1])
    files.signature["outputs"] = [{"name": name, "datatype": "FP32", "shape": shape}]
    files.signature |= {"task": "regression", "classes": None} | specified
    flat = [1.0, 0.0] * rows
    files.examples["inputs"] = [{"name": "input", "datatype": "FP32", "shape": [rows, width], "data": flat}]
    files.examples["outputs"] = [{"name": name, "datatype": "FP32", "shape": [len(data)], "data": list(data)}]
    return files


@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_whose_answers_are_not_one_a_row_is_refused(parts, tmp_path, rows):
    """Three values for three example rows look right, and one for one: another number of rows tells."""
    mean = parts.node("ReduceMean", ["x"], ["m"], keepdims=0)
    kept = parts.node("Identity", ["three"], ["y"])
    fixed = one_output(parts, "y", kept, more=[parts.floats("three", [[0.0]] * 3)], rows=rows, data=[0.0] * 3)
    fixed.examples["outputs"][0]["shape"] = [3, 1]
    one = one_output(
        parts, "y", mean, parts.node("Reshape", ["m", "s"], ["y"]), more=[one_dimension(parts)], data=[0.5]
    )

    with pytest.raises(CannotServe, match=r"answer y to 1 example row has shape \[3, 1\].*one for each row"):
        load(fixed.write(tmp_path / "fixed"))
    with pytest.raises(CannotServe, match=r"answer y to 2 example rows has shape \[1\].*one for each row"):
        load(one.write(tmp_path / "one"))


def one_dimension(parts):
    return parts.part(5, parts.number(1, 1), parts.number(2, 7), parts.part(8, "s"), parts.part(9, b"\1" + bytes(7)))


def test_a_model_of_one_row_at_a_time_is_served(parts, tmp_path):
    files = one_output(parts, "y", parts.node("Squeeze", ["x"], ["y"]), fixed=1)
    files.examples["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 0.0]}]
    files.signature["outputs"][0]["shape"] = [2]
    files.signature["inputs"][0]["shape"] = [1, 2]
    assert not load(files.write(tmp_path / "said")).signature.is_batched

    files = parts.linear()
    ends = (parts.value(11, "x", parts.FLOAT, 1, 2), *parts.LINEAR_ENDS[1:])
    files.onnx = parts.onnx_model(*parts.LINEAR, parts.floats("w", parts.WEIGHTS), *ends)
    first = {"inputs": ([1, 2], [1.0, 0.0]), "outputs": ([1, 2], [0.880797, 0.119203])}
    for side, (shape, data) in first.items():
        files.examples[side] = [files.examples[side][-1] | {"shape": shape, "data": data}]
    assert load(files.write(tmp_path / "unsaid")).name == "toy"


@pytest.mark.parametrize("said", [True, False])
def test_a_model_of_so_many_rows_at_once_is_served_if_it_says_so_and_else_refused(parts, tmp_path, said):
    files = parts.linear()
    ends = (parts.value(11, "x", parts.FLOAT, 2, 2), *parts.LINEAR_ENDS[1:])
    files.onnx = parts.onnx_model(*parts.LINEAR, parts.floats("w", parts.WEIGHTS), *ends)
    if said:
        files.signature["inputs"][0]["shape"] = [2, 2]
        assert load(files.write(tmp_path)).plane.is_idle
    else:
        with pytest.raises(CannotServe, match="the model answers 2 example rows, but not one of them"):
            load(files.write(tmp_path))


def test_a_bound_on_the_rows_of_callers_is_none_on_the_examples(parts, tmp_path):
    model = load(dataclasses.replace(parts.linear().write(tmp_path), max_rows=1))

    with pytest.raises(TooLarge):
        model.aligner.align(read_examples((tmp_path / "examples.json").read_bytes(), model.signature).inputs)


def test_a_model_that_ends_while_it_warms_up_is_refused(parts, tmp_path, monkeypatch):
    asked = []

    def run(engine, feeds):
        asked.append(feeds)
        if len(asked) > 3:
            raise EngineFailed("no memory")
        return once(engine, feeds)

    once = OnnxEngine.run
    monkeypatch.setattr(OnnxEngine, "run", run)
    with pytest.raises(CannotServe, match="answered the example rows, and then no more: no memory"):
        load(parts.linear().write(tmp_path))
