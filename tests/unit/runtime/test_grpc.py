"""gRPC on real sockets, asked by another HTTP/2 implementation (the h2 library)."""

from __future__ import annotations

import asyncio
import gzip
import struct
from typing import Any

import numpy as np
import pytest
from tests.unit.runtime.raw import until
from tests.unit.runtime.wire import INFER, Answer, Request, metric, rows, wired

from slipway_runtime.errors import Unavailable
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.grpc.messages import message_class


@pytest.fixture
def begin(start):
    async def begin(files: Any = None, limits: GrpcLimits | None = None, **options: Any) -> Any:
        return await start(files, grpc_port=0, grpc_limits=limits or GrpcLimits(), **options)

    return begin


@pytest.mark.parametrize("raw", [True, False])
async def test_an_answer_names_its_makers(begin, raw):
    async with wired(await begin()) as wire:
        reply = await wire.reply(INFER, rows((1, 0), (0, 1), raw=raw, id="mine"), x_request_id="r-7")

    answer = Answer.FromString(reply.messages[0])
    assert (reply.code, reply.head["slipway-content"], reply.head["x-request-id"]) == (0, "c0ffee1234", "r-7")
    assert reply.head["slipway-model-digest"].startswith("sha256:")
    assert (answer.model_name, answer.model_version, answer.id) == ("toy", "c0ffee1234", "mine")
    assert [output.name for output in answer.outputs] == ["label", "probabilities"]
    if raw:
        label = np.frombuffer(answer.raw_output_contents[0], np.int64)
        chances = np.frombuffer(answer.raw_output_contents[1], np.float32)
    else:
        assert not answer.raw_output_contents
        label, chances = answer.outputs[0].contents.int64_contents, answer.outputs[1].contents.fp32_contents
    assert list(label) == [0, 1]
    assert np.allclose(chances, [0.880797, 0.119203, 0.1824255, 0.8175745])


async def test_a_request_without_ids_gets_one_that_is_both(begin):
    async with wired(await begin()) as wire:
        reply = await wire.reply(INFER, rows((1, 0)))

    assert Answer.FromString(reply.messages[0]).id == reply.head["x-request-id"]


async def test_outputs_are_selected_in_the_callers_order(begin):
    async with wired(await begin()) as wire:
        reply = await wire.reply(INFER, rows((1, 0), outputs=[{"name": "probabilities"}]))

    assert [output.name for output in Answer.FromString(reply.messages[0]).outputs] == ["probabilities"]


async def test_a_parameter_decides_how_values_come_back(begin):
    async with wired(await begin()) as wire:
        typed = {"binary_data_output": {"bool_param": False}}
        reply = await wire.reply(INFER, rows((1, 0), parameters=typed))

    assert list(Answer.FromString(reply.messages[0]).outputs[0].contents.int64_contents) == [0]


WRONG = [
    pytest.param({"model_name": "other"}, 5, 'this is "toy"', id="model"),
    pytest.param({"model_version": "9"}, 5, 'this is "c0ffee1234"', id="version"),
    pytest.param({"outputs": [{"name": "labels"}]}, 3, 'did you mean "label"', id="output"),
    pytest.param({"outputs": [{"name": "label"}] * 2}, 3, 'outputs[1].name "label" is given twice', id="twice"),
    pytest.param({"raw_input_contents": [b"1234"]}, 3, "has 4 bytes, but 2 values of FP32 are 8", id="bytes"),
    pytest.param({"raw_input_contents": [b"", b""]}, 3, "2 items for 1 inputs", id="raw-count"),
    pytest.param(
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [0, (1 << 63) - 1]}], "raw_input_contents": [b""]},
        3,
        "has no values, but shape",
        id="huge-raw",
    ),
    pytest.param(
        {"inputs": [{"name": "input", "datatype": "FP32", "shape": [0, (1 << 63) - 1]}], "raw_input_contents": []},
        3,
        "inputs[0].contents has no values, but shape",
        id="huge",
    ),
    pytest.param({"inputs": []}, 3, "raw_input_contents has 1 items for 0", id="no-inputs"),
    pytest.param({"inputs": [{"name": "input", "datatype": "FP31", "shape": [1, 2]}]}, 3, "FP32", id="datatype"),
    pytest.param({"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]}, 3, "negative", id="shape"),
    pytest.param({"inputs": [{"name": "inputs", "datatype": "FP32", "shape": [1, 2]}]}, 3, "no input", id="name"),
    pytest.param({"parameters": {"binary_data_output": {"int64_param": 1}}}, 3, "bool_param", id="parameter"),
]


@pytest.mark.parametrize(("change", "code", "said"), WRONG)
async def test_a_wrong_request_is_told_what_would_be_right(begin, change, code, said):
    async with wired(await begin()) as wire:
        reply = await wire.reply(INFER, rows((1, 0), **change))
        again = await wire.reply(INFER, rows((1, 0)))

    assert (reply.code, again.code) == (code, 0)
    assert said in reply.message.replace("%22", '"')


async def test_what_is_no_message_is_an_invalid_argument(begin):
    async with wired(await begin()) as wire:
        assert (await wire.reply(INFER, b"\xff\xff")).code == 3
        assert (await wire.reply("/nowhere/Nothing", b"")).code == 12


MESSAGE = rows((1, 0))
FRAMED = b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", 12, id="none"),
        pytest.param(FRAMED * 2, 12, id="two"),
        pytest.param(FRAMED[:-1], 3, id="cut-off"),
        pytest.param(FRAMED[:3], 3, id="cut-off-length"),
        pytest.param(b"\1" + FRAMED[1:], 13, id="compressed-in-no-way"),
        pytest.param(b"\7" + FRAMED[1:], 13, id="another-flag"),
    ],
)
async def test_bytes_that_are_no_message_are_the_callers_fault_whatever_grpc_calls_them(begin, body, code):
    running = await begin()
    async with wired(running) as wire:
        stream = wire.call(INFER, None, end=False)
        wire.h2.send_data(stream, body, end_stream=True)
        wire.flush()
        await wire.until(lambda: wire.replies[stream].ended)

    assert wire.replies[stream].code == code
    assert running.codes() == {400: 1}


async def test_a_message_that_arrives_too_slowly_is_the_callers_fault(begin):
    running = await begin(limits=GrpcLimits(message_seconds=0.1))
    async with wired(running) as wire:
        stream = wire.call(INFER, b"", end=False)
        await wire.until(lambda: wire.replies[stream].ended)

    assert wire.replies[stream].code == 4
    assert running.codes() == {408: 1}


async def test_a_full_queue_is_unavailable_and_says_when_to_come_back(begin):
    running = await begin()
    async with wired(running) as wire:
        with running.held(queue_requests=1) as began:
            first = wire.call(INFER, MESSAGE)
            await until(lambda: began)
            second = wire.call(INFER, MESSAGE)
            await until(lambda: running.plane._waiting)
            refused = await wire.reply(INFER, MESSAGE)
        await wire.until(lambda: wire.replies[second].ended)

    assert (refused.code, refused.head["grpc-retry-pushback-ms"]) == (14, "1000")
    assert [wire.replies[one].code for one in (first, second)] == [0, 0]
    assert running.codes() == {200: 2, 503: 1}


async def test_whatever_is_unavailable_says_when_to_come_back(begin):
    running = await begin()
    running.failing(Unavailable("the model's worker ended"))
    async with wired(running) as wire:
        reply = await wire.reply(INFER, MESSAGE)

    assert (reply.code, reply.head["grpc-retry-pushback-ms"]) == (14, "1000")


async def test_messages_may_be_compressed(begin):
    running = await begin(limits=GrpcLimits(message_bytes=10_000))
    async with wired(running) as wire:
        good = await wire.reply(INFER, gzip.compress(rows((1, 0))), flag=1, grpc_encoding="gzip")
        bomb = await wire.reply(INFER, gzip.compress(bytes(1_000_000)), flag=1, grpc_encoding="gzip")
        broken = await wire.reply(INFER, b"not gzip", flag=1, grpc_encoding="gzip")
        unknown = await wire.reply(INFER, b"", flag=1, grpc_encoding="snappy")

    assert [reply.code for reply in (good, bomb, broken, unknown)] == [0, 8, 3, 12]
    assert unknown.head["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_a_message_that_is_too_large_ends_before_it_has_arrived(begin):
    async with wired(await begin(limits=GrpcLimits(message_bytes=50_000))) as wire:
        reply = await wire.reply(INFER, bytes(60_000))
        again = await wire.reply(INFER, rows((1, 0)))

    assert (reply.code, again.code) == (8, 0)


async def test_a_large_request_and_its_answer_pass_small_windows(begin, parts):
    running = await begin(parts.echo(), limits=GrpcLimits(stream_window=70_000, connection_window=100_000))
    count = 20_000
    names = [f"ä{index}" for index in range(count)]
    carriers = b"".join(struct.pack("<I", len(name.encode())) + name.encode() for name in names)
    distances = np.arange(count, dtype=np.float32)
    months = np.ones(count, np.int64)
    tensors = [
        {"name": name, "datatype": kind, "shape": [count]}
        for name, kind in (("carrier", "BYTES"), ("distance", "FP32"), ("month", "INT64"))
    ]
    raws = [carriers, distances.tobytes(), months.tobytes()]
    message = Request(model_name="toy", inputs=tensors, raw_input_contents=raws).SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message

    async with wired(running, window=1000) as wire, asyncio.timeout(20):
        stream = wire.call(INFER, None, end=False)
        await wire.until(lambda: wire.h2.local_flow_control_window(stream) > 65_535)
        while body:
            size = min(wire.h2.local_flow_control_window(stream), 16_000, len(body))
            if size == 0:
                await wire.read()
                continue
            wire.h2.send_data(stream, body[:size], end_stream=size == len(body))
            wire.flush()
            body = body[size:]
        await wire.until(lambda: wire.replies[stream].ended)
        answer = Answer.FromString(wire.replies[stream].messages[0])

    assert answer.raw_output_contents[0] == carriers
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[1], np.float32), distances)


async def test_a_deadline_that_has_passed_is_said(begin):
    running = await begin()
    async with wired(running) as wire:
        assert (await wire.reply(INFER, rows((1, 0)), grpc_timeout="0n")).code == 4
        assert (await wire.reply(INFER, rows((1, 0)), grpc_timeout="1x")).code == 3
        assert (await wire.reply(INFER, rows((1, 0)), grpc_timeout="1H")).code == 0
        assert (await wire.reply(INFER, rows((1, 0)), grpc_timeout="99999999H")).code == 0
    assert running.codes() == {200: 2, 400: 1, 499: 1}


async def test_a_deadline_counts_against_the_server_only_where_a_patient_caller_had_given_up_too(begin):
    """As over HTTP; a client's own clock may be the first, and then it gives the call up."""
    running = await begin()
    async with wired(running) as wire:
        with running.held(patience=0.1) as began:
            hung = wire.call(INFER, MESSAGE, grpc_timeout="200m")
            await until(lambda: began)
            hasty, patient = (wire.call(INFER, MESSAGE, grpc_timeout=one) for one in ("10m", "200m"))
            left = [wire.call(INFER, MESSAGE) for _ in range(2)]
            wire.h2.reset_stream(left[0], 8)
            await wire.until(lambda: all(wire.replies[one].ended for one in (hung, hasty, patient)))
            wire.h2.reset_stream(left[1], 8)
            wire.flush()
            await until(lambda: not running.metrics.in_flight)

    assert [wire.replies[one].code for one in (hung, hasty, patient)] == [4, 4, 4]
    assert running.codes() == {499: 2, 504: 3}


async def test_work_whose_deadline_passes_while_it_arrives_is_dropped(begin):
    running = await begin()
    async with wired(running) as wire:
        stream = wire.call(INFER, rows((1, 0)), end=False, grpc_timeout="20m")
        await wire.until(lambda: wire.replies[stream].ended)

        assert wire.replies[stream].code == 4
    assert metric(running, "slipway_rows_total") == 0
    assert 'kind="Impatient"} 1' in running.metrics.render().decode()


async def test_a_call_that_was_given_up_does_not_run(begin):
    running = await begin()
    async with wired(running) as wire:
        await wire.reply(INFER, rows((1, 0)))
        stream = wire.h2.get_next_available_stream_id()
        with wire.at_once():
            wire.call(INFER, rows((1, 0)))
            wire.h2.reset_stream(stream, 8)
        await wire.reply(INFER, rows((1, 0)))

        assert metric(running, "slipway_rows_total") == 2
        assert metric(running, "slipway_requests_in_flight") == 0


async def test_calls_of_one_moment_run_together(begin):
    running = await begin()
    async with wired(running) as wire:
        with wire.at_once():
            streams = [wire.call(INFER, rows((1, index))) for index in range(20)]
        await wire.until(lambda: all(wire.replies[stream].ended for stream in streams))

    assert metric(running, "slipway_batch_rows_count") == 1
    assert metric(running, "slipway_batch_rows_sum") == 20


async def test_the_same_numbers_as_over_http_are_counted(begin):
    running = await begin()
    async with wired(running) as wire:
        await wire.reply(INFER, rows((1, 0)))
        await wire.reply(INFER, rows((1, 0), model_name="other"))

    text = running.metrics.render().decode()
    assert 'endpoint="infer",code="200"} 1' in text
    assert 'endpoint="infer",code="404"} 1' in text


# Health and reflection.


async def test_health_is_asked_and_watched(begin):
    running = await begin(drain_seconds=0.3)
    health = message_class("grpc.health.v1.HealthCheckResponse")
    request = message_class("grpc.health.v1.HealthCheckRequest")
    async with wired(running) as wire:
        check = await wire.reply("/grpc.health.v1.Health/Check", b"")
        unknown = await wire.reply("/grpc.health.v1.Health/Check", request(service="x").SerializeToString())
        watch = wire.call("/grpc.health.v1.Health/Watch", b"")
        await wire.until(lambda: len(wire.replies[watch].messages) == 1)
        running.server.stop()
        await wire.until(lambda: wire.replies[watch].ended)

    assert [health.FromString(check.messages[0]).status, unknown.code] == [1, 5]
    assert [health.FromString(message).status for message in wire.replies[watch].messages] == [1, 2]
    assert wire.replies[watch].code == 14


REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LIST = message_class("grpc.reflection.v1.ServerReflectionRequest")(list_services="").SerializeToString()


async def test_a_message_of_a_stream_is_small_and_is_told_so_by_its_length(begin):
    """What has come of one is joined with each frame: of a large one each frame would cost more than the last."""
    running = await begin()
    async with wired(running) as wire:
        declared = wire.call(REFLECTION, None, end=False)
        wire.h2.send_data(declared, b"\0" + (65_537).to_bytes(4, "big"))
        wire.flush()
        await wire.until(lambda: wire.replies[declared].ended)
        inflated = await wire.reply(REFLECTION, gzip.compress(bytes(65_537)), flag=1, grpc_encoding="gzip")
        usual = await wire.reply(REFLECTION, LIST)

    assert [wire.replies[declared].code, inflated.code, usual.code] == [8, 8, 0]
    assert "at most 65536 bytes" in wire.replies[declared].message
    assert running.server._shared.buffered == 0


async def test_a_stream_may_be_silent_between_its_messages_and_not_within_one(begin):
    running = await begin(limits=GrpcLimits(message_seconds=0.3))
    async with wired(running) as wire:
        between, within = (wire.call(REFLECTION, LIST, end=False) for _ in range(2))
        wire.h2.send_data(within, b"\0\0\0")
        wire.flush()
        await wire.until(lambda: wire.replies[within].ended)
        wire.h2.send_data(between, b"\0" + len(LIST).to_bytes(4, "big") + LIST, end_stream=True)
        wire.flush()
        await wire.until(lambda: wire.replies[between].ended)

    assert (wire.replies[within].code, wire.replies[between].code) == (4, 0)
    assert [len(wire.replies[one].messages) for one in (within, between)] == [1, 2]


# Ends.


async def test_draining_tells_clients_to_go_and_answers_what_was_begun(begin):
    running = await begin(drain_seconds=0.5)
    async with wired(running) as wire:
        await wire.reply(INFER, rows((1, 0)))
        late = wire.call(INFER, rows((1, 0)), end=False)
        running.server.stop()
        await wire.until(lambda: len(wire.goaways) == 1)
        async with wired(running) as newcomer:
            assert (await newcomer.reply(INFER, rows((1, 0)))).code == 0
        await wire.until(lambda: len(wire.goaways) == 2)
        wire.writer.write(b"\0\0\0\0\1" + late.to_bytes(4, "big"))  # the end of its body
        await wire.until(lambda: wire.replies[late].ended)
        await wire.until(lambda: wire.closed)

    assert wire.replies[late].code == 0
    assert [last for _, last in wire.goaways] == [2**31 - 1, late]
    await asyncio.wait_for(running.task, 10)


async def test_a_last_answer_that_is_read_slowly_is_not_cut_off(begin, parts):
    room = 20_000_000
    limits = GrpcLimits(stream_window=room, connection_window=room, connection_seconds=0.5)
    text = b"x" * 8_000_000
    tensors = [
        {"name": name, "datatype": kind, "shape": [1]}
        for name, kind in (("carrier", "BYTES"), ("distance", "FP32"), ("month", "INT64"))
    ]
    raws = [struct.pack("<I", len(text)) + text, bytes(4), bytes(8)]
    message = Request(model_name="toy", inputs=tensors, raw_input_contents=raws).SerializeToString()
    async with wired(await begin(parts.echo(), limits=limits), window=room) as wire, asyncio.timeout(30):
        wire.h2.increment_flow_control_window(room)
        await wire.reply("/inference.GRPCInferenceService/ServerLive", b"")
        stream = wire.call(INFER, message)
        await asyncio.sleep(5)  # it is told to go, has not long to say that it knows, and is closed behind its answer
        await wire.until(lambda: wire.replies[stream].ended)

    assert len(wire.replies[stream].body) > len(text)
    assert wire.replies[stream].code == 0


async def test_an_old_connection_is_told_to_go(begin):
    async with wired(await begin(limits=GrpcLimits(connection_seconds=0))) as wire:
        await wire.until(lambda: len(wire.goaways) == 2)
        await wire.until(lambda: wire.closed)

    assert [code for code, _ in wire.goaways] == [0, 0]


# Clients that only make work.


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


GET = b"\x82\x86\x84\x41\x01x"
FLOODS = [
    pytest.param(frame(6, 0, 0, bytes(8)) * 20_000, 11, id="pings"),
    pytest.param(frame(4, 0, 0) * 20_000, 11, id="settings"),
    pytest.param(frame(2, 0, 1, bytes(5)) * 20_000, 11, id="priorities"),
    pytest.param(
        b"".join(frame(1, 4, n, GET) + frame(3, 0, n, bytes(4)) for n in range(1, 40_001, 2)), 11, id="resets"
    ),
    pytest.param(frame(1, 0, 1, GET) + frame(9, 0, 1) * 1000, 11, id="continuations"),
    pytest.param(frame(1, 0, 1, GET) + frame(9, 0, 1, b"\x00\x01a\x7f\x80\x7f" + bytes(16_000)) * 4, 11, id="header"),
    pytest.param(frame(1, 4, 1, GET + b"\x40\x01a\x7f\x81\x1e" + b"b" * 4000 + b"\xbe" * 5000), 11, id="header-bomb"),
    pytest.param(frame(1, 4, 1, GET) + frame(0, 0, 1) * 20_000, 11, id="empty-data"),
    pytest.param(frame(1, 4, 1, GET) + frame(0, 0, 1, bytes(16_384)) * 80, None, id="more-than-the-window"),
    pytest.param(frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3, id="window"),
    pytest.param(frame(1, 5, 1, b"\xff\xff\xff\xff\xff"), 9, id="hpack"),
    pytest.param(frame(1, 5, 2, GET), 1, id="even-stream"),
    pytest.param(frame(5, 4, 1, bytes(4)), 1, id="push"),
    pytest.param(frame(0, 1, 99, b""), 1, id="idle-stream"),
    pytest.param(frame(7, 0, 0, bytes(8)) + frame(200, 0, 0), None, id="unknown-frames"),
]


@pytest.mark.parametrize(("bytes_", "code"), FLOODS)
async def test_a_hostile_client_ends_alone(begin, bytes_, code):
    running = await begin()
    async with wired(running) as good:
        assert (await good.reply(INFER, rows((1, 0)))).code == 0
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.grpc_port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + bytes_)
        said = await goaway(reader) if code is not None else None
        assert (await good.reply(INFER, rows((1, 0)))).code == 0
        writer.close()

    assert said == code


async def goaway(reader: asyncio.StreamReader) -> int:
    """Read until the server says goodbye; gives its reason."""
    async with asyncio.timeout(10):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == 7:
                return int.from_bytes(payload[4:8], "big")


async def test_something_else_than_http2_is_told_so(begin):
    running = await begin()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.server.grpc_port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    said = await reader.read()
    writer.close()

    assert b"this port speaks HTTP/2 (gRPC)" in said


async def test_too_many_streams_are_refused_one_by_one(begin):
    running = await begin(limits=GrpcLimits(streams=2))
    async with wired(running) as wire:
        wire.h2.remote_settings.max_concurrent_streams = 100
        streams = [wire.call(INFER, rows((1, 0)), end=False) for _ in range(3)]
        await wire.until(lambda: wire.replies[streams[2]].ended)
        for stream in streams[:2]:
            wire.h2.end_stream(stream)
        wire.flush()
        await wire.until(lambda: all(wire.replies[stream].ended for stream in streams))

    assert [wire.replies[stream].reset for stream in streams] == [None, None, 7]
