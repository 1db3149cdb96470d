"""Load for `bench_runtime.py`: closed loop by wrk, open loop at a fixed rate by a few lines of asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvloop

LUA = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = "{kind}"
{more}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout, 0,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def closed(
    url: str, body: bytes, connections: int, seconds: int, folder: Path, json_length: int = 0
) -> dict[str, float]:
    """Ask as fast as answers come, over so many connections.

    Args:
        url: Where.
        body: Of each request.
        connections: Each has one request at a time.
        seconds: For how long.
        folder: For wrk's script.
        json_length: Where the body's JSON ends, if raw tensors follow it.
    """
    (folder / "body").write_bytes(body)
    more = f'wrk.headers["Inference-Header-Content-Length"] = "{json_length}"' if json_length else ""
    kind = "application/octet-stream" if json_length else "application/json"
    (folder / "post.lua").write_text(LUA.format(body=folder / "body", kind=kind, more=more))
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(folder / "post.lua"), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("RESULT")]
    requests, micros, errors, _, p50, p99, p999 = map(float, line.split()[1:])
    if errors > requests * 0.001:
        raise RuntimeError(f"{int(errors)} of {int(requests)} requests failed")
    return {"per_second": requests / micros * 1e6, "p50": p50 / 1e3, "p99": p99 / 1e3, "p999": p999 / 1e3}


def open_loop(url: str, body: bytes, rate: int, seconds: float, folder: Path) -> dict[str, float]:
    """Ask at a fixed rate from the other core; latencies count from when a request was due, answered late or not."""
    (folder / "body").write_bytes(body)
    command = ["taskset", "-c", "1", sys.executable, "-m", "tests.bench.runtime_load", url, str(folder / "body")]
    ended = subprocess.run([*command, str(rate), str(seconds)], check=True, capture_output=True, timeout=seconds + 60)
    result: dict[str, float] = orjson.loads(ended.stdout)
    return result


class _Client(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, free: asyncio.Queue[_Client]) -> None:
        self._free = free
        self.due = 0.0
        self.latencies: list[float] = []
        self.bad = 0
        self._bytes = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._free.put_nowait(self)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        head, found, body = self._bytes.partition(b"\r\n\r\n")
        if not found:
            return
        size = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None
        )
        if (len(body) < size) if size is not None else not body.endswith(b"0\r\n\r\n"):
            return
        self.latencies.append(time.perf_counter() - self.due)
        self.bad += not head.startswith(b"HTTP/1.1 200")
        self._bytes = b""
        self._free.put_nowait(self)


async def _drive(url: str, body: bytes, rate: int, seconds: float) -> dict[str, float]:
    host, _, rest = url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    request = (
        f"POST /{path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    free: asyncio.Queue[_Client] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for _ in range(64):
        _, client = await loop.create_connection(lambda: _Client(free), host, int(port))
        clients.append(client)
    begin = time.perf_counter() + 0.1
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        client = await asyncio.wait_for(free.get(), 20)
        client.due = due
        client.transport.write(request)
    for _ in range(1000):
        if free.qsize() == len(clients):
            break
        await asyncio.sleep(0.01)
    took = time.perf_counter() - begin
    all_of_them = sorted(value for client in clients for value in client.latencies)

    def at(share: float) -> float:
        return all_of_them[min(int(len(all_of_them) * share), len(all_of_them) - 1)] * 1e3

    return {
        "per_second": len(all_of_them) / took,
        "p50": at(0.5),
        "p99": at(0.99),
        "p999": at(0.999),
        "bad": sum(client.bad for client in clients),
    }


if __name__ == "__main__":
    result = uvloop.run(_drive(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4])))
    sys.stdout.buffer.write(orjson.dumps(result))
