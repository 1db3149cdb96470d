"""A large request is read, and a large answer written, while small requests are answered; over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from tests.unit.runtime.raw import PATH, get, post, statuses, until
from tests.unit.runtime.wire import INFER, Answer, Wire, metric, rows, wired

from slipway_runtime import apart
from slipway_runtime.grpc.codec import GrpcAnswerWriter
from slipway_runtime.protocol.alignment import Aligner
from slipway_runtime.protocol.rows import RowReader, RowWriter

ROWS = 20_000
TABLE = b"a,b\n" + b"1.25,0.5\n" * ROWS
OBJECTS = orjson.dumps({"rows": [{"a": 1.25, "b": 0.5}] * 8000})
COLUMNS = orjson.dumps(
    {
        "inputs": [
            {"name": name, "datatype": "FP64", "shape": [ROWS, 1], "data": [[0.125]] * ROWS} for name in ("a", "b")
        ]
    }
)
CSV = "Content-Type: text/csv"
PREDICT = "/predict"
SMALL = b'{"rows": [{"a": 1, "b": 0}]}'


@pytest.fixture
def held(monkeypatch):
    """Hold the thread up in a function of a class, until left."""

    @contextmanager
    def hold(owner: type, name: str) -> Iterator[list[str]]:
        gate, began = threading.Event(), []
        real = getattr(owner, name)

        def slowly(self, *arguments, **named):
            if threading.current_thread().name.startswith("slipway-apart"):
                began.append(name)
                assert gate.wait(10)
            return real(self, *arguments, **named)

        monkeypatch.setattr(owner, name, slowly)
        try:
            yield began
        finally:
            gate.set()

    return hold


@pytest.mark.parametrize(
    ("owner", "name", "request_"),
    [
        (RowReader, "read_table", post(TABLE, CSV, path=PREDICT)),
        (RowReader, "read", post(OBJECTS, path=PREDICT)),
        (RowWriter, "write", post(TABLE, CSV, path=PREDICT)),
    ],
    ids=["a table is read", "objects are read", "an answer is written"],
)
async def test_small_requests_are_answered_meanwhile(served, held, owner, name, request_):
    with held(owner, name) as began:
        large = asyncio.create_task(served.send(request_))
        await until(lambda: began)

        assert statuses(await served.send(post(SMALL, path=PREDICT))) == [200]
        assert statuses(await served.send(get("/v2/health/ready"))) == [200]
        assert not large.done()

    assert statuses(await large) == [200]


async def test_what_is_read_apart_is_answered_as_what_is_not(served):
    large = await served.send(post(TABLE, CSV, path=PREDICT))
    small = await served.send(post(b"a,b\n1.25,0.5\n", CSV, path=PREDICT))

    rows = orjson.loads(large.partition(b"\r\n\r\n")[2])["predictions"]
    assert rows == orjson.loads(small.partition(b"\r\n\r\n")[2])["predictions"] * ROWS


async def test_a_large_infer_request_that_is_not_of_the_usual_form_is_answered(served):
    answer = await served.send(post(COLUMNS))

    assert statuses(answer) == [200], answer[:500]
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["outputs"][0]["shape"] == [ROWS]


@pytest.mark.parametrize(
    ("body", "headers", "path", "message"),
    [
        (TABLE + b"x,1\n", [CSV], PREDICT, b'row 20000, \\"a\\" is \\"x\\"'),
        (COLUMNS[:-1], [], PATH, b"right would be"),
    ],
    ids=["a table", "tensors"],
)
async def test_what_is_wrong_with_a_large_body_is_said(served, body, headers, path, message):
    answer = await served.send(post(body, *headers, path=path))

    assert statuses(answer) == [400]
    assert message in answer
    assert served.codes(path.rpartition("/")[2]) == {400: 1}


async def test_a_bug_costs_one_request(served, monkeypatch):
    monkeypatch.setattr(RowReader, "read_table", lambda *_: 1 // 0)

    assert statuses(await served.send(post(TABLE, CSV, path=PREDICT))) == [500]
    assert statuses(await served.send(post(SMALL, path=PREDICT))) == [200]


async def test_what_a_client_leaves_behind_does_not_run(served, held):
    with held(RowReader, "read_table") as began:
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(post(TABLE, CSV, path=PREDICT))
        await until(lambda: began)
        # A connection that is closed in the usual way could be half-closed: its client may still read.
        gone = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
        writer.transport.abort()
        await until(lambda: not served.metrics.connections)

    with served.held() as ran:
        answer = asyncio.create_task(served.send(post(OBJECTS, path=PREDICT)))  # its turn comes after the other's
        await until(lambda: ran)

    assert statuses(await answer) == [200]
    assert ran == [8000]
    assert served.codes("predict") == {200: 1, 499: 1}
    assert served.metrics.in_flight == 0


async def test_more_than_may_wait_is_refused(served, held, monkeypatch):
    monkeypatch.setattr(apart, "_MOST_BYTES", len(TABLE))
    with held(RowReader, "read_table") as began:
        first = asyncio.create_task(served.send(post(TABLE, CSV, path=PREDICT)))
        await until(lambda: began)

        refused = await served.send(post(TABLE, CSV, path=PREDICT))

    assert statuses(refused) == [503]
    assert b"\r\nretry-after: 1\r\n" in refused
    assert statuses(await first) == [200]


@pytest.fixture
def large_message():
    """Typed values: each becomes an object of Python's, which is what takes time."""
    message = rows(*[(1, 0)] * ROWS, raw=False, id="large")
    assert len(message) > apart.READ_APART
    return message


async def greeted(wire: Wire) -> None:
    """Have the server's greeting, which says how much may be sent at once."""
    assert (await wire.reply(INFER, rows((1, 0)))).code == 0


@pytest.mark.parametrize(
    ("owner", "name"), [(Aligner, "align"), (GrpcAnswerWriter, "write")], ids=["it is read", "its answer is written"]
)
async def test_small_calls_are_answered_meanwhile(start, held, large_message, owner, name):
    server = await start(grpc_port=0)
    async with wired(server) as wire, wired(server) as other:
        await greeted(wire)
        with held(owner, name) as began:
            stream = wire.call(INFER, large_message)
            await until(lambda: began)

            assert (await other.reply(INFER, rows((1, 0), raw=False))).code == 0
            assert not wire.replies[stream].ended

        await wire.until(lambda: wire.replies[stream].ended)
    answer = Answer.FromString(wire.replies[stream].messages[0])
    assert (answer.id, list(answer.outputs[0].contents.int64_contents)) == ("large", [0] * ROWS)


async def test_what_is_wrong_with_a_large_message_is_said(start, large_message):
    async with wired(await start(grpc_port=0)) as wire:
        await greeted(wire)
        reply = await wire.reply(INFER, rows(*[(1, 0)] * ROWS, raw=False, model_name="other"))

        assert (reply.code, 'this is "toy"' in reply.message) == (5, True)
        assert (await wire.reply(INFER, large_message)).code == 0


async def test_a_large_call_that_is_cancelled_does_not_run(start, held, large_message):
    server = await start(grpc_port=0)
    async with wired(server) as wire:
        await greeted(wire)
        with held(Aligner, "align") as began:
            stream = wire.call(INFER, large_message)
            await until(lambda: began)
            wire.h2.reset_stream(stream, 8)
            wire.flush()
            await until(lambda: metric(server, "slipway_in_flight") == 0)

        assert (await wire.reply(INFER, rows((1, 0)))).code == 0
