"""Whether a runtime grows under load: ``make soak-runtime``.

    uv run python tests/bench/soak_runtime.py [--seconds 300]

Everything is switched on: records to a folder, the access log, values, feedback. Requests of all kinds
come over connections that are opened and closed; between them bursts of large ones. Every second
the runtime's memory, descriptors and threads are read. It ends with 1 where the last third of the
time needs noticeably more of any than the second, or a request fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.runtime.conftest import echo

ROW = {"carrier": "UA", "distance": 719, "month": 2}
TABLE = "carrier,distance,month\nUA,1,2\n"
BURST = json.dumps({"rows": [ROW] * 20_000}).encode()


def held(pid: int) -> tuple[float, int, int]:
    """Give megabytes, descriptors and threads of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    pss = int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]  # the kernel writes it
    return pss, len(list(Path(f"/proc/{pid}/fd").iterdir())), len(list(Path(f"/proc/{pid}/task").iterdir()))


async def ask(url: str, end: float, counts: dict[int, int]) -> None:
    """Ask everything there is, over one short-lived connection after the other."""
    infer = {"inputs": [{"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, kind, value in (
        ("carrier", "BYTES", "UA"), ("distance", "FP32", 719.0), ("month", "INT64", 2))]}  # fmt: skip
    while time.monotonic() < end:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            for _ in range(50):
                answers = [
                    await client.post("/v2/models/toy/infer", json=infer),
                    await client.post("/predict", json={"rows": [ROW] * 3}),
                    await client.post(
                        "/predict", content="carrier,distance,month\nUA,1,2\n", headers={"content-type": "text/csv"}
                    ),
                    await client.post("/predict", content=b"{"),
                ]
                identifier = answers[0].headers["x-request-id"]
                answers.append(await client.post("/feedback", json={"id": identifier, "truth": 1}))
                for answer in answers:
                    counts[answer.status_code] = counts.get(answer.status_code, 0) + 1


async def bursts(url: str, end: float) -> None:
    """Send large requests together, now and then."""
    while time.monotonic() < end:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            await asyncio.gather(*(client.post("/predict", content=BURST) for _ in range(4)))
        await asyncio.sleep(10)


async def soak(seconds: float, folder: Path) -> int:
    """Run and judge."""
    echo().write(folder)
    digest = "sha256:" + hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    port = 18473
    options = ["--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", digest]
    options += ["--host", "127.0.0.1", "--port", str(port), "--access-log", "--record-to", str(folder / "records")]
    options += ["--record-bytes", str(32 << 20)]
    null = asyncio.subprocess.DEVNULL
    runtime = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "slipway_runtime", *options, stdout=null, stderr=null
    )
    url, counts, seen = f"http://127.0.0.1:{port}", dict[int, int](), []
    try:
        await asyncio.sleep(2)
        end = time.monotonic() + seconds
        tasks = [asyncio.create_task(ask(url, end, counts)) for _ in range(4)]
        tasks.append(asyncio.create_task(bursts(url, end - 15)))
        while time.monotonic() < end:
            await asyncio.sleep(1)
            seen.append(held(runtime.pid))
        await asyncio.gather(*tasks)
        await asyncio.sleep(8)
        rest = held(runtime.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            runtime.kill()
        await runtime.wait()
    third = len(seen) // 3
    middle, last = seen[third : 2 * third], seen[2 * third :]
    failed = []
    for place, (name, slack) in enumerate((("MB", 15.0), ("descriptors", 10.0), ("threads", 1.0))):
        before, after = (statistics.median(one[place] for one in part) for part in (middle, last))
        thirds = f"first {seen[0][place]:.0f}, middle third {before:.0f}, last third {after:.0f}"
        print(f"{name}: {thirds}, at rest {rest[place]:.0f}")
        if after > before + slack:
            failed.append(f"{name} grow")
    print(f"{sum(counts.values())} requests: {dict(sorted(counts.items()))}")
    if set(counts) != {200, 202, 400} or not counts[200] == 3 * counts[202] == 3 * counts[400]:
        failed.append("requests failed")
    for line in failed:
        print(f"FAILED {line}")
    return 1 if failed else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    with tempfile.TemporaryDirectory() as name:
        return uvloop.run(soak(parser.parse_args().seconds, Path(name)))


if __name__ == "__main__":
    sys.exit(main())
