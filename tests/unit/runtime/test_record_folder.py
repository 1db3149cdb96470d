"""What records take of a folder that processes, pods and those after them share."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from slipway_runtime.observing.sinks import Folder


def held(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def write(folder, who, number, *, ago=0.0):
    """Write pieces as a process does; gives their names."""
    before = set(folder.iterdir())
    sink = Folder(folder, who=who, most=1000)
    sink._number = 100 * len(before)  # as if its name said another second
    for _ in range(number):
        sink.write("predictions", bytes(100))
    new = {file for file in folder.iterdir() if file.name not in {one.name for one in before}}
    for file in new:
        os.utime(file, (time.time() - ago,) * 2)
    return {file.name for file in new}


@pytest.mark.parametrize("who", ["pod-1", "pod-2"], ids=["the-same-container", "another-pod"])
def test_what_a_process_left_counts_against_the_next_one(tmp_path, who):
    """Otherwise each start would leave as much again for good."""
    old = write(tmp_path, "pod-1", 8, ago=4000)
    (tmp_path / "notes.arrows").write_bytes(bytes(5000))
    write(tmp_path, who, 9)

    assert held(tmp_path) == 1000 + 5000  # what is no piece is nobody's to remove
    assert len(old & {file.name for file in tmp_path.iterdir()}) == 1


def test_processes_that_write_now_keep_what_is_theirs(tmp_path):
    first = write(tmp_path, "pod-1", 10)
    second = write(tmp_path, "pod-2", 10)

    assert {file.name for file in tmp_path.iterdir()} == first | second


def test_what_was_left_is_found_later_too(tmp_path, monkeypatch):
    """A pod that takes another's place begins before that one has been silent for long."""
    old = write(tmp_path, "pod-1", 10)
    sink = Folder(tmp_path, who="pod-2", most=1000)
    sink.write("predictions", bytes(100))
    for name in old:
        os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    now = time.monotonic()
    monkeypatch.setattr("slipway_runtime.observing.sinks.time.monotonic", lambda: now + 4000)
    sink.write("predictions", bytes(100))

    assert held(tmp_path) == 1000


def test_half_a_piece_is_not_left(tmp_path):
    script = f"""
import resource
from pathlib import Path
from slipway_runtime.observing.sinks import Folder
sink = Folder(Path({str(tmp_path)!r}), who="pod", most=10_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    sink.write("predictions", bytes(3000))
except OSError as error:
    print(error.strerror)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "File too large"
    assert not list(tmp_path.iterdir())
