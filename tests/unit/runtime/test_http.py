"""The wire: what a client may send, and what it gets for it."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import socket
import struct
import threading
import zlib

import httpx
import orjson
import pytest
from tests.unit.runtime.raw import INFER, PATH, TENSOR, get, post, statuses, until

from slipway_runtime.errors import TooLate, Unavailable
from slipway_runtime.http.limits import HttpLimits

ROW = b'{"rows": [{"a": 1, "b": 0}]}'


def ids(raw: bytes) -> list[bytes]:
    return re.findall(rb"x-request-id: (\S+)\r\n", raw)


@pytest.fixture
async def client(served):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        yield client


async def test_an_answer_names_its_makers(client):
    answer = await client.post(PATH, json={"id": "mine", "inputs": [TENSOR]}, headers={"X-Request-Id": "r-1"})

    assert answer.status_code == 200
    document = answer.json()
    assert document["outputs"][0] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [0]}
    assert (document["id"], document["model_name"], document["model_version"]) == ("mine", "toy", "c0ffee1234")
    assert answer.headers["slipway-content"] == "c0ffee1234"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", answer.headers["slipway-model-digest"])
    assert answer.headers["x-request-id"] == "r-1"


@pytest.mark.parametrize("given", [None, "x" * 129, "a b", "é"])
async def test_an_id_is_made_where_the_caller_has_none_that_can_be_echoed(client, given):
    headers = {} if given is None else {"x-request-id": given.encode()}
    answers = [await client.post(PATH, content=INFER, headers=headers) for _ in range(3)]

    made = [answer.headers["x-request-id"] for answer in answers]
    assert made == sorted(set(made))
    assert [answer.json()["id"] for answer in answers] == made


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "slipway", "version": "0.1.0", "extensions": ["binary_tensor_data"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/toy/ready", {"name": "toy", "ready": True}),
        ("/v2/models/toy/versions/c0ffee1234/ready", {"name": "toy", "ready": True}),
        ("/v2/", {"name": "slipway", "version": "0.1.0", "extensions": ["binary_tensor_data"]}),
        ("/v2/models/%74oy/ready?x=1", {"name": "toy", "ready": True}),
    ],
)
async def test_get(client, path, expected):
    answer = await client.get(path)
    head = await client.head(path)

    assert (answer.status_code, answer.json()) == (200, expected)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize("path", ["/v2/models/toy", "/v2/models/toy/versions/c0ffee1234"])
async def test_metadata_tells_the_signature(client, path):
    document = (await client.get(path)).json()

    assert (document["name"], document["versions"]) == ("toy", ["c0ffee1234"])
    assert document["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]
    assert document["parameters"]["columns"] == ["a", "b"]


async def test_the_versioned_path_infers(client):
    answer = await client.post("/v2/models/toy/versions/c0ffee1234/infer", content=INFER)

    assert answer.json()["model_version"] == "c0ffee1234"


async def test_predict(client):
    answer = await client.post("/predict", json={"rows": [{"a": 1, "b": 0}, {"a": 0, "b": 1}]})

    assert [row["label"] for row in answer.json()["predictions"]] == [0, 1]
    assert set(answer.json()["predictions"][0]["probabilities"]) == {"no", "yes"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies(client, encoding):
    body = gzip.compress(INFER) if encoding == "gzip" else zlib.compress(INFER)

    assert (await client.post(PATH, content=body, headers={"content-encoding": encoding})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "message"),
    [
        pytest.param("GET", "/etc/passwd", {}, b"", 404, "nothing at this path", id="nowhere"),
        pytest.param("GET", "/v2/models/other", {}, b"", 404, 'this is "toy"', id="model"),
        pytest.param("GET", "/v2/models/toy/versions/1", {}, b"", 404, 'this is "c0ffee1234"', id="version"),
        pytest.param("GET", "/v2/models/../../etc/passwd", {}, b"", 404, "", id="traversal"),
        pytest.param("GET", PATH, {}, b"", 405, "this path takes POST", id="get-infer"),
        pytest.param("DELETE", "/v2", {}, b"", 405, "this path takes GET", id="delete"),
        pytest.param("POST", PATH, {}, b"", 400, "the body is empty", id="empty"),
        pytest.param("POST", PATH, {}, b"{", 400, "not valid JSON", id="cut"),
        pytest.param("POST", PATH, {"content-type": "text/csv"}, INFER, 415, "application/json", id="csv"),
        pytest.param("POST", PATH, {"content-type": "multipart/form-data; boundary=a"}, INFER, 415, "", id="multipart"),
        pytest.param("POST", PATH, {"content-encoding": "br"}, INFER, 400, "gzip, deflate", id="brotli"),
        pytest.param("POST", PATH, {"content-encoding": "gzip"}, INFER, 400, "not compressed as", id="not-gzip"),
        pytest.param(
            "POST", PATH, {"content-encoding": "gzip"}, gzip.compress(INFER)[:-9], 400, "not compressed as", id="cut-gz"
        ),
        pytest.param(
            "POST",
            PATH,
            {"content-encoding": "gzip"},
            gzip.compress(bytes(17 << 20)),
            413,
            "200 times as long; send it as it is",
            id="bomb",
        ),
        pytest.param(
            "POST", PATH, {"inference-header-content-length": "-1"}, INFER, 400, "number of bytes", id="length"
        ),
        pytest.param("POST", PATH, {"expect": "the moon"}, INFER, 417, "100-continue", id="expect"),
        pytest.param("POST", PATH, {"x-pad": "x" * 17_000}, INFER, 431, "header is larger", id="header"),
    ],
)
async def test_what_is_refused(client, method, path, headers, body, status, message):
    answer = await client.request(method, path, headers=headers, content=body)

    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert ("allow" in answer.headers) == (status == 405)
    # The server is none the worse for it.
    assert (await client.post(PATH, content=INFER)).status_code == 200


async def test_values_that_the_model_cannot_compute_are_the_callers(start, parts):
    served = await start(parts.echo())
    body = orjson.dumps({"rows": [{"carrier": "UA", "distance": 1, "month": 7}]})

    raw = await served.send(post(body, path="/predict"))

    assert statuses(raw) == [422]
    assert b"cannot compute an answer for these values" in raw


async def test_a_classifier_does_not_guess_where_a_value_is_missing(client):
    good = asyncio.create_task(client.post("/predict", json={"rows": [{"a": 1, "b": 0}]}))
    answer = await client.post("/predict", json={"rows": [{"a": 1, "b": 0}, {"a": None, "b": 0}]})

    assert answer.status_code == 422
    assert "no answer to row 1" in answer.json()["error"]
    assert (await good).status_code == 200


async def test_pipelined_requests_are_answered_in_order(served):
    many = b"".join(
        post(INFER, f"X-Request-Id: {number}") if number % 3 else get("/v2", f"X-Request-Id: {number}")
        for number in range(150)
    )

    raw = await served.send(many)

    assert statuses(raw) == [200] * 150
    assert ids(raw) == [b"%d" % number for number in range(150)]


async def test_bytes_may_come_one_by_one(served):
    raw = await served.send(*(bytes([byte]) for byte in post(INFER, "X-Request-Id: slow")))

    assert (statuses(raw), ids(raw)) == ([200], [b"slow"])


async def test_chunked_bodies(served):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in (INFER[:9], INFER[9:]))
    trailer = b"0\r\nX-Request-Id: from-the-trailer\r\n\r\n"

    raw = await served.send(head, chunks, trailer + get("/v2"))

    assert statuses(raw) == [200, 200]
    assert b"from-the-trailer" not in raw


async def test_expect_continue(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    request = post(INFER, "Expect: 100-continue", "Connection: close")
    writer.write(request[: -len(INFER)])

    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(INFER)
    assert statuses(await asyncio.wait_for(reader.read(), 5)) == [200]
    writer.close()


async def test_expect_continue_is_not_said_to_a_body_that_is_too_large(served):
    raw = await served.send(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n".encode()
    )

    assert statuses(raw) == [413]


@pytest.mark.parametrize("chunks", [1, 2])
async def test_an_offer_of_another_protocol_is_not_taken_and_loses_no_body(served, chunks):
    """Java's client offers HTTP/2 with each request."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAA")
    one, cut = post(INFER, *offer), len(post(INFER, *offer)) - len(INFER)
    pieces = [one] if chunks == 1 else [one[:cut], one[cut:]]

    raw = await served.send(*pieces, get("/v2", *offer), *pieces, get("/v2/health/live"))

    assert statuses(raw) == [200, 200, 200, 200]
    assert raw.count(b'"outputs"') == 2


async def test_connect_is_no_request_for_a_server(served):
    raw = await served.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\nwhatever")

    assert statuses(raw) in ([404], [405])


async def test_http_1_0(served):
    closing = await served.send(post(version="1.0"), eof=False)
    kept = await served.send(post(INFER, "Connection: keep-alive", version="1.0"))

    assert statuses(closing) == statuses(kept) == [200]
    assert b"connection: close" in closing
    assert b"connection: keep-alive" in kept


async def test_connection_close_is_honoured(served):
    raw = await served.send(post(INFER, "Connection: close"), eof=False)

    assert b"connection: close\r\n" in raw


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="http2-preface"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400, id="http2"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="nul"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, id="negative-length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, id="two-lengths"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="smuggling",
        ),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, id="chunk-size"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400, id="bare-cr"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, id="space-before-colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 101, 0, id="unfinished"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(101)) + b"Host: x\r\n\r\n", 431, id="many"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431, id="endless-header"),
        pytest.param(b"GET /" + b"a" * 20_000, 431, id="endless-target"),
    ],
)
async def test_malformed_requests(served, raw, status):
    answer = await served.send(raw)

    assert statuses(answer) == ([status] if status else [])
    assert statuses(await served.send(post())) == [200]
    assert served.metrics.in_flight == 0


async def test_good_requests_before_a_bad_one_are_answered(served):
    raw = await served.send(post() + post() + b"nonsense\r\n\r\n")

    assert statuses(raw) == [200, 200, 400]


@pytest.mark.parametrize("apart", [False, True])
async def test_a_body_of_another_kind_costs_the_client_no_connection(served, apart):
    """Nor is it taken for one of the right kind, because the same head came before."""
    wrong, right = post(INFER, "Content-Type: text/html"), post()
    one = [wrong[: -len(INFER)], INFER] if apart else [wrong]

    raw = await served.send(*one, *one, right, *one, get("/v2"))

    assert statuses(raw) == [415, 415, 200, 415, 200]


@pytest.mark.parametrize("header", ["Content-Length: 70000", "Transfer-Encoding: chunked"])
async def test_a_body_of_another_kind_is_not_waited_for_where_it_may_be_long(served, header):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: text/html\r\n{header}\r\n\r\n"

    raw = await served.send(head.encode(), eof=False)

    assert statuses(raw) == [415]
    assert b"connection: close" in raw


async def test_what_becomes_too_large_is_refused_though_it_is_no_bomb(served):
    body = gzip.compress(os.urandom(9 << 20).hex().encode(), 1)

    answer = await served.send(post(body, "Content-Encoding: gzip"))

    assert statuses(answer) == [413]
    assert b"larger than 16777216 bytes" in answer


async def test_a_bomb_that_lies_about_its_size_is_known_all_the_same(served):
    bomb = gzip.compress(bytes(17 << 20))
    for size in (0, 1000, 2**32 - 1):
        raw = await served.send(post(bomb[:-4] + size.to_bytes(4, "little"), "Content-Encoding: gzip"))

        assert statuses(raw) == [413]


async def test_an_upgrade_is_not_taken(served):
    raw = await served.send(get("/v2", "Upgrade: h2c", "Connection: Upgrade") + b"\x00\x01", eof=False)
    closing = await served.send(get("/v2", "Upgrade: h2c", "Connection: close, Upgrade"), eof=False)

    assert statuses(raw) == [200, 400]
    assert statuses(closing) == [200]
    assert b"connection: close" in raw


async def test_limits_on_bodies(start):
    served = await start(limits=HttpLimits(body_bytes=1000, buffered_bytes=1500, free_chunks=10, chunk_bytes=16))
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()

    assert statuses(await served.send(post(b" " * 1001))) == [413]
    assert statuses(await served.send(head + b"3e9\r\n" + b" " * 1001 + b"\r\n0\r\n\r\n")) == [413]
    assert statuses(await served.send(head + b"1\r\n \r\n" * 20)) == [400]
    assert statuses(await served.send(head + b"1;" + b"x" * 9000, *[b"x" * 30_000] * 4)) == [400]
    # Two bodies that arrive at the same time share what may be buffered.
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(post(b" " * 900)[:-1])
    await asyncio.sleep(0.05)
    assert statuses(await served.send(post(b" " * 900))) == [503]
    writer.close()
    await writer.wait_closed()
    del reader
    assert statuses(await served.send(post())) == [200]


async def test_slow_clients_are_let_go(start):
    served = await start(limits=HttpLimits(header_seconds=0.1, body_seconds=0.1, idle_seconds=0.1))

    header, body, idle = await asyncio.gather(
        served.send(b"GET / HTTP/1.1\r\nX", eof=False),
        served.send(post()[:-1], eof=False),
        served.send(get("/v2"), eof=False),
    )

    assert (statuses(header), statuses(body), statuses(idle)) == ([408], [408], [200])


async def test_too_many_connections(start):
    served = await start(limits=HttpLimits(connections=1))
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    raw = await served.send(eof=False)
    writer.close()
    await writer.wait_closed()

    assert statuses(raw) == [503]
    assert b"\r\nretry-after: 1\r\n" in raw
    assert statuses(await served.send(post())) == [200]


@pytest.mark.parametrize(
    "request_", [pytest.param(post(), id="infer"), pytest.param(post(ROW, path="/predict"), id="predict")]
)
async def test_a_full_queue_is_503_and_says_when_to_come_back(served, request_):
    with served.held(queue_requests=1) as began:
        running = asyncio.create_task(served.send(request_))
        await until(lambda: began)
        waiting = asyncio.create_task(served.send(request_))
        await until(lambda: served.plane._waiting)
        refused = await served.send(request_)

    assert statuses(refused) == [503]
    assert b"\r\nretry-after: 1\r\n" in refused
    assert [statuses(await one) for one in (running, waiting)] == [[200], [200]]


async def test_old_connections_end_with_an_answer(start):
    served = await start(limits=HttpLimits(connection_seconds=-1))

    assert b"connection: close" in await served.send(post(), eof=False)


async def test_a_client_that_goes_away_leaves_nothing(served):
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(post() * 20)
        await writer.drain()
        writer.transport.abort()
    await until(lambda: not served.metrics.connections)

    assert served.metrics.in_flight == 0
    assert statuses(await served.send(post())) == [200]


THREE_ROWS = orjson.dumps({"inputs": [TENSOR | {"shape": [3, 2], "data": [0.5] * 6}]})


@pytest.mark.parametrize(("patience", "counted"), [(5.0, 499), (0.0, 504)])
async def test_what_waits_for_a_client_that_has_gone_does_not_run(served, patience, counted):
    """And it is counted as a fault of the server's only where the client had waited for long."""
    with served.held(patience=patience) as began:
        kept = asyncio.create_task(served.send(post()))
        await until(lambda: began)
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(post(THREE_ROWS))
        await until(lambda: served.plane._waiting)
        # A connection that is closed in the usual way could be half-closed: its client may still read.
        gone = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
        writer.transport.abort()
        await until(lambda: served.metrics.connections == 1)

    assert statuses(await kept) == [200]
    await until(lambda: served.plane.is_idle)
    assert began == [1]
    assert served.metrics.in_flight == 0
    assert served.codes() == {200: 1, counted: 1}


async def test_metrics(client):
    await client.post(PATH, content=INFER)
    await client.post(PATH, content=b"{")
    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = 'model="toy",content="c0ffee1234"'
    assert f'slipway_requests_total{{{labels},endpoint="infer",code="200"}} 1' in answer.text
    assert f'slipway_requests_total{{{labels},endpoint="infer",code="400"}} 1' in answer.text
    assert f'slipway_request_duration_seconds_count{{{labels},endpoint="infer"}} 2' in answer.text
    assert f'slipway_batch_rows_bucket{{{labels},le="1"}} 1' in answer.text
    assert f"slipway_ready{{{labels}}} 1" in answer.text
    assert f"slipway_requests_in_flight{{{labels}}} 1" in answer.text


async def test_health_is_answered_while_a_large_request_runs(served, monkeypatch):
    gate = threading.Event()
    plane = served.server._models[0].plane
    engine = plane._engine
    monkeypatch.setattr(
        plane,
        "_engine",
        type(
            "Slow",
            (),
            {"run": lambda _, feeds: gate.wait(10) and engine.run(feeds), "is_ready": lambda _: True},
        )(),
    )
    rows = 60_000
    large = orjson.dumps({"inputs": [TENSOR | {"shape": [rows, 2], "data": [0.5] * 2 * rows}]})
    running = asyncio.create_task(served.send(post(large)))
    await until(lambda: not plane.is_idle)

    assert statuses(await served.send(get("/v2/health/ready"))) == [200]
    assert not running.done()
    gate.set()
    assert statuses(await running) == [200]


@pytest.mark.parametrize(
    ("seconds", "status"),
    [("5", 200), ("0.25", 200), ("0", 504), ("0.0", 504), ("soon", 400), ("-1", 400), ("1e3", 400), ("", 400)],
)
@pytest.mark.parametrize("path", [PATH, "/predict"])
async def test_a_caller_that_waits_no_longer_is_told_so(client, path, seconds, status):
    body = INFER if path == PATH else b'{"rows": [{"a": 1, "b": 0}]}'
    for _ in range(2):  # the second time its head is known
        answer = await client.post(path, content=body, headers={"x-request-timeout": seconds})
        assert answer.status_code == status, answer.text


async def test_a_deadline_counts_against_the_server_only_where_a_patient_caller_had_given_up_too(served):
    """A model that hangs is seen whatever its callers' deadlines, and no caller's haste is taken for that."""
    assert statuses(await served.send(post(INFER, "X-Request-Timeout: 0"))) == [504]
    assert served.codes() == {499: 1}
    with served.held(patience=0.1) as began:
        running = asyncio.create_task(served.send(post()))
        await until(lambda: began)
        late = [asyncio.create_task(served.send(post(INFER, f"X-Request-Timeout: {one}"))) for one in (0.01, 0.2)]
        await asyncio.sleep(0.3)

    assert [statuses(await one) for one in (running, *late)] == [[200], [504], [504]]
    assert served.codes() == {200: 1, 499: 2, 504: 1}


@pytest.mark.parametrize(("error", "code"), [(TooLate("it hung"), 504), (Unavailable("it is away"), 503)])
async def test_what_hangs_by_the_servers_own_measure_counts_against_it(served, error, code):
    served.failing(error)
    raw = await served.send(post(INFER, "X-Request-Timeout: 0.5"))

    assert statuses(raw) == [code]
    assert (b"retry-after: 1" in raw) == (code == 503)
    assert served.codes() == {code: 1}


LARGE = orjson.dumps({"rows": [{"carrier": "x" * 8_000_000, "distance": 1, "month": 1}]})


async def test_a_last_answer_that_is_read_slowly_is_not_cut_off(start, parts):
    served = await start(parts.echo())
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, limit=4096)
    writer.write(post(LARGE, "Connection: close", path="/predict"))
    head = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(3.2)  # longer than a connection lingers of which all has been sent
    body = await asyncio.wait_for(reader.read(), 10)

    assert statuses(head) == [200]
    assert len(body) == int(re.findall(rb"content-length: (\d+)", head)[0])
    writer.close()
    await until(lambda: not served.metrics.connections)


async def test_a_last_answer_that_nobody_reads_is_given_up(start, parts):
    served = await start(parts.echo(), limits=HttpLimits(write_seconds=0.5))
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port, limit=4096)
    writer.write(post(LARGE, "Connection: close", path="/predict"))
    await until(lambda: served.metrics.connections)
    await until(lambda: not served.metrics.connections)

    writer.close()


async def test_an_answer_that_cannot_be_written_is_a_500_and_leaves_nothing(served, monkeypatch):
    """Whatever the model gave, somebody waits for an answer: without one the connection stayed for ever."""
    model = served.server._models[0]
    for writer in (model.writer, model.objects):
        for name in ("write", "write_batch"):
            monkeypatch.setattr(type(writer), name, lambda *_, **__: 1 / 0, raising=False)
    named = orjson.dumps({"inputs": [TENSOR], "outputs": [{"name": "label"}]})
    rows = post(b'{"rows": [{"a": 1, "b": 0}]}', path="/predict")

    raw = await served.send(post() * 2 + post(named) + rows)

    assert statuses(raw) == [500] * 4
    assert served.metrics.in_flight == 0
    assert b"ZeroDivision" not in raw
