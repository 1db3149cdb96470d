"""Load for `bench_runtime.py`: closed loops by wrk and h2load, an open loop at a fixed rate by a few lines of our own.

All of it runs on the client's core.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import ssl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tests.bench.runtime_wire import Request, trusting

ON_ITS_CORE = ("taskset", "-c", "1")
LUA = """
local file = io.open("{body}", "rb")
wrk.method = "{method}"
wrk.body = file:read("*all")
{headers}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout, 0,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


def closed(url: str, request: Request, connections: int, seconds: float, folder: Path) -> dict[str, float]:
    """Ask as fast as answers come, over so many connections.

    Args:
        url: Of the server.
        request: Of each time.
        connections: Each has one request at a time.
        seconds: For how long.
        folder: For wrk's script.
    """
    (folder / "body").write_bytes(request.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{text}"' for name, text in request.headers.items())
    script = folder / "ask.lua"
    script.write_text(LUA.format(body=folder / "body", method=request.method, headers=headers))
    # wrk knows whole seconds alone; told to stop by SIGINT, it ends as after its time, and says how long that was.
    command = [*ON_ITS_CORE, "timeout", "--preserve-status", "-s", "INT", str(seconds)]
    command += ["wrk", "-t1", f"-c{connections}", "-d60s", "--timeout", "10s", "-s", str(script), url + request.path]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("RESULT")]
    requests, micros, errors, _, p50, p99, p999 = map(float, line.split()[1:])
    if not requests:
        raise RuntimeError(f"no answer within {seconds:.1f} s")
    if errors > requests * 0.001:
        raise RuntimeError(f"{int(errors)} of {int(requests)} requests failed")
    return {"per_second": requests / micros * 1e6, "p50": p50 / 1e3, "p99": p99 / 1e3, "p999": p999 / 1e3}


def calls(url: str, request: Request, connections: int, streams: int, seconds: float, folder: Path) -> dict[str, float]:
    """Call by gRPC as fast as answers come.

    h2load looks at HTTP's status alone; gRPC's own is in the trailer, so the caller asks once before and compares.

    Args:
        url: Of the server.
        request: Its body is a message with its length before it.
        connections: How many.
        streams: Calls at once on each of them.
        seconds: For how long.
        folder: For the body and h2load's log.
    """
    content, log = folder / "call", folder / "calls.log"
    content.write_bytes(request.body)
    log.unlink(missing_ok=True)
    command = [*ON_ITS_CORE, "h2load", "-t1", f"-c{connections}", f"-m{streams}", "-D", f"{seconds * 1000:.0f}ms"]
    command += ["-d", str(content), f"--log-file={log}", "-H", "te: trailers"]
    for name, text in request.headers.items():
        command += ["-H", f"{name.lower()}: {text}"]
    command.append(url + request.path)
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
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


def open_loop(
    url: str, request: Request, rate: int, seconds: float, folder: Path, patience: float = 2.0
) -> dict[str, float]:
    """Ask at a fixed rate; latencies count from when a request was due, answered late or not.

    Args:
        url: Of the server.
        request: Of each time.
        rate: Requests a second.
        seconds: For how long.
        folder: For what the client is told.
        patience: Seconds that requests may be late before the server is said not to keep up.
    """
    asked = _asked(url, request, folder / "open")
    command = [*ON_ITS_CORE, sys.executable, "-m", "tests.bench.runtime_load", str(asked)]
    command += [str(rate), str(seconds), str(patience)]
    ended = subprocess.run(command, check=True, capture_output=True, timeout=seconds + 90)
    result: dict[str, float] = json.loads(ended.stdout)
    if result.pop("is_late"):
        raise RuntimeError(f"does not keep up with {rate} requests a second")
    if result["bad"]:
        raise RuntimeError(f"{result['bad']:.0f} requests failed")
    return result


@contextlib.contextmanager
def asking_again_and_again(url: str, request: Request, folder: Path) -> Iterator[list[float]]:
    """Have one client more ask the same, one after the other, until the block ends; then gives how long each took.

    Raises:
        RuntimeError: If an answer was none.
    """
    took: list[float] = []
    log = folder / "beside.log"
    command = [
        *ON_ITS_CORE,
        sys.executable,
        "-m",
        "tests.bench.runtime_load",
        str(_asked(url, request, folder / "big")),
    ]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as client:
        try:
            time.sleep(0.5)
            yield took
        finally:
            client.kill()
    lines = [line.split() for line in log.read_text().splitlines()]
    if any(line[0] != "200" for line in lines):
        raise RuntimeError(f"the client beside: {log.read_text()[-300:]}")
    took += [float(line[1]) for line in lines]


def _asked(url: str, request: Request, file: Path) -> Path:
    """Write a request as it goes over the wire, after a line that says where."""
    scheme, _, host = url.partition("://")
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {text}" for name, text in request.headers.items()]
    lines += [f"Content-Length: {len(request.body)}", "", ""]
    file.write_bytes(f"{scheme} {host}\n".encode() + "\r\n".join(lines).encode() + request.body)
    return file


class _Client:
    """One connection, with one request at a time."""

    def __init__(self, scheme: str, address: tuple[str, int]) -> None:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = plain if scheme == "http" else trusting().wrap_socket(plain)
        self.due = 0.0
        self.good = True
        self._bytes = bytearray()

    def read(self) -> bool:
        """Read what is there; gives whether the answer is complete."""
        try:
            self._bytes += self.socket.recv(1 << 20)
        except (ssl.SSLWantReadError, BlockingIOError):  # a ticket of TLS, and no answer
            return False
        head, found, _ = bytes(self._bytes[:2000]).partition(b"\r\n\r\n")
        if not found:
            return False
        lines = head.lower().split(b"\r\n")
        size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
        length = len(self._bytes) - len(head) - 4
        if (length < size) if size is not None else not self._bytes.endswith(b"0\r\n\r\n"):
            return False
        self.good = head.startswith(b"HTTP/1.1 200")
        self._bytes.clear()
        return True


def _read(file: Path) -> tuple[str, tuple[str, int], bytes]:
    where, _, request = file.read_bytes().partition(b"\n")
    scheme, host = where.decode().split()
    name, _, port = host.partition(":")
    return scheme, (name, int(port)), request


def _drive(file: Path, rate: int, seconds: float, patience: float) -> dict[str, float]:
    """Ask, and look for answers without sleeping: a client that must be woken would measure its own waking.

    With a longer patience another client has this core, too: then it sleeps until shortly before the next is due.
    """
    scheme, address, request = _read(file)
    clients = [_Client(scheme, address) for _ in range(64)]
    by_number = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for number, client in by_number.items():
        client.socket.setblocking(False)
        poll.register(number, select.EPOLLIN)
    free, bad, sent, count = deque(clients), 0, 0, int(rate * seconds)
    took: list[float] = []
    is_late, sleeps = False, patience > 10
    begin = time.perf_counter() + 0.1
    while len(took) < count and time.perf_counter() < begin + seconds + 20:
        early = begin + sent / rate - time.perf_counter()
        if sent < count and free and early <= 0:
            client = free.popleft()
            client.due = begin + sent / rate
            client.socket.sendall(request)
            sent += 1
        elif sent < count and early < -patience:
            is_late = True
            break
        for number, _ in poll.poll(_pause(early, is_free=bool(free) and sent < count) if sleeps else 0):
            client = by_number[number]
            if client.read():
                took.append((time.perf_counter() - client.due) * 1e3)
                bad += not client.good
                free.append(client)
    if not is_late:
        bad += count - len(took)
    told = percentiles(sorted(took)) if took else {}
    return {"per_second": len(took) / (time.perf_counter() - begin), **told, "bad": bad, "is_late": is_late}


def _pause(early: float, *, is_free: bool) -> float:
    """Give how long nothing but an answer is worth waking up for."""
    return max(early - 0.002, 0) if is_free else 0.01


def _again_and_again(file: Path) -> None:
    """Ask until killed; writes a line for each answer: 200 or another, and its seconds."""
    scheme, address, request = _read(file)
    client = _Client(scheme, address)
    while True:
        began = time.perf_counter()
        client.socket.sendall(request)
        while not client.read():
            pass
        print(200 if client.good else "not-200", time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _again_and_again(Path(sys.argv[1]))
    print(json.dumps(_drive(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:]))))
