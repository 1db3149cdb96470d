"""How fast the runtime answers, beside the least that a loop can do: one quick look, loopback only.

    uv run python tests/bench/bench_runtime_smoke.py [--seconds 3] [--rounds 3]

Serves a logistic regression on the breast-cancer data and, from another process, a bare uvloop
protocol that parses nothing and answers ``hello``; asks both in turn with wrk (Debian's package)
over 64 connections, one row of JSON a request. The share of the bare loop says more than the
requests per second, which are those of the machine and of whatever else runs on it.
The full comparison with other servers is ``make bench-runtime``'s.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types
from skl2onnx import to_onnx  # type: ignore[import-untyped]  # as above
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]  # as above
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # as above
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]  # as above
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]  # as above

HELLO = r"""
import asyncio, sys, uvloop
class Hello(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
async def main():
    server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
uvloop.run(main())
"""


def write_model(folder: Path) -> tuple[str, dict[str, Any]]:
    """Write a model's files; gives its digest and one row as a request."""
    data = load_breast_cancer()
    rows = data.data.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(rows, data.target)
    options = {"zipmap": False}
    onnx = to_onnx(model, rows[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}).SerializeToString()
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0].name
    label, chances = (output.name for output in session.get_outputs())
    labels, probabilities = session.run([label, chances], {tensor: rows[:20]})
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": [-1], "tensor": label},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2], "tensor": chances},
    ]
    signature = {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 30], "tensor": tensor}],
        "outputs": outputs,
        "columns": names,
        "classes": [0, 1],
        "task": "classification",
    }
    recorded = [
        {"name": "label", "datatype": "INT64", "shape": [20], "data": labels.tolist()},
        {"name": "probabilities", "datatype": "FP32", "shape": [20, 2], "data": probabilities.ravel().tolist()},
    ]
    examples = {"inputs": [tensor_of(rows[:20])], "outputs": recorded, "tolerance": 1e-5}
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "signature.json").write_text(json.dumps(signature))
    (folder / "examples.json").write_text(json.dumps(examples))
    return "sha256:" + hashlib.sha256(onnx).hexdigest(), {"inputs": [tensor_of(rows[:1])]}


def tensor_of(rows: Any) -> dict[str, Any]:
    """Write rows as a tensor of the protocol."""
    return {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}


def free_port() -> int:
    """Find a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[tuple[int, float]]:
    """Run a server; gives its process id and the seconds until it listened."""
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if time.perf_counter() - start > 120:
                    raise SystemExit(f"{command[2]} does not listen")
                time.sleep(0.005)
            yield process.pid, time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    """Give the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Give a process's proportional share of memory in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]  # the kernel writes it


def asked(url: str, script: Path, seconds: int, pid: int) -> dict[str, float]:
    """Ask with wrk for some seconds."""
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    total = float(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]  # wrk always says so
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]  # as above
    return {"per_second": rate, "per_cpu_second": total / (cpu_seconds(pid) - before)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digest, request = write_model(folder)
        script = folder / "post.lua"
        body = json.dumps(request)
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = [[{body}]]\nwrk.headers["Content-Type"] = "application/json"\n'
        )
        ports = free_port(), free_port()
        command = [sys.executable, "-m", "slipway_runtime", "--model-dir", name, "--name", "bench", "--version", "v1"]
        command += ["--model-digest", digest, "--host", "127.0.0.1", "--port", str(ports[0])]
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        with (
            running(command, ports[0]) as (pid, started),
            running([sys.executable, "-c", HELLO, str(ports[1])], ports[1]) as (bare, _),
        ):
            for _ in range(arguments.rounds):
                ours = asked(f"http://127.0.0.1:{ports[0]}/v2/models/bench/infer", script, arguments.seconds, pid)
                rounds.append((ours, asked(f"http://127.0.0.1:{ports[1]}/", script, arguments.seconds, bare)))
            held = memory(pid)
    report(rounds, started, held)


def report(rounds: list[tuple[dict[str, float], dict[str, float]]], started: float, held: float) -> None:
    """Print medians, and keep them under ``bench-results``."""
    medians = {
        who: {key: statistics.median(one[place][key] for one in rounds) for key in rounds[0][place]}
        for place, who in enumerate(("runtime", "hello"))
    }
    share = statistics.median(ours["per_second"] / bare["per_second"] for ours, bare in rounds)
    for who, numbers in medians.items():
        print(f"{who:8} {numbers['per_second']:9,.0f} req/s  {numbers['per_cpu_second']:9,.0f} per CPU second")
    print(f"share of the bare loop {share:.0%}; listening after {started:.2f} s; {held:.0f} MB (PSS)")
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    now = datetime.now(UTC)
    document = {"at": now.isoformat(), "machine": platform.processor() or platform.machine(), "load": load}
    document |= {"rounds": rounds, "medians": medians, "share": share, "startSeconds": started, "megabytes": held}
    (results / f"runtime-smoke-{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
