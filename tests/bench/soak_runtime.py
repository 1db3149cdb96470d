"""Whether a runtime grows under load: ``make soak-runtime``.

    uv run python tests/bench/soak_runtime.py [--seconds 300]

Everything is switched on: two workers, TLS, API keys, gRPC, traces to a collector, records to a folder, the
access log, values against a reference, feedback. Requests of all kinds come over connections that are opened
and closed; between them bursts of large ones; every status is checked. Every second the memory, descriptors
and threads of all processes together are read, and medians of the thirds of the time are compared. It ends
with 1 where the last third needs noticeably more of any than the second, by the slack or by what may grow in
an hour, whichever is more, or where an answer is not the one that is due. Minutes cannot tell a slow leak
from the heap's settling: `--seconds 3600` bounds it to `GROWTH` an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # it ships no types
import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.runtime_everything import KEY, Collector, authority, everything
from tests.unit.runtime.conftest import echo
from tests.unit.runtime.test_metrics import flights
from tests.unit.runtime.wire import INFER, Request

ROW = {"carrier": "UA", "distance": 719, "month": 2}
TABLE = "carrier,distance,month\nUA,1,2\n"
BURST = json.dumps({"rows": [ROW] * 20_000}).encode()
COLUMNS = (("carrier", "BYTES", b"\x02\0\0\0UA"), ("distance", "FP32", bytes(4)), ("month", "INT64", bytes(8)))
CALL = Request(
    model_name="toy",
    inputs=[{"name": name, "datatype": kind, "shape": [1, 1]} for name, kind, _ in COLUMNS],
    raw_input_contents=[raw for _, _, raw in COLUMNS],
).SerializeToString()
WORKERS = 2
KINDS = (("MB", 15.0), ("descriptors", 10.0), ("threads", 1.0))
"""What is read, and how much more of it the last third may need than the second."""
GROWTH = (30.0, 10.0, 1.0)
"""The same for an hour."""


def held(pid: int) -> tuple[float, int, int]:
    """Give megabytes, descriptors and threads of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    memory = descriptors = threads = 0
    for one in (str(pid), *children):
        text = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8")
        memory += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]  # the kernel writes it
        descriptors += len(list(Path(f"/proc/{one}/fd").iterdir()))
        threads += len(list(Path(f"/proc/{one}/task").iterdir()))
    return memory / 1024, descriptors, threads


class Load:
    """Callers, and what they were answered."""

    def __init__(self, ports: tuple[int, int], end: float) -> None:
        self._trust = ssl.create_default_context()
        authority().configure_trust(self._trust)
        self._credentials = grpc.ssl_channel_credentials(authority().cert_pem.bytes())
        self._url, self._grpc = f"https://localhost:{ports[0]}", f"localhost:{ports[1]}"
        self._end = end
        self.counts: dict[str, int] = {}
        self.wrong: dict[str, int] = {}

    def _client(self, key: str = KEY) -> httpx.AsyncClient:
        headers = {"x-api-key": key}
        return httpx.AsyncClient(base_url=self._url, verify=self._trust, trust_env=False, timeout=60, headers=headers)

    def _take(self, what: str, status: object, due: object) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        if status != due:
            self.wrong[f"{what}: {status}"] = self.wrong.get(f"{what}: {status}", 0) + 1

    async def ask(self) -> None:
        """Ask everything there is, over one short-lived connection after the other."""
        infer = {"inputs": [{"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, kind, value in (
            ("carrier", "BYTES", "UA"), ("distance", "FP32", 719.0), ("month", "INT64", 2))]}  # fmt: skip
        csv = {"content-type": "text/csv"}
        while time.monotonic() < self._end:
            async with self._client() as client, self._client("n" * 20) as stranger:
                for _ in range(30):
                    answer = await client.post("/v2/models/toy/infer", json=infer)
                    self._take("infer", answer.status_code, 200)
                    truth = {"id": answer.headers["x-request-id"], "truth": 1}
                    for what, due, asked in (
                        ("rows", 200, client.post("/predict", json={"rows": [ROW] * 3})),
                        ("table", 200, client.post("/predict", content=TABLE, headers=csv)),
                        ("malformed", 400, client.post("/predict", content=b"{")),
                        ("feedback", 202, client.post("/feedback", json=truth)),
                    ):
                        self._take(what, (await asked).status_code, due)
                answer = await stranger.post("/v2/models/toy/infer", json=infer)
                self._take("without a key", answer.status_code, 401)

    async def call(self) -> None:
        """Ask over gRPC: what is right, and what is not."""
        metadata = [("x-api-key", KEY)]
        while time.monotonic() < self._end:
            async with grpc.aio.secure_channel(self._grpc, self._credentials) as channel:
                infer = channel.unary_unary(INFER)
                for _ in range(100):
                    for what, due, message in (("call", "OK", CALL), ("bad call", "INVALID_ARGUMENT", b"\xff")):
                        call = infer(message, metadata=metadata)
                        self._take(what, (await call.code()).name, due)

    async def bursts(self) -> None:
        """Send large requests together, now and then."""
        while time.monotonic() < self._end - 15:
            async with self._client() as client:
                for answer in await asyncio.gather(*(client.post("/predict", content=BURST) for _ in range(4))):
                    self._take("20,000 rows", answer.status_code, 200)
            await asyncio.sleep(10)


def prepared(folder: Path, ports: tuple[int, int, int]) -> list[str]:
    """Write a model with its reference; gives the runtime's arguments."""
    model = echo().write(folder)
    (folder / "reference.json").write_text(json.dumps(flights()), encoding="utf-8")
    port, grpc_port, probe_port = map(str, ports)
    return [
        *("--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", model.digest),
        *("--host", "127.0.0.1", "--port", port, "--grpc-port", grpc_port, "--probe-port", probe_port),
        *("--workers", str(WORKERS), "--record-bytes", str(32 << 20), *everything(folder)),
    ]


async def ready(port: int) -> None:
    """Wait until it is."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{port}/v2/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


async def soak(seconds: float, folder: Path) -> int:
    """Run and judge."""
    ports = (18473, 18474, 18475)
    options = prepared(folder, ports)
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "slipway_runtime", *options]
        runtime = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    seen = []
    try:
        await ready(ports[2])
        end = time.monotonic() + seconds
        load = Load(ports[:2], end)
        tasks = [asyncio.create_task(one()) for one in (*[load.ask] * 4, load.call, load.bursts)]
        while time.monotonic() < end:
            await asyncio.sleep(1)
            seen.append(held(runtime.pid))
        await asyncio.gather(*tasks)
        await asyncio.sleep(8)
        rest = held(runtime.pid)
        async with httpx.AsyncClient(trust_env=False) as client:
            metrics = (await client.get(f"http://127.0.0.1:{ports[2]}/metrics")).text
    finally:
        with contextlib.suppress(ProcessLookupError):
            runtime.terminate()
        await runtime.wait()
    values = re.search(r"^slipway_observed_rows_total\{[^}]*\} (\d+)", metrics, re.MULTILINE)
    done = {
        "rows counted against the reference": int(values[1]) if values else 0,
        "posts of traces": Collector.taken,
        "bytes of records": sum(one.stat().st_size for one in (folder / "records").rglob("*") if one.is_file()),
        "lines of the access log": (folder / "log").read_bytes().count(b"\n"),
    }
    failed = [*grown(seen, rest, seconds), *(f"no {name}" for name, count in done.items() if not count)]
    print(f"{sum(load.counts.values())} requests: {load.counts}; {done}")
    failed += [f"{count} times {what}" for what, count in load.wrong.items()]
    for line in failed:
        print(f"FAILED {line}")
    return 1 if failed else 0


def grown(seen: list[tuple[float, int, int]], rest: tuple[float, int, int], seconds: float) -> list[str]:
    """Compare the thirds of the time; gives what needs more and more."""
    third, failed = len(seen) // 3, []
    for place, (name, slack) in enumerate(KINDS):
        parts = (seen[:third], seen[third : 2 * third], seen[2 * third :])
        first, before, after = (statistics.median(one[place] for one in part) for part in parts)
        hourly = (after - before) * 3600 / (seconds / 3)
        print(
            f"{name} of all processes, medians of thirds: {first:.0f}, {before:.0f}, {after:.0f} "
            f"({hourly:+.0f} an hour), at rest {rest[place]:.0f}"
        )
        if after - before > max(slack if seconds < 3600 else 0.0, GROWTH[place] * seconds / 3 / 3600):
            failed.append(f"{name} grow")
    return failed


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300, help="an hour or more bounds a slow leak, too")
    with tempfile.TemporaryDirectory() as name:
        return uvloop.run(soak(parser.parse_args().seconds, Path(name)))


if __name__ == "__main__":
    sys.exit(main())
