"""Access log, traces, records and feedback: what is asked for is there, and never costs a request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.unit.runtime.wire import INFER, rows, wired

from slipway_runtime.errors import CannotServe
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.access_log import AccessLog
from slipway_runtime.observing.background import Background
from slipway_runtime.observing.options import ObservingOptions, observers
from slipway_runtime.observing.recording import Recorder, recorded_parts
from slipway_runtime.observing.sinks import Folder, HttpService, sink_for
from slipway_runtime.observing.watching import Finished, Timeline
from slipway_runtime.protocol.signature import read_signature

ROW = {"carrier": "UA", "distance": 719.5, "month": 2}


class Collector(ThreadingHTTPServer):
    """A service that takes whatever is posted; ``answers`` says with which codes."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []


@pytest.fixture
def collector():

    class Handler(BaseHTTPRequestHandler):
        server: Collector

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.taken.append((self.path, dict(self.headers), body))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = Collector(Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def ended(served):
    """End a server, so that what waits is written."""
    served.server.stop()
    served.server.stop()
    await asyncio.wait_for(served.task, 20)


def client_of(served):
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False)


def tables(folder, kind):
    return pa.concat_tables(
        [pa.ipc.open_stream(path.read_bytes()).read_all() for path in sorted(folder.glob(f"{kind}-*.arrows"))]
    )


async def test_requests_and_answers_are_recorded(start, parts, tmp_path):
    folder = tmp_path / "records"
    served = await start(parts.echo(), observing=ObservingOptions(record_to=str(folder), redacted=("distance",)))
    async with client_of(served) as client:
        answers = await asyncio.gather(
            *(client.post("/predict", json={"rows": [ROW | {"carrier": f"c{n}"}, ROW]}) for n in range(8))
        )
        refused = await client.post("/predict", json={"rows": []})
    await ended(served)

    assert refused.status_code == 400
    table = tables(folder, "predictions")
    assert table.column_names == [
        "at", "request_id", "row", "content", "in.carrier", "in.month", "out.carrier", "out.month",
    ]  # fmt: skip
    assert table.num_rows == 16
    rows = {(row["request_id"], row["row"]): row for row in table.to_pylist()}
    for number, answer in enumerate(answers):
        first = rows[answer.headers["x-request-id"], 0]
        assert (first["in.carrier"], first["in.month"], first["out.month"]) == (f"c{number}", 2, 12.0)
        assert first["content"] == "c0ffee1234"
    assert served.metrics.state()["slipway_records_total"]['outcome="written"'] == [8]


async def test_the_usual_infer_request_is_recorded_by_column(start, tmp_path):
    folder = tmp_path / "records"
    served = await start(observing=ObservingOptions(record_to=str(folder), redacted=("b",)))
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 0]}
    async with client_of(served) as client:
        for _ in range(3):
            await client.post("/v2/models/toy/infer", json={"inputs": [tensor]})
    await ended(served)

    table = tables(folder, "predictions")
    assert table.column_names[4:] == ["in.a", "out.label", "out.probabilities.no", "out.probabilities.yes"]
    assert table["in.a"].to_pylist() == [1.5] * 3


async def test_feedback_is_recorded_beside_them(start, tmp_path):
    folder = tmp_path / "records"
    served = await start(observing=ObservingOptions(record_to=str(folder)))
    async with client_of(served) as client:
        one = await client.post("/feedback", json={"id": "r-1", "truth": "late"})
        many = await client.post("/v2/models/toy/feedback", json={"id": "r-2", "truth": [1, None, 0.5]})
    await ended(served)

    assert (one.status_code, one.json()) == (202, {"id": "r-1", "accepted": 1})
    assert many.json()["accepted"] == 3
    found = [(row["request_id"], row["row"], row["truth"]) for row in tables(folder, "feedback").to_pylist()]
    assert found == [("r-1", 0, '"late"'), ("r-2", 0, "1"), ("r-2", 1, "null"), ("r-2", 2, "0.5")]
    assert served.metrics.state()["slipway_feedback_total"][""] == [4]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b"", 400, "empty", id="empty"),
        pytest.param(b'{"id": "x"}', 400, '"truth" must be', id="no-truth"),
        pytest.param(b'{"truth": 1}', 400, '"id" must be', id="no-id"),
        pytest.param(b'{"id": "a b", "truth": 1}', 400, '"id" must be', id="bad-id"),
        pytest.param('{"id": "é", "truth": 1}'.encode(), 400, '"id" must be', id="foreign-id"),
        pytest.param(b'{"id": "x", "truth": []}', 400, '"truth" must be', id="none"),
        pytest.param(b'{"id": "x", "truth": [{}]}', 400, "truth[0]", id="object"),
        pytest.param(b'{"id": "x", "truth": 1, "why": 2}', 400, '"why" is unknown', id="unknown"),
        pytest.param(b'{"id": "x", "truth": [' + b"1," * 70_000 + b"1]}", 413, "at most", id="many"),
    ],
)
async def test_feedback_that_is_refused(start, tmp_path, body, status, message):
    served = await start(observing=ObservingOptions(record_to=str(tmp_path / "records")))
    async with client_of(served) as client:
        answer = await client.post("/feedback", content=body)

    assert answer.status_code == status
    assert message in answer.json()["error"]


async def test_feedback_needs_a_place(start):
    served = await start()
    async with client_of(served) as client:
        answer = await client.post("/feedback", json={"id": "r-1", "truth": 1})

    assert answer.status_code == 404
    assert "--record-to" in answer.json()["error"]


def finished(number: int = 0, rows: int = 1, *, size: int = 2, endpoint: str = "infer"):
    """A request that was answered, as a listener gets it."""
    timeline = Timeline()
    timeline.parsed(rows)
    array = np.zeros((rows, size), np.float32)
    timeline.ran(timeline.queued, timeline.queued, {"x": array}, [np.zeros(rows, np.int64), array], 0)
    request = type("Request", (), {
        "endpoint": endpoint, "request_id": f"r-{number}", "started": timeline.begun, "method": b"POST",
        "target": b"/predict", "headers": {}, "timeline": timeline,
    })()  # fmt: skip
    return Finished(request, timeline, 200, 10, timeline.begun + 0.001)


class Stuck:
    """A sink that does not come back until it is told to."""

    def __init__(self):
        self.go = threading.Event()
        self.pieces = []

    def write(self, kind, piece):
        self.go.wait(10)
        self.pieces.append((kind, piece))


@pytest.fixture
def linear_signature(parts):
    return read_signature(orjson.dumps(parts.linear().signature))


def recorder_into(sink, signature, counted, *, ratio=1.0):
    """Record into a sink, and count what becomes of the records."""
    return Recorder(
        recorded_parts(signature, frozenset()), "v1", sink, ratio,
        lambda outcome, number: counted.update({outcome: number}),
    )  # fmt: skip


def test_a_stuck_sink_costs_records_and_nothing_else(linear_signature, monkeypatch):
    monkeypatch.setattr("slipway_runtime.observing.recording._BYTES", 1 << 20)
    monkeypatch.setattr("slipway_runtime.observing.recording._FLUSH_SECONDS", 0.0)
    counted: Counter[str] = Counter()
    sink = Stuck()
    recorder = recorder_into(sink, linear_signature, counted)
    for number in range(20_000):
        recorder(finished(number))
    dropped = counted["dropped"]
    assert 5_000 < dropped < 20_000
    assert recorder.take_truth("r-1", [1]) is False
    sink.go.set()
    recorder.close()

    assert counted["written"] == 20_000 - dropped


class Open(Stuck):
    """A sink that takes what comes."""

    def __init__(self):
        super().__init__()
        self.go.set()


def test_what_has_gathered_for_a_piece_counts_against_what_may_wait(linear_signature, monkeypatch):
    """The thread takes the queue twice a second: what it has taken is no less in memory for that."""
    monkeypatch.setattr("slipway_runtime.observing.recording._BYTES", 1 << 20)
    monkeypatch.setattr("slipway_runtime.observing.recording._FLUSH_SECONDS", 60.0)
    monkeypatch.setattr("slipway_runtime.observing.background._WAKE_SECONDS", 0.01)
    counted: Counter[str] = Counter()
    sink = Open()
    recorder = recorder_into(sink, linear_signature, counted)
    for number in range(100):
        recorder(finished(number, rows=64, size=128))  # 64 KiB with its answer
        time.sleep(0.005)  # the queue is empty before it is full

    held = sum(one.feeds["x"].nbytes + one.outputs[1].nbytes for one in recorder._predictions)
    assert held <= 1 << 20
    assert counted["dropped"] == 100 - len(recorder._predictions)
    assert not sink.pieces
    recorder.close()


def test_a_piece_is_written_once_it_is_large(linear_signature, monkeypatch):
    monkeypatch.setattr("slipway_runtime.observing.recording._PIECE_BYTES", 1 << 20)
    sink = Open()
    recorder = Recorder(recorded_parts(linear_signature, frozenset()), "v1", sink, 1.0, lambda *_: None)
    for number in range(40):
        recorder(finished(number, rows=64, size=128))
    recorder.close()

    assert len(sink.pieces) == 3


@pytest.mark.parametrize(("ratio", "at_least"), [(1.0, 1 << 10), (0.01, 1 << 16)])
def test_a_record_that_keeps_a_whole_batch_weighs_as_much(linear_signature, monkeypatch, ratio, at_least):
    """One request of 64 is recorded, and their arrays are one."""
    weights: list[int] = []

    def put(_background, _item, weight):
        weights.append(weight)
        return True

    monkeypatch.setattr(Background, "put", put)
    recorder = Recorder(recorded_parts(linear_signature, frozenset()), "v1", Open(), ratio, lambda *_: None)
    recorder._credit = 1.0
    one = finished(rows=64, size=128)
    one.timeline.rows, one.timeline.offset = 1, 7
    recorder(one)

    assert at_least <= weights[0] < 2 * at_least + 1000


def test_a_sink_that_fails_is_counted(linear_signature):
    class Broken:
        def write(self, kind, piece):
            raise OSError(f"the disk is full: {kind}, {len(piece)} bytes")

    counted: dict[str, int] = {}
    recorder = Recorder(recorded_parts(linear_signature, frozenset()), "v1", Broken(), 1.0, counted.__setitem__)
    recorder(finished())
    recorder.close()

    assert counted == {"failed": 1}


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.25, 250), (1.0, 1000)])
def test_a_share_is_recorded(linear_signature, tmp_path, ratio, expected):
    counted: Counter[str] = Counter()
    sink = Folder(tmp_path, who="pod", most=1 << 30)
    recorder = recorder_into(sink, linear_signature, counted, ratio=ratio)
    for number in range(1000):
        recorder(finished(number))
    recorder.close()

    assert counted.get("written", 0) == expected


def test_a_folder_keeps_no_more_than_it_may(tmp_path):
    sink = Folder(tmp_path / "deep" / "er", who="pod", most=1000)
    for _ in range(50):
        sink.write("predictions", bytes(100))

    files = list((tmp_path / "deep" / "er").iterdir())
    assert len(files) == 10
    assert not [file for file in files if file.name.startswith(".")]


def test_a_service_that_is_busy_is_asked_again(collector, monkeypatch):
    monkeypatch.setattr("slipway_runtime.observing.sinks.time.sleep", lambda _: None)
    collector.answers = [503, 429, 200]
    HttpService(f"http://127.0.0.1:{collector.server_port}/records", who="pod-1").write("predictions", b"abc")

    assert [path for path, _, _ in collector.taken] == ["/records"] * 3
    headers = collector.taken[-1][1]
    assert (headers["X-Slipway-Kind"], headers["X-Slipway-From"]) == ("predictions", "pod-1")
    assert headers["Content-Type"] == "application/vnd.apache.arrow.stream"


def test_a_service_that_refuses_is_not(collector):
    collector.answers = [403]
    with pytest.raises(OSError, match="403"):
        HttpService(f"http://127.0.0.1:{collector.server_port}/", who="pod-1").write("feedback", b"abc")

    assert len(collector.taken) == 1


@pytest.mark.parametrize("target", ["ftp://x/y", "file:///etc", "gs://bucket/x", "https:///x"])
def test_places_that_are_none(target):
    with pytest.raises(ValueError, match="neither"):
        sink_for(target, model="m", who="pod", most=1)


def test_what_is_no_column_cannot_be_redacted(linear_signature, tmp_path):
    metrics, options = Metrics("m", "v"), ObservingOptions(record_to=str(tmp_path), redacted=("nonsense",))
    with pytest.raises(CannotServe, match="no column nonsense"):
        observers(options, [(linear_signature, metrics)], metrics)


async def test_the_access_log_has_a_line_for_each_request(start, monkeypatch):
    lines: list[bytes] = []
    monkeypatch.setattr("slipway_runtime.observing.access_log._written", lambda _, raw: lines.append(raw))
    served = await start(observing=ObservingOptions(access_log=True))
    async with client_of(served) as client:
        await client.post("/predict", json={"rows": [{"a": 1, "b": 0}]}, headers={"x-request-id": "mine"})
        await client.get("/no/such/path")
    await served.send(b"nonsense\r\n\r\n")
    await ended(served)

    found = [orjson.loads(line) for line in b"".join(lines).splitlines()]
    assert [(one["endpoint"], one["status"], one["rows"]) for one in found] == [
        ("predict", 200, 1), ("other", 404, 0), ("other", 400, 0),
    ]  # fmt: skip
    assert (found[0]["id"], found[0]["method"], found[0]["path"]) == ("mine", "POST", "/predict")
    assert 0 < found[0]["milliseconds"] < 5000


def test_a_reader_that_is_slow_costs_lines_only(monkeypatch):
    monkeypatch.setattr("slipway_runtime.observing.access_log._LINES", 100)
    lost: list[int] = []
    go, written = threading.Event(), []

    def write(raw):
        go.wait(10)
        written.extend(raw.splitlines())

    log = AccessLog(lambda: lost.append(1), write)
    for number in range(1000):
        log(finished(number))
    assert 700 <= len(lost) < 1000
    go.set()
    log.close()

    assert len(written) + len(lost) == 1000


def spans_of(collector):
    return [
        span
        for _, _, body in collector.taken
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def test_a_call_over_grpc_is_recorded_logged_and_traced_by_its_id(start, collector, tmp_path, monkeypatch):
    lines: list[bytes] = []
    monkeypatch.setattr("slipway_runtime.observing.access_log._written", lambda _, raw: lines.append(raw))
    options = ObservingOptions(
        access_log=True,
        record_to=str(tmp_path / "records"),
        trace=True,
        trace_endpoint=f"http://127.0.0.1:{collector.server_port}/v1/traces",
        trace_ratio=1.0,
    )
    served = await start(grpc_port=0, observing=options)
    async with wired(served) as wire:
        for number in range(3):  # from the second on its message is known
            await wire.reply(INFER, rows((1.5, number)), x_request_id=f"call-{number}")
        await wire.reply(INFER, b"\xff", x_request_id="wrong")
    await ended(served)

    logged = [orjson.loads(line) for line in b"".join(lines).splitlines()]
    assert [(one["id"], one["path"], one["endpoint"], one["status"], one["rows"]) for one in logged] == [
        *((f"call-{number}", INFER, "infer", 200, 1) for number in range(3)), ("wrong", INFER, "infer", 400, 0),
    ]  # fmt: skip
    recorded = tables(tmp_path / "records", "predictions").to_pylist()
    assert [(row["request_id"], row["in.a"], row["in.b"]) for row in recorded] == [
        (f"call-{number}", 1.5, number) for number in range(3)
    ]
    ids = [
        one.value.string_value
        for span in spans_of(collector)
        for one in span.attributes
        if span.name == "infer" and one.key == "slipway.request_id"
    ]
    assert sorted(ids) == ["call-0", "call-1", "call-2", "wrong"]


async def test_traces_follow_their_callers(start, collector):
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    served = await start(observing=ObservingOptions(trace=True, trace_endpoint=url, trace_ratio=0.0))
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
    async with client_of(served) as client:
        for flag in ("1", "0"):
            row = {"rows": [{"a": 1, "b": 0}]}
            await client.post(
                "/predict", json=row, headers={"traceparent": parent + flag, "x-request-id": f"flag-{flag}"}
            )
        await client.get("/v2")
    await ended(served)

    spans = spans_of(collector)
    assert sorted(span.name for span in spans) == ["encode", "parse", "predict", "queue", "run"]
    (outer,) = [span for span in spans if span.name == "predict"]
    assert {span.trace_id.hex() for span in spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert outer.parent_span_id.hex() == "00f067aa0ba902b7"
    assert all(span.parent_span_id == outer.span_id for span in spans if span is not outer)
    attributes = {one.key: one.value for one in outer.attributes}
    assert attributes["slipway.request_id"].string_value == "flag-1"
    assert attributes["http.response.status_code"].int_value == 200
    steps = sorted((span for span in spans if span is not outer), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in steps] == ["parse", "queue", "run", "encode"]


async def test_a_collector_that_is_away_costs_no_request(start):
    served = await start(
        observing=ObservingOptions(trace=True, trace_endpoint="http://127.0.0.1:9/v1/traces", trace_ratio=1.0)
    )
    async with client_of(served) as client:
        codes = {(await client.get("/v2")).status_code for _ in range(20)}

    assert codes == {200}


def test_what_is_thrown_at_it_does_not_end_the_background():
    seen: list[int] = []

    def handle(items):
        seen.extend(items)
        if 1 in items:
            raise RuntimeError("once")

    background: Background[int] = Background(handle, most=10, name="test")
    background.put(1)
    while 1 not in seen:
        pass
    background.put(2)
    background.close()

    assert seen == [1, 2]


def test_nothing_is_imported_unasked(parts, tmp_path):
    script = f"""
import sys
from slipway_runtime.__main__ import _parser
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import ModelOptions, load_model
from slipway_runtime.server import Server, ServerOptions
from pathlib import Path
import asyncio
async def main():
    options = ModelOptions(Path({str(tmp_path)!r}), "toy", "v", {parts.linear().write(tmp_path).digest!r})
    metrics = Metrics("toy", "v")
    Server([load_model(options, metrics)], metrics, ServerOptions())
asyncio.run(main())
heavy = {{"pyarrow", "nanoarrow", "obstore", "opentelemetry", "google", "requests", "pandas", "csv"}}
print(sorted(heavy & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() in ("[]", "['csv']")
