"""A model that is not ONNX: the runtime, the worker's two processes and a project's code, all of them real."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import joblib  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # as above

import slipway_operator.exporter
from lab.ports import free_port
from slipway_runtime.engines.worker import WorkerEngine
from slipway_runtime.errors import CannotServe, EngineFailed, TooLate
from slipway_runtime.protocol.signature import read_signature

BARE = str(Path(sys.executable).resolve())
"""The interpreter below this environment."""

PROJECT = """
import ctypes, os, sys, time

kept = []

def predict(rows):
    first = rows["a"].tolist()
    if 13 in first:
        os._exit(3)
    if 14 in first:
        ctypes.PyDLL(None).sleep(60)  # with the interpreter's lock: no Python code can help
    if 15 in first:
        raise ValueError("a secret of the inside")
    if 20 in first:
        sys.exit("a bad row")
    if 16 in first:
        kept.append(bytearray(400 << 20))
    if 17 in first:
        os.kill(os.getpid(), 9)  # as the kernel does where memory runs out
    if 18 in first:
        return {"twice": [1.0], "greeting": ["one row only"]}
    if 19 in first:
        return {"twice": [2 * value for value in first]}  # and no greeting
    names = [name or "nobody" for name in rows["name"]]
    return {"twice": [2 * value for value in first], "greeting": ["hello " + name for name in names]}
"""

FUNCTION = {
    "inputs": [
        {"name": "a", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "name", "datatype": "BYTES", "shape": [-1, 1]},
    ],
    "outputs": [
        {"name": "twice", "datatype": "FP64", "shape": [-1]},
        {"name": "greeting", "datatype": "BYTES", "shape": [-1]},
    ],
    "columns": ["a", "name"],
    "task": "regression",
}


class Pod:
    """The two containers of a pod, and what they share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"
        self.shared = root / "shared"
        for folder in (self.model, self.shared, root / "project"):
            folder.mkdir()
        shutil.copytree(Path(slipway_operator.exporter.__file__).parent, root / "exporter")
        (root / "project" / "project_code.py").write_text(PROJECT)
        self.port = free_port()
        self.processes: list[asyncio.subprocess.Process] = []

    def write(self, signature, examples, model=b"any") -> None:
        (self.model / "signature.json").write_text(json.dumps(signature))
        (self.model / "examples.json").write_text(json.dumps(examples))
        (self.model / "model.joblib").write_bytes(model)

    async def worker(self, *, program=sys.executable, **settings):
        own = {
            "socket": str(self.shared / "worker.sock"),
            "model": str(self.model / "model.joblib"),
            "signature": str(self.model / "signature.json"),
            **settings,
        }
        environment = {**os.environ, "SLIPWAY_WORKER": json.dumps(own), "PYTHONPATH": str(self.root / "project")}
        command = [program, str(self.root / "exporter"), "serve"]
        return await self._run(command, environment)

    async def runtime(self, *more: str):
        digest = "sha256:" + hashlib.sha256((self.model / "model.joblib").read_bytes()).hexdigest()
        command = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(self.model), "--name", "toy"]
        command += ["--version", "c0", "--model-digest", digest, "--port", str(self.port), "--drain-seconds", "0"]
        command += ["--worker-socket", str(self.shared / "worker.sock"), *more]
        return await self._run(command, dict(os.environ))

    async def _run(self, command, environment):
        with (self.root / "log").open("ab") as log:
            one = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log)
        self.processes.append(one)
        return one

    async def ask(self, *values, path="/predict", seconds=20.0):
        rows = [{"a": value, "name": name} for value, name in values]
        async with httpx.AsyncClient(trust_env=False, timeout=seconds) as client:
            return await client.post(f"http://127.0.0.1:{self.port}{path}", json={"rows": rows})

    async def status(self, path="/v2/health/ready") -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get(f"http://127.0.0.1:{self.port}{path}")).status_code
        return 0

    async def until(self, status: int, within: float = 90.0) -> None:
        end = time.monotonic() + within
        while await self.status() != status:
            assert time.monotonic() < end, (self.root / "log").read_text()[-2000:]
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for one in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                one.terminate()
        for one in self.processes:
            await asyncio.wait_for(one.wait(), 30)


@pytest.fixture
async def pod(tmp_path):
    one = Pod(tmp_path)
    yield one
    await one.close()


EXAMPLES = {
    "inputs": [
        {"name": "a", "datatype": "FP64", "shape": [1, 1], "data": [1.5]},
        {"name": "name", "datatype": "BYTES", "shape": [1, 1], "data": ["Ada"]},
    ],
    "outputs": [{"name": "twice", "datatype": "FP64", "shape": [1], "data": [3.0]}],
    "tolerance": 0.0,
}


async def test_a_fitted_model_answers_by_its_methods(pod, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)).astype("float32")
    fitted = LogisticRegression().fit(rows, rows[:, 0] > 0)
    joblib.dump(fitted, tmp_path / "m.joblib")
    signature = {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "label", "datatype": "BOOL", "shape": [-1], "method": "predict"},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2], "method": "predict_proba"},
        ],
        "columns": ["x", "y", "z"],
        "classes": [False, True],
        "task": "classification",
    }
    tensor = {"name": "input", "datatype": "FP32", "shape": [2, 3], "data": rows[:2].ravel().tolist()}
    recorded = {"name": "label", "datatype": "BOOL", "shape": [2], "data": fitted.predict(rows[:2]).tolist()}
    pod.write(signature, {"inputs": [tensor], "outputs": [recorded]}, (tmp_path / "m.joblib").read_bytes())
    await pod.worker()
    await pod.runtime()
    await pod.until(200)

    many = rng.normal(size=(20_000, 3)).astype("float32")  # more than goes through the socket, both ways
    for some in (rows, many, rows):
        tensor = {"name": "input", "datatype": "FP32", "shape": list(some.shape), "data": some.ravel().tolist()}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(f"http://127.0.0.1:{pod.port}/v2/models/toy/infer", json={"inputs": [tensor]})
        label, chances = answer.json()["outputs"]
        assert label["data"] == fitted.predict(some).tolist()
        np.testing.assert_allclose(np.reshape(chances["data"], (-1, 2)), fitted.predict_proba(some), atol=1e-12)


async def test_a_projects_function_and_everything_that_it_does_wrong(pod):
    pod.write(FUNCTION, EXAMPLES)
    await pod.runtime("--worker-seconds", "2")
    await asyncio.sleep(0.5)
    assert await pod.status() == 0  # a slow start: it does not listen before the worker does
    await pod.worker(function="project_code:predict")
    await pod.until(200)

    good = await pod.ask((2, "Grace"), (None, None))
    assert good.json()["predictions"] == [
        {"twice": 4.0, "greeting": "hello Grace"},
        {"twice": None, "greeting": "hello nobody"},
    ]

    raised = await pod.ask((15, "x"))
    assert (raised.status_code, "secret" in raised.text) == (422, False)
    assert (await pod.ask((1, "x"))).status_code == 200

    began = time.monotonic()
    assert (await pod.ask((20, "x"))).status_code == 422  # not the 504 of one who never answers
    assert time.monotonic() - began < 1.5
    assert (await pod.ask((1, "x"))).status_code == 200

    for value, status in ((18, 500), (19, 422)):
        wrong = await pod.ask((value, "x"), (1, "y"))
        assert (wrong.status_code, "Traceback" in wrong.text) == (status, False)
        await pod.until(200)
        assert (await pod.ask((1, "x"))).status_code == 200

    for value in (13, 17):
        crashed = await pod.ask((value, "x"))
        assert (crashed.status_code, crashed.headers["retry-after"]) == (503, "1")
        await pod.until(200)  # it may have been short: the worker is begun again at once
        assert (await pod.ask((1, "x"))).status_code == 200

    began = time.monotonic()
    hung, health = await asyncio.gather(pod.ask((14, "x")), pod.status("/v2/health/live"))
    assert (hung.status_code, health) == (504, 200)
    assert time.monotonic() - began < 20
    await pod.until(200)
    assert (await pod.ask((1, "x"))).status_code == 200


async def test_without_its_worker_it_is_not_ready_and_says_so(pod):
    pod.write(FUNCTION, EXAMPLES)
    worker = await pod.worker(function="project_code:predict")
    await pod.runtime()
    await pod.until(200)

    worker.terminate()
    await worker.wait()
    await pod.until(503)
    gone = await pod.ask((1, "x"))
    assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
    await pod.worker(function="project_code:predict")
    await pod.until(200)
    assert (await pod.ask((1, "x"))).status_code == 200


async def test_a_worker_that_has_grown_is_replaced_between_requests(pod):
    pod.write(FUNCTION, EXAMPLES)
    await pod.worker(function="project_code:predict", memoryBytes=350 << 20)
    await pod.runtime("--workers", "2")
    await pod.until(200)

    assert (await pod.ask((16, "x"))).json()["predictions"][0]["twice"] == 32.0
    await pod.until(200)
    end = time.monotonic() + 20
    while (await pod.ask((1, "x"))).status_code != 200:  # 503 until there is another
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


SIGNATURE = read_signature(json.dumps(FUNCTION).encode())
FEEDS = {"a": np.ones((1, 1)), "name": np.array([["x"]], dtype=object)}
TWICE = {"name": "twice", "datatype": "FP64", "shape": [1], "size": 8}
GREETING = {"name": "greeting", "datatype": "BYTES", "shape": [1], "size": 5}
BODY = b"\0" * 8 + b"\x01\0\0\0x"


def framed(header, body=b"", magic=b"SLW1"):
    raw = header if isinstance(header, bytes) else json.dumps({"bytes": len(body), **header}).encode()
    return magic + len(raw).to_bytes(4, "little") + raw + body


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad", id="another-protocol"),
        pytest.param(framed(b"[" * 10_000), id="no-json"),
        pytest.param(framed(b"[]"), id="no-object"),
        pytest.param(b"SLW1\xff\xff\xff\xff", id="endless-header"),
        pytest.param(framed({"outputs": [TWICE], "bytes": 1 << 40}), id="endless-body"),
        pytest.param(framed({"outputs": [TWICE], "bytes": -1}), id="negative-body"),
        pytest.param(framed({"outputs": [TWICE]}, b"\0" * 8), id="output-missing"),
        pytest.param(framed({"outputs": [{**TWICE, "size": 1 << 30}, GREETING]}, BODY), id="size-beyond"),
        pytest.param(framed({"outputs": [{**TWICE, "size": -8}, GREETING]}, BODY), id="size-negative"),
        pytest.param(framed({"outputs": [{**TWICE, "shape": [1 << 40]}, GREETING]}, BODY), id="shape"),
        pytest.param(framed({"outputs": [{**TWICE, "datatype": "FP32"}, GREETING]}, BODY), id="datatype"),
        pytest.param(framed({"outputs": [{**TWICE, "name": "other"}, GREETING]}, BODY), id="name"),
        pytest.param(framed({"outputs": 7}), id="outputs"),
        pytest.param(framed({"outputs": [{**TWICE, "shape": [0], "size": 0}, GREETING]}, BODY[8:]), id="rows"),
        pytest.param(framed({"outputs": [{**TWICE, "shape": [], "size": 8}, GREETING]}, BODY), id="no-rows"),
        pytest.param(framed({"outputs": [TWICE, GREETING], "bytes": 13, "file": "short"}), id="file-cut-off"),
        pytest.param(framed({"outputs": [TWICE, GREETING], "bytes": 13, "file": "pipe"}), id="file-is-a-pipe"),
        pytest.param(framed({"outputs": [TWICE, GREETING], "bytes": 13, "file": "../secret"}), id="file-outside"),
        pytest.param(framed({"outputs": [TWICE, GREETING], "bytes": 13, "file": "link"}), id="file-is-a-link"),
        pytest.param(framed({"outputs": [TWICE, GREETING], "bytes": 13, "file": "a\0b"}), id="file-is-no-name"),
    ],
)
def test_a_hostile_worker_gets_nowhere(tmp_path, answer):
    """Whatever it sends, it is an error of the engine, at once; and the runtime reads no file but the worker's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "secret").write_bytes(BODY)
    (shared / "short").write_bytes(BODY[:5])
    os.mkfifo(shared / "pipe")
    (shared / "link").symlink_to(tmp_path / "secret")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shared / "w"))
        listener.listen()
        engine = WorkerEngine(shared / "w", SIGNATURE, seconds=5, start_seconds=5)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
            with pytest.raises((EngineFailed, Exception)) as caught:
                engine.run(FEEDS)
    assert type(caught.value).__module__ == "slipway_runtime.errors"
    assert engine._connection is None


def test_to_ask_whether_a_worker_is_there_keeps_its_connection(tmp_path):
    """A probe comes every few seconds; only a worker that closed is connected to again."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "w"))
        listener.listen()
        listener.setblocking(False)
        engine = WorkerEngine(tmp_path / "w", SIGNATURE, seconds=5, start_seconds=5)
        first, _ = listener.accept()
        assert [engine.is_ready() for _ in range(3)] == [True] * 3
        with pytest.raises(BlockingIOError):
            listener.accept()

        first.close()

        assert engine.is_ready()
        second, _ = listener.accept()
        second.close()
    assert not engine.is_ready()


@pytest.mark.parametrize("begun", [b"", b"SL", framed({"outputs": [TWICE, GREETING]}, BODY)[:-3]])
def test_a_worker_that_stops_in_the_middle_is_given_up(tmp_path, begun):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "w"))
        listener.listen()
        engine = WorkerEngine(tmp_path / "w", SIGNATURE, seconds=0.3, start_seconds=5)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(begun)
            began = time.monotonic()
            with pytest.raises(TooLate, match=r"did not answer within 0\.3 s"):
                engine.run(FEEDS)
    assert time.monotonic() - began < 2
    assert not engine.is_ready(), "what hangs is not asked again at once"


async def test_a_function_without_pandas_gets_lists_and_may_give_one_output(pod):
    """The project's environment has neither pandas nor NumPy, and its function knows one output alone."""
    signature = {**FUNCTION, "outputs": [{"name": "length", "datatype": "INT64", "shape": [-1]}]}
    examples = {**EXAMPLES, "outputs": [{"name": "length", "datatype": "INT64", "shape": [1], "data": [3]}]}
    pod.write(signature, examples)
    (pod.root / "project" / "plain.py").write_text(
        "import sys\n"
        "def predict(rows):\n"
        "    assert type(rows) is dict and 'pandas' not in sys.modules, type(rows)\n"
        "    return [len(name or '') + (a is None) for name, a in zip(rows['name'], rows['a'])]\n"
    )
    # The interpreter below this environment, which has no packages.
    await pod.worker(function="plain:predict", program=BARE)
    await pod.runtime()
    await pod.until(200)

    answer = await pod.ask((1.0, "Ada"), (None, "É"), (2.0, None))

    assert [row["length"] for row in answer.json()["predictions"]] == [3, 2, 0]


async def test_a_worker_that_cannot_load_is_told_in_its_log_and_costs_no_wrong_answer(pod):
    pod.write(FUNCTION, EXAMPLES)
    await pod.worker(function="project_code:nothing_of_that_name")
    runtime = await pod.runtime("--worker-start-seconds", "2")

    assert await asyncio.wait_for(runtime.wait(), 30) == 1
    said = "project_code:nothing_of_that_name is no function; name one as module:function"
    async with asyncio.timeout(30):
        while said not in (log := (pod.root / "log").read_text()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    assert "the worker did not begin within 2 s; look at the log of its container" in log


async def test_more_than_a_socket_takes_goes_both_ways_as_a_file_that_is_left_to_nobody(pod):
    """Strings of every length, 3 MB of them; the files of a worker that ended are gone with the next one."""
    pod.write(FUNCTION, EXAMPLES)
    await pod.worker(function="project_code:predict")
    await pod.runtime()
    await pod.until(200)
    names = [None if number % 7 == 0 else "é" * (number % 300) for number in range(10_000)]

    for _ in range(2):
        answer = await pod.ask(*((float(30 + number), name) for number, name in enumerate(names)))
        greetings = [row["greeting"] for row in answer.json()["predictions"]]
        assert greetings == ["hello " + (name or "nobody") for name in names]
    before = {path.name for path in pod.shared.glob("worker-*")}
    assert (await pod.ask((13.0, "x"))).status_code == 503
    await pod.until(200)

    assert len(before) == 1
    assert not before & {path.name for path in pod.shared.glob("worker-*")}


@pytest.fixture
def narrow(pod):
    """The shared directory as in a pod, where it is memory with a limit: 2 MiB of it."""
    if os.geteuid():
        pytest.skip("only root may mount a directory with a limit")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(pod.shared)], check=True)
    yield pod
    subprocess.run(["umount", "--lazy", str(pod.shared)], check=True)


async def test_what_has_no_room_in_the_shared_memory_is_refused_and_leaves_none_of_it_taken(narrow):
    """413 for the rows, or for their answers; the worker lives on, and the memory is there for the next request."""
    narrow.write(FUNCTION, EXAMPLES)
    await narrow.worker(function="project_code:predict")
    await narrow.runtime()
    await narrow.until(200)
    fits, answer_does_not, does_not = 400_000, 1_100_000, 2_200_000

    async def ask(size: int) -> httpx.Response:
        return await narrow.ask(*((float(30 + number), "é" * (size // 200)) for number in range(100)))

    for _ in range(2):
        rows, answers = await ask(does_not), await ask(answer_does_not)
        assert rows.status_code == answers.status_code == 413
        assert "so many rows have no room beside the model's worker" in rows.text
        assert "the answer to so many rows has no room" in answers.text
        assert (await ask(fits)).json()["predictions"][0]["greeting"].startswith("hello é")
    assert (await narrow.ask((1.0, "Ada"))).json()["predictions"] == [{"twice": 2.0, "greeting": "hello Ada"}]

    assert await narrow.status() == 200
    room = os.statvfs(narrow.shared)
    assert (room.f_blocks - room.f_bfree) * room.f_bsize < 1 << 20
    assert "another begins" not in (narrow.root / "log").read_text()


def test_a_worker_that_never_begins_is_said(tmp_path):
    with pytest.raises(CannotServe, match=r"did not begin within 0\.1 s"):
        WorkerEngine(tmp_path / "nothing", SIGNATURE, seconds=1, start_seconds=0.1)
