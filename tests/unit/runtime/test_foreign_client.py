"""A client that others wrote: NVIDIA's tritonclient, with and without binary tensors."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]  # it ships no types


@pytest.fixture(scope="module")
def served(tmp_path_factory, model_parts) -> Iterator[str]:
    """The echo, served by a process of its own."""
    options = model_parts.echo().write(tmp_path_factory.mktemp("model"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(options.folder), "--name", "toy"]
    command += ["--version", options.version, "--model-digest", options.digest]
    command += ["--port", str(port), "--drain-seconds", "0"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 15
            while not answers(port):
                assert time.monotonic() < deadline, "the runtime is not ready"
            yield f"127.0.0.1:{port}"
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
    with triton.InferenceServerClient(served) as client:
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
