import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.processes import Records, Running, marked, observe, parse_stat, rotate, stop

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)",
)


@pytest.fixture
def records(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    made = Records(folder, str(tmp_path))
    yield made
    stop([each for path in folder.glob("*.json") if (each := made.find(path.stem))], patience=1)


def start(records: Records, tmp_path, name: str = "etcd", arguments: tuple[str, ...] = SLEEP) -> Running:
    return records.start(name, arguments, log=tmp_path / "log", environment=dict(os.environ), cwd=tmp_path)


def until(held) -> None:
    deadline = time.monotonic() + 30
    while not held():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def settled(records: Records, name: str = "etcd", arguments: tuple[str, ...] = SLEEP) -> Running:
    """The process once it has become the program: until then it is a copy of this one."""
    until(lambda: (found := records.find(name)) is not None and found.arguments == arguments)
    found = records.find(name)
    assert found is not None
    return found


def test_a_started_process_is_found_again(records, tmp_path):
    started = start(records, tmp_path)

    assert settled(records).pid == started.pid


def test_a_start_that_was_killed_before_its_record_is_found_by_its_mark(records, tmp_path):
    started = start(records, tmp_path)
    settled(records)
    (records.folder / "etcd.json").unlink()

    found = records.find("etcd")

    assert found is not None
    assert found.pid == started.pid
    assert (records.folder / "etcd.json").exists()


@pytest.mark.parametrize("broken", ["", "{", '{"pid": 1}', '["x"]', '{"pid": "x", "started": 1, "arguments": []}'])
def test_a_record_that_was_cut_short_is_no_record(records, broken):
    (records.folder / "etcd.json").write_text(broken)

    assert records.find("etcd") is None


@pytest.mark.parametrize("changed", [{"started": 1}, {"arguments": ["etcd"]}], ids=["start-time", "command"])
def test_another_process_under_the_recorded_id_is_not_ours(records, changed):
    stranger = subprocess.Popen(SLEEP)
    try:
        until(lambda: (seen := observe(stranger.pid)) is not None and seen.arguments == SLEEP)
        seen = observe(stranger.pid)
        assert seen is not None
        record = {"pid": seen.pid, "started": seen.started, "arguments": list(seen.arguments)} | changed
        (records.folder / "etcd.json").write_text(json.dumps(record))

        assert records.find("etcd") is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stopping_something_that_has_become_another_process_ends_nothing():
    stranger = subprocess.Popen(SLEEP)
    try:
        until(lambda: observe(stranger.pid) is not None)

        stop([Running(stranger.pid, 1, SLEEP)], patience=0.2)

        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_two_clusters_of_one_machine_do_not_see_each_other(records, tmp_path):
    start(records, tmp_path)
    settled(records)
    other = tmp_path / "other"
    other.mkdir()

    assert Records(other, "/elsewhere").find("etcd") is None


def test_what_a_component_started_is_not_taken_for_it(records, tmp_path):
    parent = (sys.executable, "-c", f"import subprocess; subprocess.run({list(SLEEP)!r})")
    started = start(records, tmp_path, arguments=parent)
    until(lambda: len(children(started.pid)) == 1)
    child = children(started.pid)[0]
    try:
        assert [each.pid for each in marked(f"{tmp_path}:etcd")] == [started.pid]
    finally:
        os.kill(child, 9)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_does_not_end_politely_is_ended(records, tmp_path):
    start(records, tmp_path, arguments=STUBBORN)
    until(lambda: "on" in (tmp_path / "log").read_text())
    running = settled(records, arguments=STUBBORN)

    stop([running], patience=0.3)

    assert observe(running.pid) is None
    assert records.find("etcd") is None


def test_a_process_that_only_waits_to_be_reaped_is_gone():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    try:
        until(lambda: observe(ended.pid) is None)
    finally:
        ended.wait()


def test_a_name_with_parentheses_does_not_shift_the_fields():
    assert parse_stat("7 (a ) R 1) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0") == ("S", 4242)


def test_a_large_log_becomes_the_old_one(tmp_path):
    log = tmp_path / "etcd.log"
    log.write_bytes(b"x" * 100)

    rotate(log, limit=99)

    assert not log.exists()
    assert (tmp_path / "etcd.log.1").stat().st_size == 100
