"""What should carry gRPC: our HTTP/2 layer beside the h2 library, gRPC's own server, and MLServer.

    uv run python tests/bench/bench_grpc.py [--rounds 5] [--calls 20000]

All serve the breast-cancer logistic regression and get the same calls from h2load (one raw row,
4 connections, 16 streams each), in turn, the server on one core and h2load on another. The first
three share codec, batching and engine, so that they differ in what carries the calls alone;
MLServer runs in an environment of its own, without workers. On a machine that does other work
too, calls per CPU second say more than those per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench_runtime_smoke import (  # type: ignore[import-not-found]  # its neighbour
    cpu_seconds,
    free_port,
    memory,
    running,
    write_model,
)

MLSERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn>=1.7,<2", "protobuf<7")
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def loaded(folder: Path, digest: str) -> tuple[Any, Any]:
    """Load the model as the runtime does; gives it with the writer of its answers."""
    from slipway_runtime.grpc.codec import GrpcAnswerWriter  # noqa: PLC0415 -- only servers need it
    from slipway_runtime.metrics import Metrics  # noqa: PLC0415
    from slipway_runtime.model import ModelOptions, load_model  # noqa: PLC0415

    model = load_model(ModelOptions(folder, "bench", "v1", digest), Metrics("bench", "v1"))
    return model, GrpcAnswerWriter(model.signature, model.name, model.version)


def serve_with_h2(folder: Path, digest: str, port: int) -> None:  # noqa: C901 -- a server in one piece
    """Serve by the h2 library on uvloop."""
    import uvloop  # noqa: PLC0415
    from h2.config import H2Configuration  # noqa: PLC0415
    from h2.connection import H2Connection  # noqa: PLC0415
    from h2.events import DataReceived, StreamEnded  # noqa: PLC0415

    from slipway_runtime.grpc.codec import read_infer  # noqa: PLC0415

    model, writer = loaded(folder, digest)
    identity = [("slipway-content", "v1"), ("slipway-model-digest", digest)]
    head = [(":status", "200"), ("content-type", "application/grpc"), *identity]

    class Carrier(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
            self.h2.initiate_connection()
            self.bodies: dict[int, bytes] = {}
            self.flush()

        def flush(self) -> None:
            if waiting := self.h2.data_to_send():
                self.transport.write(waiting)

        def data_received(self, data: bytes) -> None:
            for event in self.h2.receive_data(data):
                if isinstance(event, DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                elif isinstance(event, StreamEnded):
                    self.infer(event.stream_id, self.bodies.pop(event.stream_id)[5:])
            self.flush()

        def infer(self, stream: int, message: bytes) -> None:
            request = read_infer(message)
            feeds, rows = model.aligner.align(request.inputs)

            def done(outcome: Any) -> None:
                answer = writer.write(request.id, outcome, None, raw=True)
                self.h2.send_headers(stream, [*head, ("x-request-id", "0")])
                self.h2.send_data(stream, b"\0" + len(answer).to_bytes(4, "big") + answer)
                self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
                self.flush()

            model.plane.submit(feeds, rows, done)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Carrier, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


def serve_with_grpcio(folder: Path, digest: str, port: int) -> None:
    """Serve by gRPC's own server on asyncio."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415
    import uvloop  # noqa: PLC0415

    from slipway_runtime.grpc.codec import read_infer  # noqa: PLC0415

    model, writer = loaded(folder, digest)
    identity = (("slipway-content", "v1"), ("slipway-model-digest", digest), ("x-request-id", "0"))

    async def infer(message: bytes, context: Any) -> bytes:
        request = read_infer(message)
        feeds, rows = model.aligner.align(request.inputs)
        waiting = asyncio.get_running_loop().create_future()
        model.plane.submit(feeds, rows, waiting.set_result)
        outcome = await waiting
        await context.send_initial_metadata(identity)
        written: bytes = writer.write(request.id, outcome, None, raw=True)
        return written

    async def main() -> None:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(infer)  # no (de)serialiser: bytes in, bytes out
        service = "inference.GRPCInferenceService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": handler}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    uvloop.run(main())


TRAIN = """
import json, sys
import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder, http, grpc, metrics = sys.argv[1], *map(int, sys.argv[2:])
data = load_breast_cancer()
fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(data.data, data.target)
joblib.dump(fitted, folder + "/m.joblib")
model = {"name": "bench", "implementation": "mlserver_sklearn.SKLearnModel"}
model["parameters"] = {"uri": "./m.joblib", "version": "v1"}
settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False}
settings |= {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
json.dump(model, open(folder + "/model-settings.json", "w"))
json.dump(settings, open(folder + "/settings.json", "w"))
"""


def mlserver(folder: Path, port: int) -> list[str]:
    """Prepare MLServer in an environment of its own; gives the command that serves."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not on PATH; run this by make bench-grpc")
    environment = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *MLSERVER], check=True)
    served = folder / "mlserver"
    served.mkdir()
    subprocess.run([python, "-c", TRAIN, str(served), str(free_port()), str(port), str(free_port())], check=True)
    return [str(environment / "bin" / "mlserver"), "start", str(served)]


def body(row: dict[str, Any]) -> bytes:
    """Write the call's body: one message, its values raw."""
    import numpy as np  # noqa: PLC0415

    from slipway_runtime.grpc.messages import message_class  # noqa: PLC0415

    given = row["inputs"][0]
    tensor = {"name": "input", "datatype": "FP32", "shape": given["shape"]}
    raw = np.array(given["data"], np.float32).tobytes()
    message = message_class("inference.ModelInferRequest")(
        model_name="bench", inputs=[tensor], raw_input_contents=[raw]
    )
    written = message.SerializeToString()
    return b"\0" + len(written).to_bytes(4, "big") + written


def asked(port: int, calls: int, content: Path, pid: int) -> dict[str, float]:
    """Ask with h2load."""
    before = cpu_seconds(pid)
    command = ["taskset", "-c", "1", "h2load", "-n", str(calls), "-c", "4", "-m", "16", "-t", "1", "-d", str(content)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{METHOD}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    if f"{calls} succeeded" not in text:
        raise SystemExit(text)
    rate = float(re.search(r"([\d.]+) req/s", text)[1])  # type: ignore[index]  # h2load always says so
    return {"per_second": rate, "per_cpu_second": calls / (cpu_seconds(pid) - before)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--serve", nargs=4, metavar=("WHAT", "FOLDER", "DIGEST", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        what, folder_name, digest, port = arguments.serve
        {"h2": serve_with_h2, "grpcio": serve_with_grpcio}[what](Path(folder_name), digest, int(port))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digest, row = write_model(folder)
        (folder / "body").write_bytes(body(row))
        ports = {who: free_port() for who in ("runtime", "h2", "grpcio", "mlserver")}
        pinned = ["taskset", "-c", "0"]
        runtime = [sys.executable, "-m", "slipway_runtime", "--model-dir", name, "--name", "bench", "--version", "v1"]
        runtime += ["--model-digest", digest, "--host", "127.0.0.1", "--port", str(free_port())]
        commands = {"runtime": [*runtime, "--grpc-port", str(ports["runtime"])]}
        for who in ("h2", "grpcio"):
            commands[who] = [sys.executable, __file__, "--serve", who, name, digest, str(ports[who])]
        commands["mlserver"] = mlserver(folder, ports["mlserver"])
        rounds: dict[str, list[dict[str, float]]] = {who: [] for who in ports}
        held: dict[str, float] = {}
        for turn in range(arguments.rounds + 1):
            for who, command in commands.items():
                with running([*pinned, *command], ports[who]) as (pid, _):
                    calls = arguments.calls if who != "mlserver" else arguments.calls // 10
                    asked(ports[who], calls // 10, folder / "body", pid)
                    if turn:  # the first turn warms the machine's caches
                        rounds[who].append(asked(ports[who], calls, folder / "body", pid))
                        held[who] = memory(pid)
    report(rounds, held)


def report(rounds: dict[str, list[dict[str, float]]], held: dict[str, float]) -> None:
    """Print medians, and keep them under ``bench-results``."""
    medians = {
        who: {key: statistics.median(one[key] for one in some) for key in some[0]} for who, some in rounds.items()
    }
    least = medians["mlserver"]
    for who, numbers in medians.items():
        times = numbers["per_second"] / least["per_second"], numbers["per_cpu_second"] / least["per_cpu_second"]
        print(
            f"{who:9} {numbers['per_second']:8,.0f} calls/s ({times[0]:5.1f}x MLServer) "
            f"{numbers['per_cpu_second']:8,.0f} per CPU second ({times[1]:5.1f}x) {held[who]:5.0f} MB (PSS)"
        )
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    document = {"at": now.isoformat(), "load": os.getloadavg()[0], "rounds": rounds, "medians": medians, "mb": held}
    (results / f"grpc-{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
