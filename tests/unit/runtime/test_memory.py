"""Memory goes back after a burst."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from tests.unit.runtime.test_process import process, ready

from lab.ports import free_port
from slipway_runtime.memory import Thrift

MB = 1 << 20


class Process:
    """Memory and time as a test wants them."""

    def __init__(self):
        self.held = 40 * MB
        self.free = 0
        self.now = 0.0
        self.times = []
        self.thrift = Thrift(lambda: self.held, self.give_back, lambda: self.now)

    def give_back(self):
        self.times.append(self.now)
        self.held -= self.free
        self.free = 0

    def wait(self, seconds):
        for _ in range(int(2 * seconds)):
            self.now += 0.5
            self.thrift.tick()


def test_what_a_burst_left_is_given_back():
    process = Process()
    process.held, process.free = 240 * MB, 200 * MB
    process.wait(4)

    assert process.held == 40 * MB
    assert len(process.times) == 1


def test_what_was_in_use_at_first_is_given_back_later():
    process = Process()
    process.held = 240 * MB
    process.wait(2)
    process.free = 200 * MB  # the burst ends
    process.wait(10)

    assert process.held == 40 * MB


def test_what_stays_in_use_is_asked_for_ever_less_often():
    process = Process()
    process.held = 240 * MB
    process.wait(600)

    assert 5 < len(process.times) < 20
    assert max(np.diff(process.times)) <= 60.5


def test_little_is_kept():
    process = Process()
    process.held += 20 * MB
    process.wait(100)

    assert process.times == []


PROCESS = """
from slipway_runtime.memory import _trim, resident
before = resident()
many = [bytes(1000) + b"%d" % number for number in range(100_000)]
full = resident()
del many
_trim()
print(full - before, resident() - before)
"""


def test_a_process_gives_back():
    said = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60, check=True)

    grown, kept = map(int, said.stdout.split())
    assert grown > 80 * MB
    assert kept < 40 * MB


HEAPS = """
import ctypes, sys, threading
from slipway_runtime.memory import share_one_heap
if sys.argv[1] == "one":
    share_one_heap()
threading.Thread(target=lambda: bytes(100_000)).start()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def test_threads_share_one_heap():
    """Each of their own would keep what a burst left: 10 MB and more."""

    def heaps(how: str) -> int:
        command = [sys.executable, "-c", HEAPS, how]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return said.stdout.count("<heap nr=")

    assert heaps("many") > 1
    assert heaps("one") == 1


ROW = {"carrier": "UA", "distance": 719, "month": 2}
FIRST, BURST = (json.dumps({"rows": [ROW] * count}).encode() for count in (1, 40_000))


def held(pid: int, of: str) -> int:
    """Give bytes of a process: its share of memory now, or the most that it had."""
    name, file = {"now": ("Pss", "smaps_rollup"), "most": ("VmHWM", "status")}[of]
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(found[1]) << 10  # type: ignore[index]  # the kernel writes it


async def test_a_server_gives_back_after_a_burst(parts, tmp_path):
    """What it held for the burst, but what `Thrift` says is not worth it, and a little that the heap has lost."""
    port = free_port()
    async with process(parts.echo().write(tmp_path), port=port) as one:
        await ready(port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            await client.post("/predict", content=FIRST)
            before = held(one.pid, "now")
            answers = await asyncio.gather(*(client.post("/predict", content=BURST) for _ in range(4)))
        most = held(one.pid, "most")
        end = time.monotonic() + 30
        while (after := held(one.pid, "now")) > before + 30 * MB and time.monotonic() < end:  # noqa: ASYNC110 -- the kernel tells nobody
            await asyncio.sleep(0.2)

    assert [answer.status_code for answer in answers] == [200] * 4
    assert most > before + 60 * MB, "a burst that needs little shows nothing"
    assert after <= before + 30 * MB, f"{before >> 20} MB before, {most >> 20} at most, {after >> 20} after"
