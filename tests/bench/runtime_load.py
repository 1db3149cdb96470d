"""Load for `bench_runtime.py`: closed loops by wrk and h2load, an open loop at a fixed rate by a few lines of our own.

All of it runs on the client's core.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ON_ITS_CORE = ("taskset", "-c", "1")
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
    command = [*ON_ITS_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(folder / "post.lua"), url]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("RESULT")]
    requests, micros, errors, _, p50, p99, p999 = map(float, line.split()[1:])
    if errors > requests * 0.001:
        raise RuntimeError(f"{int(errors)} of {int(requests)} requests failed")
    return {"per_second": requests / micros * 1e6, "p50": p50 / 1e3, "p99": p99 / 1e3, "p999": p999 / 1e3}


def calls(
    port: int, body: bytes, connections: int, streams: int, seconds: int, folder: Path, method: str
) -> dict[str, float]:
    """Call by gRPC as fast as answers come.

    h2load looks at HTTP's status alone; gRPC's own is in the trailer, so the caller asks once before and compares.

    Args:
        port: Of loopback.
        body: A message with its length before it.
        connections: How many.
        streams: Calls at once on each of them.
        seconds: For how long.
        folder: For the body and h2load's log.
        method: Path of the method.
    """
    content, log = folder / "call", folder / "calls.log"
    content.write_bytes(body)
    log.unlink(missing_ok=True)
    command = [
        *ON_ITS_CORE,
        "h2load",
        "-t1",
        f"-c{connections}",
        f"-m{streams}",
        "-D",
        str(seconds),
        "-d",
        str(content),
    ]
    command += [f"--log-file={log}", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    address = f"http://127.0.0.1:{port}{method}"
    text = subprocess.run([*command, address], check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    told = re.search(r"requests: .* (\d+) done, (\d+) succeeded", text)
    if told is None or told[1] != told[2] or told[1] == "0":
        raise RuntimeError(f"h2load: {text[-300:]}")
    # Of each call: when it began, its status, how long it took; microseconds.
    took = sorted(int(line.split()[2]) / 1e3 for line in log.read_text().splitlines())
    return {"per_second": int(told[1]) / seconds, **percentiles(took)}


def percentiles(took: list[float]) -> dict[str, float]:
    """Give the percentiles of a sorted list."""
    places = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {name: took[min(int(len(took) * share), len(took) - 1)] for name, share in places.items()}


def open_loop(url: str, body: bytes, rate: int, seconds: float, folder: Path) -> dict[str, float]:
    """Ask at a fixed rate; latencies count from when a request was due, answered late or not."""
    (folder / "body").write_bytes(body)
    command = [*ON_ITS_CORE, sys.executable, "-m", "tests.bench.runtime_load", url, str(folder / "body")]
    ended = subprocess.run([*command, str(rate), str(seconds)], check=True, capture_output=True, timeout=seconds + 60)
    result: dict[str, float] = json.loads(ended.stdout)
    if result["bad"]:
        raise RuntimeError(f"{result['bad']} requests failed")
    return result


class _Client:
    """One connection, with one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.good = True
        self._bytes = b""

    def read(self) -> bool:
        """Read what is there; gives whether the answer is complete."""
        self._bytes += self.socket.recv(1 << 16)
        head, found, body = self._bytes.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        if not found or ((len(body) < size) if size is not None else not body.endswith(b"0\r\n\r\n")):
            return False
        self.good = head.startswith(b"HTTP/1.1 200")
        self._bytes = b""
        return True


def _drive(url: str, body: bytes, rate: int, seconds: float) -> dict[str, float]:
    """Ask, and look for answers without ever sleeping: a client that must be woken would measure its own waking."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    lines = (
        f"POST /{path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    request = "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body
    clients = [_Client((name, int(port))) for _ in range(64)]
    by_number = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    free, bad, sent, count = deque(clients), 0, 0, int(rate * seconds)
    took: list[float] = []
    begin = time.perf_counter() + 0.1
    while len(took) < count and time.perf_counter() < begin + seconds + 20:
        if sent < count and free and (due := begin + sent / rate) <= time.perf_counter():
            client = free.popleft()
            client.due = due
            client.socket.sendall(request)
            sent += 1
        for number, _ in poll.poll(0):
            client = by_number[number]
            if client.read():
                took.append((time.perf_counter() - client.due) * 1e3)
                bad += not client.good
                free.append(client)
    if len(took) < count:
        bad += count - len(took)
    return {"per_second": len(took) / (time.perf_counter() - begin), **percentiles(sorted(took)), "bad": bad}


if __name__ == "__main__":
    print(json.dumps(_drive(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), float(sys.argv[4]))))
