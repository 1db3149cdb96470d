"""However a stream of requests is cut into reads, its answers are the same; and no bytes bring a 5xx."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway_runtime.dataplane import Work
from slipway_runtime.http.answers import HeadWriter
from slipway_runtime.http.connection import Connection
from slipway_runtime.http.known import KnownHeads
from slipway_runtime.http.routes import Router
from slipway_runtime.http.shared import Shared
from slipway_runtime.metrics import Metrics

TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}
BODY = orjson.dumps({"id": "1", "inputs": [TENSOR]})
HEAD = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\nX-Request-Id: r\r\n"
REQUESTS = [
    HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nX-Request-Id: r\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-Id: r\r\n\r\n",
]


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def can_write_eof(self):
        return True

    def write_eof(self):
        pass

    close = abort = pause_reading = resume_reading = write_eof


class AtOnce:
    """A dataplane that answers before it returns."""

    is_ready = True

    def __init__(self, engine, matrix):
        self._engine = engine
        self._matrix = matrix

    def submit(self, feeds, rows, done, _timeline=None, **_):
        done(self._engine.run(feeds))
        return Work(feeds, rows, done)

    def enqueue(self, work):
        work.sink.settle([work], self._engine.run({self._matrix.tensor: self._matrix.unpacked(work.packed)}))


class Forgetful(KnownHeads):
    """Parses every head, as if it had seen none."""

    def of(self, _data):
        return None


@pytest.fixture
def exchange(toy, monkeypatch):
    model = type(toy)(
        **{name: getattr(toy, name) for name in toy.__slots__ if name != "plane"},
        plane=AtOnce(toy.plane._engine, toy.packer.matrix),
    )

    def run(pieces, heads=None):
        metrics = Metrics("toy", "v")
        router = Router(model, metrics, max_body=1 << 20)
        router.ready = True
        head = HeadWriter(b"")
        monkeypatch.setattr("slipway_runtime.http.answers.formatdate", lambda **_: "now")
        head.tick()
        wire = Wire()
        shared = Shared(router.handle, head, metrics, lambda: "new")
        shared.known_heads = heads or shared.known_heads
        shared.shortcut = router.shortcut
        connection = Connection(shared)
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        assert metrics.in_flight == 0
        return wire.written

    return run


def cut(raw, places):
    ends = sorted({place % (len(raw) + 1) for place in places} | {0, len(raw)})
    return [raw[start:end] for start, end in pairwise(ends)]


def test_any_cut_gives_the_same_answers(exchange):
    @given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=12))
    @settings(max_examples=150, deadline=None)
    def check(requests, places):
        raw = b"".join(requests)
        assert exchange(cut(raw, places)) == b"".join(exchange([request]) for request in requests)

    check()


def test_no_bytes_bring_a_server_error(exchange):
    mutation = st.tuples(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 4))

    @given(st.sampled_from(REQUESTS), st.lists(mutation, min_size=1, max_size=4), st.integers(0, 400))
    @settings(max_examples=400, deadline=None)
    def check(request, mutations, place):
        raw = request
        for start, new, drop in mutations:
            raw = raw[:start] + new + raw[start + drop :]
        answers = exchange(cut(raw, [place]))
        assert not re.search(rb"HTTP/1.1 5", answers), answers

    check()


def mutated(request, mutations):
    for start, new, drop in mutations:
        request = request[:start] + new + request[start + drop :]
    return request


def test_a_head_that_is_known_is_read_as_the_parser_reads_it(exchange):
    """Whatever was sent before, on this or another connection: no answer differs from a parser's that forgets."""
    tricky = st.sampled_from([b"\r\n", b"\n", b"\r\n\r\n", b"\x00", b" ", b"P", b"0\r\n\r\n", REQUESTS[0]])
    mutation = st.tuples(st.integers(0, 200), tricky | st.binary(max_size=2), st.integers(0, 3))
    piece = st.builds(mutated, st.sampled_from(REQUESTS), st.lists(mutation, max_size=2)) | tricky
    heads = KnownHeads()
    taken = 0

    @given(st.lists(piece, min_size=1, max_size=6))
    @settings(max_examples=600, deadline=None)
    def check(pieces):
        nonlocal taken
        before = len(heads._known)
        assert exchange(pieces, heads) == exchange(pieces, Forgetful())
        taken += any(heads.of(piece) for piece in pieces) and before > 0

    check()
    assert taken > 50


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(REQUESTS[0].replace(b"HTTP/1.1", b"HTTP/1.0"), id="1.0"),
        pytest.param(REQUESTS[0].replace(b"Host", b"Connection: close\r\nHost"), id="close"),
        pytest.param(REQUESTS[0].replace(b"Host", b"Expect: 100-continue\r\nHost"), id="expect"),
        pytest.param(REQUESTS[0] + b"\r\n", id="more-behind"),
        pytest.param(REQUESTS[0] * 2, id="two"),
        pytest.param(REQUESTS[1], id="chunked"),
        pytest.param(REQUESTS[2], id="get"),
    ],
)
def test_heads_of_other_forms_are_not_kept(exchange, request_):
    heads = KnownHeads()
    exchange([request_], heads)
    assert not heads._known


def test_the_memory_of_heads_is_bounded(exchange):
    heads = KnownHeads()
    for number in range(600):
        exchange([REQUESTS[0].replace(b"Host", b"X-Trace: %d\r\nHost" % number)], heads)
    assert 0 < len(heads._known) <= 256
    exchange([REQUESTS[0].replace(b"Host", b"X-Long: %b\r\nHost" % (b"x" * 3000))], heads)
    assert all(len(head) <= 2048 for head in heads._known)
