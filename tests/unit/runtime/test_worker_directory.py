"""What the runtime keeps of a worker and leaves in the directory that they share, and strings that are missing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.unit.runtime.test_worker import FEEDS, GREETING, SIGNATURE, TWICE, framed
from tests.unit.runtime.wire import Answer

from slipway_runtime.engines.model_files import prove, read_examples
from slipway_runtime.engines.worker import WorkerEngine
from slipway_runtime.errors import EngineFailed, Refused, Unavailable
from slipway_runtime.grpc.codec import GrpcAnswerWriter
from slipway_runtime.protocol.answers import AnswerWriter
from slipway_runtime.protocol.rows import RowWriter


@contextlib.contextmanager
def answering(path, *answers):
    """A worker that has its answers ready."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        engine = WorkerEngine(path, SIGNATURE, seconds=5, start_seconds=5)
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.sendall(answer)
            yield engine
        engine._hang_up()
        engine._drop_file()


MISSING = b"\xff\xff\xff\xff"
GREETINGS = framed(
    {"outputs": [{**TWICE, "shape": [2], "size": 16}, {**GREETING, "shape": [2], "size": 9}]},
    b"\0" * 16 + MISSING + b"\x01\0\0\0x",
)


def test_a_missing_string_of_an_answer_is_null_where_there_is_one_and_else_empty(tmp_path):
    rows = {"a": np.ones((2, 1)), "name": np.array([["x"], ["y"]], dtype=object)}
    with answering(tmp_path / "w", GREETINGS, GREETINGS) as engine:
        twice, greeting = engine.run(rows)
        assert engine.run(rows)[1].tolist() == [None, "x"], "the connection is kept"

    assert greeting.tolist() == [None, "x"]
    outputs = (twice, greeting)
    objects = json.loads(RowWriter(SIGNATURE, "toy", "c0").write("r", outputs))["predictions"]
    assert [one["greeting"] for one in objects] == [None, "x"]
    writer = AnswerWriter(SIGNATURE, "toy", "c0")
    assert json.loads(writer.write("r", outputs, None, binary=False).body)["outputs"][1]["data"] == [None, "x"]
    raw = b"\0\0\0\0\x01\0\0\0x"
    assert writer.write("r", outputs, None, binary=True).body.endswith(raw)
    grpc = GrpcAnswerWriter(SIGNATURE, "toy", "c0")
    answers = [Answer.FromString(grpc.write("r", outputs, None, raw=raw)) for raw in (False, True)]
    assert list(answers[0].outputs[1].contents.bytes_contents) == [b"", b"x"]
    assert answers[1].raw_output_contents[1] == raw


@pytest.mark.parametrize(
    "greeting", [pytest.param(MISSING[:3], id="cut-off"), pytest.param(b"\xfe\xff\xff\xff", id="another-length")]
)
def test_what_only_looks_like_a_missing_string_is_none(tmp_path, greeting):
    told = {"outputs": [TWICE, {**GREETING, "size": len(greeting)}]}
    with answering(tmp_path / "w", framed(told, b"\0" * 8 + greeting)) as engine, pytest.raises(EngineFailed):
        engine.run(FEEDS)


def test_an_example_may_have_a_missing_answer(tmp_path):
    recorded = {"name": "greeting", "datatype": "BYTES", "shape": [2], "data": [None, "x"]}
    inputs = [
        {"name": "a", "datatype": "FP64", "shape": [2, 1], "data": [1.0, 1.0]},
        {"name": "name", "datatype": "BYTES", "shape": [2, 1], "data": [None, "x"]},
    ]
    examples = read_examples(json.dumps({"inputs": inputs, "outputs": [recorded]}).encode(), SIGNATURE)
    with answering(tmp_path / "w", GREETINGS) as engine:
        prove(engine, SIGNATURE, examples)


def test_files_of_processes_that_are_no_more_are_removed_and_no_others(tmp_path):
    """The directory is memory that outlives a container; a process that was forked has siblings that live."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f"runtime-{ended.pid}-abc"
    older = tmp_path / "runtime-xyz"
    strange = tmp_path / "runtime-²-abc"
    names = (f"runtime-{os.getppid()}-abc", f"runtime-{os.getpid()}-abc", "worker-1-1")
    others = [tmp_path / name for name in names]
    for file in (left, older, strange, *others):
        file.write_bytes(b"x")
    with answering(tmp_path / "w"):
        assert {one for one in tmp_path.iterdir() if one.is_file()} == set(others)


def test_the_first_process_of_a_container_removes_all_that_was_left(tmp_path, monkeypatch):
    """Its number, and those of its siblings to be, are those of the container before it."""
    for name in ("runtime-1-abc", f"runtime-{os.getpid()}-abc"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("slipway_runtime.engines.worker.os.getpid", lambda: 1)
    with answering(tmp_path / "w"):
        assert not list(tmp_path.glob("runtime-*"))


def test_a_forked_process_lets_go_of_its_parents_file_and_leaves_its_name(tmp_path):
    large = {"a": np.ones((10_000, 1)), "name": np.full((10_000, 1), "x", dtype=object)}
    refusal = framed({"error": "ValueError"})
    with answering(tmp_path / "w", refusal) as engine:
        with pytest.raises(Refused):
            engine.run(large)
        (name,) = tmp_path.glob("runtime-*")
        assert name.name.startswith(f"runtime-{os.getpid()}-")
        file = engine._file
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                engine.is_ready()
                with contextlib.suppress(OSError):
                    os.fstat(file)
                    os._exit(1)
                os._exit(0 if name.exists() else 2)
            os._exit(3)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_without_a_descriptor_a_worker_is_away_and_no_error(tmp_path):
    with answering(tmp_path / "w") as engine:
        engine._hang_up()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        taken = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            ready = engine.is_ready()
            with pytest.raises(Unavailable):
                engine.run(FEEDS)
        finally:
            for one in taken:
                os.close(one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (ready, engine.is_ready()) == (False, True)
