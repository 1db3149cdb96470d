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
from slipway_runtime.engines.model_files import check_model, read_model
from slipway_runtime.engines.onnx_file import refuse_external_data
from slipway_runtime.errors import CannotServe
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
