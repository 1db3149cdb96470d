"""Clients that others wrote, in other languages or with environments of their own: ``make test-runtime-clients``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtime import conftest as models

from slipway_runtime.http.page.snippets import snippets
from tools.__main__ import ensure
from tools.gobuild import find_go

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("SLIPWAY_CACHE", Path.home() / ".cache" / "slipway"))
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The echo in a process of its own; gives its addresses for REST and gRPC."""
    options = models.echo().write(tmp_path_factory.mktemp("model"))
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, grpc_port = one.getsockname()[1], other.getsockname()[1]
    command = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(options.folder), "--name", "toy"]
    command += ["--version", options.version, "--model-digest", options.digest, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--grpc-port", str(grpc_port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 15
            while not listens(grpc_port):
                assert time.monotonic() < deadline, "the runtime is not ready"
                time.sleep(0.05)  # between two looks, with a deadline
            yield f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_java(served):
    """grpc-java on Netty; learns the messages by reflection."""
    program = shutil.which("java")
    maven = shutil.which("mvn")
    assert program, "Java 17 and Maven are needed"
    assert maven, "Java 17 and Maven are needed"
    jars = CACHE / "java-client" / "grpc-1.76.0"
    run([maven, "-q", "-B", "-f", str(HERE / "java" / "pom.xml"), COPY, f"-DoutputDirectory={jars}"])

    printed = run([program, "-cp", f"{jars}/*", str(HERE / "java" / "RuntimeClient.java"), served[1]])

    assert "all well" in printed


@pytest.fixture
def programs(served) -> dict[str, str]:
    """The programs of the page, for a row that every language must quote in its own way."""
    return dict(snippets(f"http://{served[0]}", {"carrier": "O'Hare \"é\\", "distance": 1.5, "month": 2}))


def check_prediction(printed: str) -> None:
    assert json.loads(printed)["predictions"] == [{"carrier": "O'Hare \"é\\", "distance": 1.5, "month": 12.0}]


def test_the_java_program_of_the_page(programs, tmp_path):
    """As it is copied, run from its source."""
    java = shutil.which("java")
    assert java, "Java 17 is needed"
    (tmp_path / "Predict.java").write_text(programs["Java"], encoding="utf-8")

    printed = run([java, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", str(tmp_path / "Predict.java")])

    check_prediction(printed)


def test_the_csharp_program_of_the_page(programs, tmp_path):
    """As it is copied, compiled and run by Debian's Mono."""
    compiler, mono = ensure("mcs"), ensure("mono")
    ensure("/usr/lib/mono/4.5/System.Net.Http.dll")
    (tmp_path / "Predict.cs").write_text(programs["C#"], encoding="utf-8")

    run([str(compiler), "-warnaserror+", "-r:System.Net.Http", str(tmp_path / "Predict.cs")])
    printed = run([str(mono), str(tmp_path / "Predict.exe")], env={**os.environ, "LANG": "C.UTF-8"})

    check_prediction(printed)


def test_go(served, tmp_path):
    """grpc-go; learns the messages by reflection."""
    client = tmp_path / "client"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    run([str(find_go()), "build", "-o", str(client), "."], cwd=HERE / "go", env=environment)

    assert "all well" in run([str(client), served[1]])


def test_the_kserve_client(served):
    """In its own locked environment."""
    uv = shutil.which("uv")
    assert uv, "run this by make test-runtime-clients"

    printed = run(
        [uv, "run", "--frozen", "--quiet", "--script", str(HERE / "kserve_client.py"), f"http://{served[0]}", served[1]]
    )

    assert "all well" in printed


def test_grpcurl(served):
    """Lists, describes and calls by reflection, as a person does."""
    program = [str(ensure("grpcurl")), "-plaintext"]
    one = {"datatype": "FP32", "shape": [1], "contents": {"fp32Contents": [719.5]}}
    inputs = [
        {"name": "carrier", "datatype": "BYTES", "shape": [1], "contents": {"bytesContents": ["VUE="]}},
        {"name": "distance", **one},
        {"name": "month", "datatype": "INT64", "shape": [1], "contents": {"int64Contents": ["2"]}},
    ]
    infer = "inference.GRPCInferenceService/ModelInfer"

    listed = run([*program, served[1], "list"]).split()
    described = run([*program, served[1], "describe", "inference.ModelInferRequest"])
    answer = run([*program, "-d", json.dumps({"model_name": "toy", "inputs": inputs}), served[1], infer])
    health = run([*program, served[1], "grpc.health.v1.Health/Check"])

    assert "inference.GRPCInferenceService" in listed
    assert "repeated bytes raw_input_contents = 7;" in described
    assert [output["contents"] for output in json.loads(answer)["outputs"]] == [
        {"bytesContents": ["VUE="]},
        {"fp32Contents": [719.5]},
        {"fp32Contents": [12]},
    ]
    assert json.loads(health) == {"status": "SERVING"}


@pytest.mark.parametrize("compressed", [False, True])
def test_curl(served, tmp_path, compressed):
    """JSON as a person sends it, and JSON with a raw tensor behind it."""
    program = str(ensure("curl"))
    url = f"http://{served[0]}/v2/models/toy/versions/c0ffee1234/infer"
    inputs = [
        {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
        {"name": "month", "datatype": "INT64", "shape": [1], "data": [1]},
        {"name": "distance", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
    ]
    head = json.dumps({"id": "c", "inputs": inputs}).encode()
    (tmp_path / "body").write_bytes(head + b"\0\0\x80\x3f")
    more = ["-H", "Expect: 100-continue", "--compressed"] if compressed else []

    command = [program, "-sS", "-H", f"Inference-Header-Content-Length: {len(head)}", *more]
    command += ["-H", "Content-Type: application/octet-stream", "--data-binary", f"@{tmp_path / 'body'}", url]
    answer = json.loads(run(command))

    assert [output["data"] for output in answer["outputs"]] == [["UA"], [1.0], [11.0]]
