"""What it costs to watch: throughput with everything counted, beside the same runtime that counts nothing.

    make bench-observing
    PYTHONPATH=. uv run python -m tests.bench.bench_observing [--seconds 3] [--rounds 5] [--variants bare traces]

Each variant is a process of its own, pinned to one core; wrk asks from the other one over 64
connections, one row of JSON a request, the variants in turn, each round in another order. "bare"
has its recording calls replaced by nothing. The cost is the median of the rounds' own ratios.
By processor time as well, as it says more on a machine that is shared. Traces go to a collector on
the client's core, which takes them and keeps none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer  # type: ignore[import-untyped]  # it ships no types
from tests.bench.bench_runtime_smoke import asked, free_port, running, write_model
from tests.bench.runtime_everything import HEADERS, Collector, everything, secured, traced

from slipway_operator.exporter.reference import reference
from slipway_operator.exporter.rows import Input

NOTHING = """
from slipway_runtime import metrics
from slipway_runtime.observing import watching
for name in ("answered", "answered_together", "ran", "took", "tick"):
    setattr(metrics.Metrics, name, lambda *arguments, **named: None)
watching.Watch.tick = lambda self: setattr(self, "is_on", False)
"""
START = "import sys\n{before}\nfrom slipway_runtime.__main__ import main\nsys.exit(main())"
Options = Callable[[Path], list[str]]
VARIANTS: dict[str, tuple[str, Options]] = {
    "bare": (NOTHING, lambda _: ["--watched-features", "0"]),
    "counters": ("", lambda _: ["--watched-features", "0"]),
    "values": ("", lambda _: []),
    "log": ("", lambda _: ["--access-log"]),
    "records": ("", lambda folder: ["--record-to", str(folder / "records-alone")]),
    "traces": ("", lambda _: traced()),
    "traces, 10 %": ("", lambda _: [*traced(), "--trace-ratio", "0.1"]),
    "TLS, keys": ("", secured),
    "all": ("", everything),
}
SECURED = ("TLS, keys", "all")


def write_reference(folder: Path) -> None:
    """Write what the rows of the breast-cancer data look like."""
    data = load_breast_cancer()
    rows = data.data.astype(np.float32)
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    chances = np.random.default_rng(0).random((len(rows), 2)).astype(np.float32)
    told = reference(
        [(Input("input", "FP32", (-1, 30), "number"), rows)],
        names,
        [("label", data.target), ("probabilities", chances)],
        classes=[0, 1],
    )
    (folder / "reference.json").write_text(json.dumps(told))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        digest, request = write_model(folder)
        write_reference(folder)
        script = folder / "post.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = [[{json.dumps(request)}]]\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
            + "".join(f'wrk.headers["{key}"] = "{text}"\n' for key, text in HEADERS.items())
        )
        servers = {}
        for variant in arguments.variants:
            before, more = VARIANTS[variant]
            port = free_port()
            command = ["sh", "-c", 'exec "$@" > /dev/null', "sh", "taskset", "-c", "0", sys.executable, "-c"]
            command += [START.format(before=before), "--model-dir", name, "--name", "bench", "--version", "v1"]
            command += ["--model-digest", digest, "--host", "127.0.0.1", "--port", str(port)]
            command += more(folder)
            pid, _ = stack.enter_context(running(command, port))
            scheme = "https" if variant in SECURED else "http"
            servers[variant] = (pid, f"{scheme}://127.0.0.1:{port}/v2/models/bench/infer")
        for pid, url in servers.values():
            asked(url, script, 1, pid)
        rounds = []
        for _ in range(arguments.rounds):
            order = random.sample(list(servers), len(servers))
            found = {
                variant: asked(servers[variant][1], script, arguments.seconds, servers[variant][0]) for variant in order
            }
            rounds.append(found)
    report(rounds)
    print(f"the collector has taken {Collector.taken} batches of spans")


def report(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print medians and ratios, and keep them under ``bench-results``."""
    first = next(iter(rounds[0]))
    base = "bare" if "bare" in rounds[0] else first
    document = {}
    for variant in sorted(rounds[0], key=list(VARIANTS).index):
        numbers = {key: statistics.median(one[variant][key] for one in rounds) for key in rounds[0][variant]}
        costs = {key: 1 - statistics.median(one[variant][key] / one[base][key] for one in rounds) for key in numbers}
        document[variant] = {"medians": numbers, "cost": costs}
        print(
            f"{variant:12} {numbers['per_second']:9,.0f} req/s ({costs['per_second']:+.1%})"
            f"  {numbers['per_cpu_second']:9,.0f} per CPU second ({costs['per_cpu_second']:+.1%})"
        )
    results = Path("bench-results")
    results.mkdir(exist_ok=True)
    (results / f"observing-{datetime.now(UTC):%Y%m%dT%H%M%S}.json").write_text(
        json.dumps({"rounds": rounds, "summary": document}, indent=1)
    )


if __name__ == "__main__":
    main()
