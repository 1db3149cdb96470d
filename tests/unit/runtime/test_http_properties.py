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

    def write_eof(self):
        pass

    close = abort = pause_reading = resume_reading = write_eof


class AtOnce:
    """A dataplane that answers before it returns."""

    def __init__(self, engine):
        self._engine = engine

    def submit(self, feeds, rows, done, timeline=None):  # noqa: ARG002 -- DataPlane's signature
        done(self._engine.run(feeds))
        return Work(feeds, rows, done)


@pytest.fixture
def exchange(toy, monkeypatch):
    model = type(toy)(
        **{name: getattr(toy, name) for name in toy.__slots__ if name != "plane"}, plane=AtOnce(toy.plane._engine)
    )

    def run(pieces):
        metrics = Metrics("toy", "v")
        router = Router(model, metrics, max_body=1 << 20)
        router.ready = True
        head = HeadWriter(b"")
        monkeypatch.setattr(head, "_date", b"")
        head._ok = head._status[200] + b"content-type: application/json\r\n"
        wire = Wire()
        connection = Connection(Shared(router.handle, head, metrics, lambda: "new"))
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
        assert not re.search(rb"HTTP/1.1 5(?!05)", answers), answers

    check()
