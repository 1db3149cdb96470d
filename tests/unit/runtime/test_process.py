"""The runtime as a pod runs it: a process with arguments, signals and an end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import orjson
import pytest
from tests.unit.runtime.wire import INFER as CALL
from tests.unit.runtime.wire import rows, wired_to

from lab.ports import free_port

INFER = orjson.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}]})
PATH = "/v2/models/toy/infer"


@contextlib.asynccontextmanager
async def process(options, *more: str, port: int):
    """Run the runtime; what is left of it ends with the block."""
    arguments = ["--model-dir", str(options.folder), "--name", options.name, "--version", options.version]
    arguments += ["--model-digest", options.digest, "--port", str(port), *more]
    one = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "slipway_runtime", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        await one.communicate()


async def ready(port: int, *, within: float = 15.0) -> float:
    """Wait until it is ready; gives the seconds that it took."""
    start = time.monotonic()
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < start + within:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{port}/v2/health/ready")).status_code == 200:
                    return time.monotonic() - start
            await asyncio.sleep(0.02)
    pytest.fail(f"not ready within {within} s")


async def ask_until(stop: asyncio.Event, url: str, pause: float) -> tuple[int, int]:
    """Ask over one kept-alive connection after the other; gives answers and how many said "close"."""
    answered = closed = 0
    async with httpx.AsyncClient(trust_env=False) as client:
        while not stop.is_set():
            answer = await client.post(url, content=INFER)
            assert answer.status_code == 200
            answered += 1
            closed += answer.headers.get("connection") == "close"
            await asyncio.sleep(pause)
    return answered, closed


async def not_listening(port: int, *, within: float = 10.0) -> None:
    """Wait until connections are refused."""
    async with asyncio.timeout(within):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def test_sigterm_fails_no_request_and_ends_idle_connections(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), "--drain-seconds", "4", port=port) as one:
        await ready(port)
        stop = asyncio.Event()
        url = f"http://127.0.0.1:{port}{PATH}"
        clients = [asyncio.create_task(ask_until(stop, url, pause)) for pause in (0, 0, 0.01, 0.05)]
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.4)

        one.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(idle.read(), 3.0) == b""
        async with httpx.AsyncClient(trust_env=False) as client:
            during = await client.post(url, content=INFER)
            readiness = await client.get(f"http://127.0.0.1:{port}/v2/health/ready")
        await asyncio.sleep(0.4)
        stop.set()  # the endpoints are gone: nobody comes any more
        counts = await asyncio.gather(*clients)

        assert (during.status_code, during.headers["connection"]) == (200, "close")
        assert readiness.status_code == 503
        assert all(answered > 2 and closed > 0 for answered, closed in counts), counts
        assert await asyncio.wait_for(one.wait(), 15) == 0
        idle_writer.close()


async def call_until(stop: asyncio.Event, port: int, together: int) -> tuple[int, int]:
    """Make some calls at a time, over one connection until it is told to go; gives answers and how often it was."""
    answered = told = 0
    while not stop.is_set():
        async with wired_to(port) as wire:
            while not stop.is_set() and not wire.goaways:
                with wire.at_once():
                    streams = [wire.call(CALL, rows((1, number))) for number in range(together)]
                await wire.until(lambda: all(wire.replies[one].ended for one in streams))  # noqa: B023 -- awaited here
                assert [wire.replies[one].code for one in streams] == [0] * together
                answered += together
            told += bool(wire.goaways)
    return answered, told


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_fails_no_call_and_tells_clients_to_go(parts, tmp_path, workers):
    port, grpc_port = free_port(), free_port()
    more = ("--grpc-port", str(grpc_port), "--drain-seconds", "4", "--workers", workers)
    async with process(parts.linear().write(tmp_path), *more, port=port) as one:
        await ready(port)
        stop = asyncio.Event()
        clients = [asyncio.create_task(call_until(stop, grpc_port, together)) for together in (1, 1, 8, 40)]
        await asyncio.sleep(0.4)

        async with wired_to(grpc_port) as begun:
            await begun.reply(CALL, rows((1, 0)))
            late = begun.call(CALL, rows((1, 0)), end=False)
            one.send_signal(signal.SIGTERM)
            await begun.until(lambda: len(begun.goaways) == 2)
            begun.writer.write(b"\0\0\0\0\1" + late.to_bytes(4, "big"))  # the end of its body
            await begun.until(lambda: begun.replies[late].ended and begun.closed)
        await asyncio.sleep(0.4)
        stop.set()  # the endpoints are gone: nobody comes any more
        counts = await asyncio.gather(*clients)

        assert begun.replies[late].code == 0
        assert [(last, code) for code, last in begun.goaways] == [(2**31 - 1, 0), (late, 0)]
        assert all(answered > 2 and told > 0 for answered, told in counts), counts
        assert await asyncio.wait_for(one.wait(), 15) == 0


async def test_what_has_begun_is_answered_after_it_stopped_listening(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), "--drain-seconds", "0.1", port=port) as one:
        await ready(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(INFER)}\r\n\r\n".encode()
        writer.write(head + INFER[:10])
        await writer.drain()
        one.send_signal(signal.SIGTERM)
        await not_listening(port)
        writer.write(INFER[10:])
        answer = await asyncio.wait_for(reader.read(), 5)

        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close\r\n" in answer
        writer.close()
        assert await asyncio.wait_for(one.wait(), 15) == 0


async def test_a_model_that_differs_from_its_examples_never_listens(parts, tmp_path):
    files = parts.linear()
    files.examples["outputs"][0]["data"] = [0, 0]
    async with process(files.write(tmp_path), port=free_port()) as one:
        _, log = await asyncio.wait_for(one.communicate(), 15)

    line = orjson.loads(log.splitlines()[-1])
    assert one.returncode == 1
    assert (line["level"], line["model"], line["content"]) == ("error", "toy", "c0ffee1234")
    assert "must not be served" in line["event"]


async def test_a_taken_port_is_said(parts, tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        async with process(parts.linear().write(tmp_path), "--host", "0.0.0.0", port=port) as one:  # noqa: S104 -- as a pod does
            _, log = await asyncio.wait_for(one.communicate(), 15)

    assert one.returncode == 1
    assert f"port {port} cannot be listened on" in orjson.loads(log.splitlines()[-1])["event"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"name": "../x"}, id="name"),
        pytest.param({"version": "a\nb"}, id="version"),
        pytest.param({"digest": "sha256:abc"}, id="digest"),
    ],
)
async def test_names_that_could_not_be_echoed_are_refused(parts, tmp_path, change):
    options = parts.linear().write(tmp_path)
    values = {"folder": options.folder, "name": options.name, "version": options.version, "digest": options.digest}
    async with process(type("Options", (), values | change), port=free_port()) as one:
        await asyncio.wait_for(one.communicate(), 15)

    assert one.returncode == 2


async def test_onnx_runtime_tells_nobody(tmp_path):
    """Its telemetry would begin, when it is loaded, with a database below the cache directory."""
    quiet = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}
    environment = quiet | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for module, expected in (("onnxruntime", True), ("slipway_runtime.engines.onnx", False)):
        one = await asyncio.create_subprocess_exec(sys.executable, "-c", f"import {module}", env=environment)

        assert await asyncio.wait_for(one.wait(), 30) == 0
        assert any(tmp_path.iterdir()) is expected, f"import {module}"
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)


async def test_memory_stays_small(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), port=port) as one:
        await ready(port)
        with open(f"/proc/{one.pid}/smaps_rollup") as rollup:  # noqa: ASYNC230, PTH123 -- a file of the kernel's
            kilobytes = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        one.send_signal(signal.SIGINT)
        one.send_signal(signal.SIGINT)

    assert kilobytes < 90 * 1024, f"{kilobytes} kB in process {os.getpid()}'s child"


def workers_of(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def until(condition, within: float = 10.0):
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to be"
        await asyncio.sleep(0.02)
    return value


async def answered_by_pod(port: int) -> int:
    """Ask a worker for the pod's metrics."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    found = re.search(r'slipway_requests_total\{[^}]*endpoint="infer",code="200"\} (\d+)', text)
    return int(found[1]) if found else 0


async def comes_to(port: int, answered: int) -> None:
    """Wait until whichever worker is asked gives the pod's number: each tells its own twice a second."""
    end = time.monotonic() + 10
    while (found := {await answered_by_pod(port) for _ in range(8)}) != {answered}:
        assert max(found) <= answered, found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)


async def test_workers_share_a_port_and_their_numbers_and_the_dead_are_replaced(parts, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}{PATH}"
    async with process(parts.linear().write(tmp_path), "--workers", "3", "--drain-seconds", "0.3", port=port) as one:
        await ready(port)
        before = await until(lambda: len(found := workers_of(one.pid)) == 3 and found)
        for _ in range(30):  # each over a connection of its own: the kernel divides them
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.post(url, content=INFER)).status_code == 200
        await comes_to(port, 30)

        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(found := workers_of(one.pid)) == 3 and victim not in found)
        await ready(port)
        for _ in range(30):
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.post(url, content=INFER)).status_code == 200
        await comes_to(port, 60)  # counters never go back

        one.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.wait(), 15) == 0


async def test_workers_drain_together_and_fail_no_request(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), "--workers", "2", "--drain-seconds", "4", port=port) as one:
        await ready(port)
        stop = asyncio.Event()
        clients = [asyncio.create_task(ask_until(stop, f"http://127.0.0.1:{port}{PATH}", 0.01)) for _ in range(6)]
        await asyncio.sleep(0.4)
        one.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.8)
        stop.set()
        counts = await asyncio.gather(*clients)

        assert all(answered > 2 and closed > 0 for answered, closed in counts), counts
        assert await asyncio.wait_for(one.wait(), 15) == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_workers_end_with_the_process_that_looks_after_them(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), "--workers", "2", "--drain-seconds", "0", port=port) as one:
        await ready(port)
        workers = workers_of(one.pid)
        one.kill()
        await until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


async def test_a_port_that_another_program_shares_is_not_joined(parts, tmp_path):
    with socket.create_server(("", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        more = ("--host", "0.0.0.0", "--workers", "2")  # noqa: S104 -- as a pod does
        async with process(parts.linear().write(tmp_path), *more, port=port) as one:
            _, log = await asyncio.wait_for(one.communicate(), 15)

    assert one.returncode == 1
    assert f"port {port} cannot be listened on" in orjson.loads(log.splitlines()[-1])["event"]


async def test_limits_are_arguments_and_probes_are_let_in_beyond_them(parts, tmp_path):
    port, probe_port = free_port(), free_port()
    limits = ("--connections", "2", "--connection-seconds", "1", "--queue-requests", "5")
    probes = ("--probe-port", str(probe_port), "--drain-seconds", "0.1")
    async with process(parts.linear().write(tmp_path), *limits, *probes, port=port):
        await ready(probe_port)
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{probe_port}/v2/health/live")).status_code == 200
            assert (await client.get(f"http://127.0.0.1:{port}/v2/health/live")).status_code == 503
        for _, writer in crowd:
            writer.close()
            await writer.wait_closed()
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{port}{PATH}"
            async with asyncio.timeout(10):  # until it has seen that the crowd has gone
                while (answer := await client.post(url, content=INFER)).status_code == 503:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert (answer.status_code, "connection" in answer.headers) == (200, False)
            await asyncio.sleep(1.6)
            assert (await client.post(url, content=INFER)).headers["connection"] == "close"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_keys_that_cannot_be_are_said_once(parts, tmp_path, workers):
    keys = tmp_path / "keys"
    keys.write_text("short\n")
    options = parts.linear().write(tmp_path / "model")
    async with process(options, "--workers", workers, "--api-keys", str(keys), port=free_port()) as one:
        _, log = await asyncio.wait_for(one.communicate(), 15)

    (said,) = [line for line in map(orjson.loads, log.splitlines()) if line["level"] == "error"]
    assert one.returncode == 1
    assert said["event"] == f"key 1 of {keys} must be 16 to 512 visible characters of ASCII"
