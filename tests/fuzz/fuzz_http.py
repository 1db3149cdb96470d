"""Bad requests without end over HTTP, and good ones beside them: ``make fuzz-runtime``.

    uv run python tests/fuzz/fuzz_http.py [--bad 100000] [--seed 1] [--rate 2500]

A real runtime as a process of its own. Good requests come 200 a second, by an open loop: for some
seconds alone, beside as many good ones as bad ones will come, then beside bad ones over 16
connections, then alone again. Where there are two cores or more, the runtime has the first to itself
and all that asks the others, so that a figure is not one of who waited for a core. It ends with 1 where
a bad request got a 5xx, counts as one, got no answer, or one that tells of the inside; where a good one
failed; or where the runtime ended or kept the memory. What the good ones took in each part is printed: a
figure, not a test, as it is one of the machine too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import math
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.attacks import GOOD, attacks, faults_of, request
from tests.unit.runtime.conftest import echo

CONNECTIONS = 16
SPARE = 1.06
"""How many more are made than must be refused: some turn out to be good."""
GOOD_RATE = 200
LEAKS = re.compile(rb"Traceback|File \"|site-packages|\.venv|slipway_runtime|onnxruntime|orjson|httptools|numpy|/tmp/")


@dataclass
class Found:
    """What came of the bad requests."""

    refused: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    good_after_all: int = 0
    wrong: list[str] = field(default_factory=list)
    answers: list[tuple[str, bytes, int, bytes]] = field(default_factory=list)
    """Kind, beginning of the request, status, and answer of each."""
    connections: int = 0
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """How many were refused."""
        return sum(self.refused.values())


@dataclass
class Asked:
    """What came of the good requests of one part."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def shown(self) -> str:
        """Give the figures."""
        millis = sorted(1000 * one for one in self.seconds)
        p99 = millis[int(len(millis) * 0.99)]
        return (
            f"{len(millis)} good, {len(self.failed)} failed, p50 {statistics.median(millis):.2f} ms, p99 {p99:.2f} ms"
        )


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Read one answer; gives code, body, and whether the connection goes on."""
    head = await reader.readuntil(b"\r\n\r\n")
    code = int(head[9:12])
    if code == 100:
        return await answer(reader)
    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # every answer has one
    return code, head + await reader.readexactly(length), b"connection: close" not in head


def crowd() -> tuple[str, bytes]:
    """Make a good request, for the load that bad ones are compared with."""
    return "crowd", request(json.dumps(GOOD).encode())


async def attack(port: int, requests: Iterable[tuple[str, bytes]], found: Found, pause: float) -> None:
    """Send requests over one connection after the other."""
    reader = writer = None
    due = time.perf_counter()
    for name, raw in requests:
        due += pause
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            found.connections += 1
        going = False
        try:
            # A maker's request may promise more than it sends: the half-close ends what it began.
            writer.write(raw)
            if name in ("strange_header", "no_http"):
                writer.write_eof()
            code, body, going = await asyncio.wait_for(answer(reader), 15)
            found.answers.append((name, raw[:300], code, body))
            going = going and name not in ("strange_header", "no_http", "tiny_chunks")
        except asyncio.IncompleteReadError as error:
            # Half a request and then the end of the connection is answered by nothing: there was no request.
            if name in ("strange_header", "no_http") and not error.partial:
                found.refused[name] += 1
            else:
                found.wrong.append(f"{name}: the connection ended without an answer to {raw[:300]!r}")
        except (TimeoutError, ConnectionError) as error:
            found.wrong.append(f"{name}: {type(error).__name__} for {raw[:300]!r}")
        if not going:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            reader = writer = None
    if writer is not None:
        writer.close()


_prepared: list[list[tuple[str, bytes]]] = []
"""Requests for each connection: made before the clock runs, as to make a bad one costs more than to refuse it."""


def prepare(arguments: argparse.Namespace, *, bad: bool) -> None:
    """Make the requests."""
    wanted = arguments.bad * SPARE if bad else arguments.rate * arguments.crowd
    each = range(math.ceil(wanted / CONNECTIONS))
    makers = [attacks(arguments.seed + place) if bad else crowd for place in range(CONNECTIONS)]
    _prepared[:] = [[make() for _ in each] for make in makers]


def attacked(port: int, rate: float) -> Found:
    """Send what was prepared, over all connections at once."""

    async def all_of_them() -> Found:
        found = Found()
        await asyncio.gather(*(attack(port, requests, found, CONNECTIONS / rate) for requests in _prepared))
        return found

    begun = time.perf_counter()
    found = uvloop.run(all_of_them())
    found.seconds = time.perf_counter() - begun
    return found


def judged(found: Found) -> Found:
    """Compare all answers with what is promised."""
    for one in found.answers:
        judge(*one, found)
    return found


def judge(name: str, raw: bytes, code: int, body: bytes, found: Found) -> None:
    """Compare an answer with what is promised."""
    found.codes[code] += 1
    if 200 <= code < 300:
        found.good_after_all += 1
        return
    found.refused[name] += 1
    content = body.partition(b"\r\n\r\n")[2]
    if not 400 <= code < 500:
        found.wrong.append(f"{name}: {code} for {raw!r}")
    elif leak := LEAKS.search(content):
        found.wrong.append(f"{name}: tells {leak[0]!r} in {content[:300]!r}")
    elif list(json.loads(content)) != ["error"]:
        found.wrong.append(f"{name}: {content[:300]!r} is no error of the protocol")


async def ask(port: int, asked: Asked, stop: asyncio.Event) -> None:
    """Ask good requests at a fixed rate, whatever the answers take."""
    raw, tasks = request(json.dumps(GOOD).encode()), set()
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
    loop, due = asyncio.get_running_loop(), time.perf_counter()

    async def one(begun: float) -> None:
        try:
            # As any client's pool does: what was idle for long may be closed from the other side.
            while free and begun - free[0][2] > 20:
                free.pop(0)[1].close()
            if free:
                reader, writer, _ = free.pop()
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            code, body, going = await asyncio.wait_for(answer(reader), 10)
            if code != 200 or b'"data":["UA"]' not in body:
                asked.failed.append(f"{code} {body[:200]!r}")
            asked.seconds.append(time.perf_counter() - begun)
            if going:
                free.append((reader, writer, time.perf_counter()))
            else:
                writer.close()
        except (OSError, EOFError, TimeoutError) as error:
            asked.failed.append(repr(error))

    while not stop.is_set():
        due += 1 / GOOD_RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = loop.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for _, writer, _ in free:
        writer.close()


async def beside(
    pool: ProcessPoolExecutor, runtime: int, port: int, arguments: argparse.Namespace, *, bad: bool
) -> tuple[Asked, Found, float]:
    """Ask good requests while others come; gives the runtime's processor time for all of them, too."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(pool, functools.partial(prepare, arguments, bad=bad))
    asked, stop = Asked(), asyncio.Event()
    spent = processor_seconds(runtime)
    asking = asyncio.create_task(ask(port, asked, stop))
    found = await loop.run_in_executor(pool, attacked, port, arguments.rate)
    stop.set()
    await asking
    return asked, found, processor_seconds(runtime) - spent


async def alone(port: int, seconds: float) -> Asked:
    """Ask good requests and nothing else."""
    asked, stop = Asked(), asyncio.Event()
    task = asyncio.create_task(ask(port, asked, stop))
    await asyncio.sleep(seconds)
    stop.set()
    await task
    return asked


def apart(runtime: int) -> str:
    """Give the runtime a core of its own, and this process and its children the others; tells which."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return "one core for all: the times are also those of waiting for it"
    os.sched_setaffinity(runtime, {first})
    os.sched_setaffinity(0, others)
    return f"the runtime on core {first}, all that asks on {', '.join(map(str, others))}"


def processor_seconds(pid: int) -> float:
    """Give the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """Give a process's proportional share of memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]  # the kernel writes it


async def fuzz(arguments: argparse.Namespace, folder: Path) -> int:
    """Start a runtime, attack it, and tell."""
    echo().write(folder)
    digest = "sha256:" + hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", digest]
    command = [sys.executable, "-m", "slipway_runtime", *options, "--host", "127.0.0.1", "--port", str(port)]
    runtime = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    print(apart(runtime.pid))
    try:
        await listening(port)
        await alone(port, 1)
        before_memory = megabytes(runtime.pid)
        before = await alone(port, arguments.alone)
        # Bad ones wait for the core that they share with good ones: what those took is the runtime's doing.
        with ProcessPoolExecutor(1, initializer=os.nice, initargs=(5,)) as pool:
            crowded, others, crowd_spent = await beside(pool, runtime.pid, port, arguments, bad=False)
            attended, found, spent = await beside(pool, runtime.pid, port, arguments, bad=True)
        after = await alone(port, arguments.alone)
        after_memory = megabytes(runtime.pid)
        faults = await faults_of(port)
        lives = runtime.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            runtime.send_signal(signal.SIGKILL)
        await runtime.wait()
    judged(found)
    print(f"{found.bad} bad requests refused in {found.seconds:.0f} s ({found.bad / found.seconds:,.0f} a second):")
    print("  " + ", ".join(f"{name} {count}" for name, count in found.refused.most_common()))
    print("  " + ", ".join(f"{code}: {count}" for code, count in sorted(found.codes.items())))
    print(f"  {found.good_after_all} turned out to be good")
    parts = {"before": before, "beside as many good ones": crowded, "beside bad ones": attended, "after": after}
    for name, part in parts.items():
        print(f"{name}: {part.shown()}")
    ratio = statistics.median(attended.seconds) / statistics.median(crowded.seconds)
    print(f"good requests beside bad ones took {ratio:.2f} times as long as beside as many good ones (medians)")
    good_cost = crowd_spent / (len(others.answers) + len(crowded.seconds))
    bad_cost = (spent - good_cost * len(attended.seconds)) / len(found.answers)
    print(
        f"processor time of the runtime: {1e6 * bad_cost:.0f} µs for a bad request ({found.connections} connections), "
        f"{1e6 * good_cost:.0f} µs for a good one ({others.connections} connections)"
    )
    print(f"memory {before_memory:.0f} MB before, {after_memory:.0f} MB after")
    failed = [*faults, *found.wrong, *(line for part in parts.values() for line in part.failed)]
    if found.bad < arguments.bad:
        failed.append(f"only {found.bad} bad requests were refused")
    if not lives:
        failed.append("the runtime ended")
    if after_memory > before_memory + 80:
        failed.append("the runtime kept the memory")
    for line in failed[:20]:
        print(f"FAILED {line}")
    return 1 if failed else 0


async def listening(port: int) -> None:
    """Wait for the runtime."""
    for _ in range(400):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise SystemExit("the runtime does not listen")


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bad", type=int, default=100_000, help="bad requests that must be refused")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2500, help="bad requests a second")
    parser.add_argument("--crowd", type=float, default=15, help="seconds of good requests at the rate of the bad ones")
    parser.add_argument("--alone", type=float, default=8, help="seconds of good requests alone, before and after")
    with tempfile.TemporaryDirectory(prefix="slipway-secret-place-") as name:
        return uvloop.run(fuzz(parser.parse_args(), Path(name)))


if __name__ == "__main__":
    sys.exit(main())
