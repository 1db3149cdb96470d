"""Clients that others wrote: NVIDIA's tritonclient over HTTP (with and without binary tensors) and gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc  # type: ignore[import-untyped]  # it ships no types
import tritonclient.http as triton  # type: ignore[import-untyped]  # it ships no types

from lab.ports import free_port


@pytest.fixture(scope="module")
def served(tmp_path_factory, model_parts) -> Iterator[tuple[str, str]]:
    """The echo, served by a process of its own."""
    options = model_parts.echo().write(tmp_path_factory.mktemp("model"))
    port, grpc_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    command = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(options.folder), "--name", "toy"]
    command += ["--version", options.version, "--model-digest", options.digest]
    command += ["--port", str(port), "--grpc-port", str(grpc_port), "--drain-seconds", "0"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 15
            while not answers(port):
                assert time.monotonic() < deadline, "the runtime is not ready"
            yield f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.1):
            return True
    except OSError:
        time.sleep(0.02)  # between two looks, with a deadline
        return False


@pytest.fixture
def client(served):
    with triton.InferenceServerClient(served[0]) as client:
        yield client


@pytest.fixture
def grpc_client(served):
    with triton_grpc.InferenceServerClient(served[1]) as client:
        yield client


def inputs(*, binary: bool):
    carriers = np.array([["UA"], ["Ünïted"], [""]], dtype=object)
    distances = np.array([[719.5], [np.nan], [-1e-9]], np.float32)
    months = np.array([[0], [1], [2]], np.int64)
    tensors = []
    for name, datatype, values in (
        ("carrier", "BYTES", carriers),
        ("distance", "FP32", distances),
        ("month", "INT64", months),
    ):
        tensor = triton.InferInput(name, [3, 1], datatype)
        # Its JSON form writes NaN, which is no JSON: a missing number goes as raw bytes.
        tensor.set_data_from_numpy(values, binary_data=binary or name == "distance")
        tensors.append(tensor)
    return tensors, carriers, distances


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", [None, True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_way_to_send_and_to_receive(client, binary, outputs, compression):
    tensors, carriers, distances = inputs(binary=binary)
    names = ("carrier", "distance", "month")
    wanted = outputs if outputs is None else [triton.InferRequestedOutput(name, binary_data=outputs) for name in names]

    result = client.infer(
        "toy",
        tensors,
        outputs=wanted,
        request_id="r-1",
        model_version="c0ffee1234",
        request_compression_algorithm=compression,
    )

    assert result.get_response()["id"] == "r-1"
    assert [as_text(value) for value in result.as_numpy("carrier").ravel()] == carriers.ravel().tolist()
    assert result.as_numpy("month").ravel().tolist() == [10, 11, 12]
    returned = result.as_numpy("distance")
    assert np.array_equal(returned.astype(np.float32), distances, equal_nan=True)


def as_text(value) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_what_it_asks_about_the_server(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy", "c0ffee1234")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert [column["name"] for column in client.get_model_metadata("toy")["inputs"]] == ["carrier", "distance", "month"]


def test_it_reads_our_errors(client):
    tensor = triton.InferInput("carier", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))

    with pytest.raises(triton.InferenceServerException, match='there is no input "carier"; did you mean "carrier"'):
        client.infer("toy", [tensor])


@pytest.mark.parametrize("outputs", [None, ("month", "carrier")])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_way_over_grpc(grpc_client, outputs, compression):
    given, carriers, distances = inputs(binary=True)
    tensors = []
    for tensor, values in zip(given, (carriers, distances, np.array([[0], [1], [2]], np.int64)), strict=True):
        tensors.append(triton_grpc.InferInput(tensor.name(), [3, 1], tensor.datatype()))
        tensors[-1].set_data_from_numpy(values)
    wanted = outputs and [triton_grpc.InferRequestedOutput(name) for name in outputs]

    result = grpc_client.infer(
        "toy",
        tensors,
        outputs=wanted,
        request_id="r-1",
        model_version="c0ffee1234",
        client_timeout=30.0,
        headers={"x-request-id": "from-the-caller"},
        compression_algorithm=compression,
    )

    names = [output.name for output in result.get_response().outputs]
    assert (result.get_response().id, names) == ("r-1", list(outputs or ("carrier", "distance", "month")))
    assert [as_text(value) for value in result.as_numpy("carrier").ravel()] == carriers.ravel().tolist()
    assert result.as_numpy("month").ravel().tolist() == [10, 11, 12]
    if outputs is None:
        assert np.array_equal(result.as_numpy("distance"), distances, equal_nan=True)


def test_what_it_asks_about_the_server_over_grpc(grpc_client):
    assert grpc_client.is_server_live()
    assert grpc_client.is_server_ready()
    assert grpc_client.is_model_ready("toy", "c0ffee1234")
    assert list(grpc_client.get_server_metadata().extensions) == ["binary_tensor_data"]
    metadata = grpc_client.get_model_metadata("toy", as_json=True)
    assert [column["name"] for column in metadata["inputs"]] == ["carrier", "distance", "month"]


def test_it_reads_our_errors_over_grpc(grpc_client):
    tensor = triton_grpc.InferInput("carier", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))

    with pytest.raises(triton_grpc.InferenceServerException, match='did you mean "carrier"') as caught:
        grpc_client.infer("toy", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_many_threads_share_one_channel(grpc_client):
    """What arrives together runs together, and every caller gets the answer to its own row."""

    def ask(number: int) -> int:
        tensors = [triton_grpc.InferInput(name, [1, 1], kind) for name, kind in KINDS]
        for tensor, value in zip(tensors, ("UA", number + 0.5, number % 3), strict=True):
            tensor.set_data_from_numpy(np.array([[value]], ARRAYS[tensor.datatype()]))
        return int(grpc_client.infer("toy", tensors).as_numpy("distance")[0, 0])

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(200))) == list(range(200))


KINDS = (("carrier", "BYTES"), ("distance", "FP32"), ("month", "INT64"))
ARRAYS = {"BYTES": object, "FP32": np.float32, "INT64": np.int64}
