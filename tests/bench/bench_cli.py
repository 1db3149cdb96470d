"""How long `kubectl slipway` keeps a person waiting before it does anything: start-up, in CPU and wall-clock time."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROUNDS = 15
BIN = Path(sys.executable).parent
COMMANDS = {
    "python alone": [sys.executable, "-c", "pass"],
    "--help": [str(BIN / "kubectl-slipway"), "--help"],
    "rollback --help": [str(BIN / "kubectl-slipway"), "rollback", "--help"],
    "completion of a command": [str(BIN / "kubectl_complete-slipway"), "ro"],
    "get, up to the first request": [str(BIN / "kubectl-slipway"), "get", "--kubeconfig", "KUBECONFIG"],
}
NOBODY = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "x",
    "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    "users": [{"name": "x", "user": {"token": "x"}}],
}


def once(command: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure each command, print a table, keep it under ``bench-results``."""
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    kubeconfig = results / "bench-cli-kubeconfig.json"
    kubeconfig.write_text(json.dumps(NOBODY))
    found = {}
    for name, command in COMMANDS.items():
        words = [str(kubeconfig) if word == "KUBECONFIG" else word for word in command]
        once(words)  # byte code and the page cache
        wall, cpu = zip(*(once(words) for _ in range(ROUNDS)), strict=True)
        found[name] = {"wallMedian": statistics.median(wall), "cpuMedian": statistics.median(cpu), "cpuBest": min(cpu)}
        print(f"{name:30} {found[name]['wallMedian']:5.2f} s  CPU {found[name]['cpuMedian']:5.2f} s")
    kubeconfig.unlink()
    now = datetime.now(UTC)
    document = {"at": now.isoformat(), "load": os.getloadavg()[0], "rounds": ROUNDS, "commands": found}
    (results / f"cli-{now:%Y%m%dT%H%M%S}.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
