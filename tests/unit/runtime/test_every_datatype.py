"""Every datatype of the protocol through a real model, by every door: its edges come back as they went."""

from __future__ import annotations

import asyncio

import httpx
import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton_grpc  # type: ignore[import-untyped]  # it ships no types
import tritonclient.http as triton  # type: ignore[import-untyped]  # as above

ONNX = {
    "BOOL": 9, "UINT8": 2, "UINT16": 4, "UINT32": 12, "UINT64": 13, "INT8": 3, "INT16": 5, "INT32": 6, "INT64": 7,
    "FP16": 10, "FP32": 1, "FP64": 11, "BYTES": 8,
}  # fmt: skip
"""The number of each in onnx.proto (TensorProto.DataType)."""
NUMPY = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object"}


def edges(datatype: str) -> np.ndarray:
    """Give three values: both ends, and one that is special."""
    if datatype == "BYTES":
        return np.array([["UA"], ["Ünï\u0000ted ✈"], [""]], dtype=object)
    if datatype == "BOOL":
        return np.array([[True], [False], [True]])
    kind = np.dtype(NUMPY.get(datatype, datatype.lower()))
    if kind.kind == "f":
        return np.array([[np.finfo(kind).max], [np.finfo(kind).tiny], [np.nan]], kind)
    return np.array([[np.iinfo(kind).max], [np.iinfo(kind).min], [1]], kind)


@pytest.fixture
def every(parts):
    """A model that gives back one column of each."""
    graph = [parts.node("Identity", [name], [f"{name}_out"]) for name in ONNX]
    graph += [parts.value(11, name, kind, -1, 1) for name, kind in ONNX.items()]
    graph += [parts.value(12, f"{name}_out", kind, -1, 1) for name, kind in ONNX.items()]
    files = parts.echo()
    files.onnx = parts.onnx_model(*graph)
    tensors = [{"name": name, "datatype": name, "shape": [-1, 1]} for name in ONNX]
    outputs = [{**tensor, "tensor": f"{tensor['name']}_out"} for tensor in tensors]
    files.signature = {"inputs": tensors, "outputs": outputs, "columns": list(ONNX), "task": "regression"}
    one = [{**tensor, "shape": [1, 1], "data": ["x"] if tensor["name"] == "BYTES" else [1]} for tensor in tensors]
    one[0]["data"] = [True]
    files.examples = {"inputs": one, "outputs": one, "tolerance": 0.0}
    return files


def same(name: str, found: np.ndarray) -> None:
    wanted = edges(name)
    if name == "BYTES":
        texts = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
        assert texts == wanted.ravel().tolist()
    else:
        assert found.dtype == wanted.dtype
        assert np.array_equal(found.reshape(3, 1), wanted, equal_nan=wanted.dtype.kind == "f"), name


async def test_json(start, every):
    served = await start(every)
    inputs = []
    for name in ONNX:
        values = [None if value != value else value for value in edges(name).ravel().tolist()]  # noqa: PLR0124 -- NaN
        inputs.append({"name": name, "datatype": name, "shape": [3, 1], "data": values})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        answer = await client.post("/v2/models/toy/infer", content=orjson.dumps({"inputs": inputs}))

    assert answer.status_code == 200, answer.text
    for name, output in zip(ONNX, answer.json()["outputs"], strict=True):
        assert (output["name"], output["datatype"], output["shape"]) == (name, name, [3, 1])
        same(name, np.array([np.nan if value is None else value for value in output["data"]], edges(name).dtype))


@pytest.mark.parametrize("selected", [None, True, False])
async def test_raw_tensors(start, every, selected):
    """All inputs raw; outputs as the server likes, all raw, or all in JSON."""
    served = await start(every)

    def ask():
        with triton.InferenceServerClient(f"127.0.0.1:{served.server.port}") as client:
            tensors = []
            for name in ONNX:
                tensors.append(triton.InferInput(name, [3, 1], name))
                tensors[-1].set_data_from_numpy(edges(name), binary_data=True)
            wanted = None
            if selected is not None:
                wanted = [triton.InferRequestedOutput(name, binary_data=selected) for name in ONNX]
            return client.infer("toy", tensors, outputs=wanted)

    result = await asyncio.to_thread(ask)
    for name in ONNX:
        if selected or edges(name).dtype.kind != "f":  # in JSON, NaN is null
            same(name, result.as_numpy(name))


async def test_grpc(start, every):
    served = await start(every, grpc_port=0)

    def ask():
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{served.server.grpc_port}") as client:
            tensors = []
            for name in ONNX:
                tensors.append(triton_grpc.InferInput(name, [3, 1], name))
                tensors[-1].set_data_from_numpy(edges(name))
            return client.infer("toy", tensors)

    result = await asyncio.to_thread(ask)
    for name in ONNX:
        same(name, result.as_numpy(name))


async def test_parameters_that_nobody_knows_harm_nothing_and_those_that_are_known_are_checked(start, every):
    served = await start(every)
    inputs = [
        {"name": name, "datatype": name, "shape": [1, 1], "parameters": {"content_type": "np"},
         "data": ["x"] if name == "BYTES" else [name == "BOOL" or 1]}
        for name in ONNX
    ]  # fmt: skip
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        for parameters, status in (
            ({"anything": 1, "else": "x"}, 200),
            ({"binary_data_output": True}, 200),
            ({"binary_data_output": "yes"}, 400),
            ([], 400),
        ):
            answer = await client.post("/v2/models/toy/infer", json={"parameters": parameters, "inputs": inputs})
            assert (answer.status_code, parameters) == (status, parameters)
            raw = parameters == {"binary_data_output": True}
            assert ("inference-header-content-length" in answer.headers) is raw
