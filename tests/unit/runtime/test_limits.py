"""Bounds on what may be asked at once, each beside requests that are within them."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from time import thread_time

import httpx
import orjson
import pytest

from slipway_runtime.errors import TooLarge
from slipway_runtime.http.limits import HttpLimits
from slipway_runtime.observing.watching import Watch

TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}
INFER = orjson.dumps({"inputs": [TENSOR]})
PATH = "/v2/models/toy/infer"


def client_of(served):
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False)


@pytest.mark.parametrize("levels", [1025, 100_000])
@pytest.mark.parametrize("path", [PATH, "/predict", "/feedback"])
async def test_nesting(start, levels, path):
    served = await start()
    async with client_of(served) as client:
        for body in (b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels):
            answer = await client.post(path, content=body)
            assert answer.status_code in ((404,) if path == "/feedback" else (400,))
        assert (await client.post(PATH, content=INFER)).status_code == 200


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param([TENSOR] * 2, "given twice", id="twice"),
        pytest.param([TENSOR] + [TENSOR | {"name": f"x{number}"} for number in range(5000)], "there is no", id="many"),
        pytest.param([TENSOR | {"shape": [1] * 9}], "1 to 8 sizes", id="dimensions"),
        pytest.param([TENSOR | {"shape": [1 << 40, 1 << 40]}], "needs", id="huge"),
        pytest.param([TENSOR | {"shape": [1 << 70]}], "whole numbers", id="no-integer"),
    ],
)
async def test_tensors(start, inputs, message):
    served = await start()
    async with client_of(served) as client:
        answer = await client.post(PATH, content=json.dumps({"inputs": inputs}))

    assert answer.status_code == 400
    assert message in answer.json()["error"]


async def test_bodies_that_arrive_at_once(start):
    served = await start(limits=HttpLimits(buffered_bytes=1000))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(head + b" " * 800)
    await writer.drain()
    await asyncio.sleep(0.05)

    refused = await served.send(head + b" " * 800)
    small = await served.send(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(INFER)}\r\n\r\n".encode() + INFER
    )
    writer.write(b" " * (100 - len(INFER)) + INFER)

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in refused
    assert small.startswith(b"HTTP/1.1 200 ")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_what_fails_in_a_sweep_keeps_nothing_else_of_it_from_being_done(start, monkeypatch):
    """A descriptor that is lacking for a moment, or a bug, must not end time-outs and readiness for good."""

    class Broken:
        def sweep(self, _now):
            raise OSError("no descriptor")

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Watch, "tick", fail)
    served = await start(limits=HttpLimits(header_seconds=0.2))
    served.server._shared.connections.add(broken := Broken())
    for _ in range(2):
        answer = await asyncio.wait_for(served.send(b"GET /v2 HTTP/1.1\r\n", eof=False), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
    served.server._shared.connections.discard(broken)


async def test_a_slow_header_line_by_line_is_let_go(start):
    """Slow-loris: each line in time, the header never."""
    served = await start(limits=HttpLimits(header_seconds=1.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")

    async def drip():
        for number in range(100):
            writer.write(f"X-{number}: y\r\n".encode())
            await asyncio.sleep(0.1)

    task = asyncio.create_task(drip())
    answer = await asyncio.wait_for(reader.readline(), 5)
    task.cancel()

    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_slow_body_byte_by_byte_is_let_go(start):
    served = await start(limits=HttpLimits(body_seconds=1.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

    async def drip():
        for _ in range(100):
            writer.write(b"1\r\n \r\n")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(drip())
    answer = await asyncio.wait_for(reader.readline(), 5)
    task.cancel()

    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"a,b\n" + b",\n" * 2_000_000, "text/csv", id="csv"),
        pytest.param(b"a,b\n" + b"\n" * 4_000_000, "text/csv", id="empty-lines"),
        pytest.param(b'{"rows": [' + b'{"a":1,"b":0},' * 70_000 + b"1]}", "application/json", id="json"),
    ],
)
async def test_rows_beyond_the_limit_are_not_kept(start, body, kind):
    """They are refused as they are read: a body of 4 MB took 400 MB and five seconds of the loop."""
    served = await start()
    reader = served.server._models[0].rows
    tracemalloc.start()
    began = thread_time()
    with pytest.raises(TooLarge, match=r"there are (70001 rows|more than 65536 lines); send at most"):
        (reader.read_table if kind == "text/csv" else reader.read)(body)
    _, most = tracemalloc.get_traced_memory()
    took = thread_time() - began
    tracemalloc.stop()

    assert most < 80e6
    assert took < 3.0  # most of it tracemalloc's
    async with client_of(served) as client:
        answer = await client.post("/predict", content=body, headers={"content-type": kind})
        assert (answer.status_code, (await client.post(PATH, content=INFER)).status_code) == (413, 200)
