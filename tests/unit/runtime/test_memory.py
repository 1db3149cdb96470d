"""Memory goes back after a burst."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

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
