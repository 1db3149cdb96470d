"""Who may ask: keys, TLS and clients' certificates, read again when they change; and a port for probes."""

from __future__ import annotations

import asyncio
import ssl
import time

import grpc  # type: ignore[import-untyped]  # it ships no types
import httpx
import orjson
import pytest
import trustme
from tests.unit.runtime.wire import INFER as CALL
from tests.unit.runtime.wire import Reply, rows, wired

from slipway_runtime.errors import CannotServe
from slipway_runtime.observing.options import ObservingOptions
from slipway_runtime.security.keys import ApiKeys
from slipway_runtime.security.tls import Tls, TlsFiles

INFER = orjson.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}]})
PATH = "/v2/models/toy/infer"
KEY, OTHER = "k" * 20 + "1", "k" * 20 + "2"


@pytest.fixture
def keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# for the team\n{KEY}\n\n{OTHER}\n")
    return file


def client_of(port, **options):
    scheme = "https" if "verify" in options else "http"
    return httpx.AsyncClient(base_url=f"{scheme}://localhost:{port}", trust_env=False, **options)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {OTHER}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"x-api-key": "# for the team"}, 401),
        ({"x-api-key": KEY[:-1]}, 401),
    ],
)
async def test_a_key_is_asked_for(start, keys, headers, code):
    served = await start(api_keys=keys)
    async with client_of(served.server.port) as client:
        for path, body in ((PATH, INFER), (PATH, INFER), ("/predict", b'{"rows":[{"a":1,"b":0}]}')):
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == code
            assert ("www-authenticate" in answer.headers) == (code == 401)
        assert (await client.get("/metrics", headers=headers)).status_code == code
        # The kubelet has no key.
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_a_body_without_a_key_is_not_waited_for(start, keys):
    served = await start(api_keys=keys)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"

    raw = await served.send(head.encode(), eof=False)

    assert raw.startswith(b"HTTP/1.1 401 ")


async def test_a_key_that_is_taken_away_opens_nothing(start, keys):
    """Also where the same head was let in before."""
    served = await start(api_keys=keys)
    async with client_of(served.server.port) as client:
        for _ in range(3):
            assert (await client.post(PATH, content=INFER, headers={"x-api-key": KEY})).status_code == 200
        keys.write_text("n" * 30 + "\n")
        await until(lambda: not served.server._keys.allow({b"x-api-key": KEY.encode()}))

        assert (await client.post(PATH, content=INFER, headers={"x-api-key": KEY})).status_code == 401
        assert (await client.post(PATH, content=INFER, headers={"x-api-key": "n" * 30})).status_code == 200


async def test_a_key_file_that_breaks_leaves_the_keys_as_they_were(start, keys):
    served = await start(api_keys=keys)
    keys.write_text("short\n")
    await asyncio.sleep(1.2)
    async with client_of(served.server.port) as client:
        assert (await client.post(PATH, content=INFER, headers={"x-api-key": KEY})).status_code == 200


@pytest.mark.parametrize("content", ["", "# nothing\n", "short\n", "with space in the key\n", "k" * 600])
def test_keys_that_cannot_be(tmp_path, content):
    (tmp_path / "keys").write_text(content)
    with pytest.raises(CannotServe, match="keys"):
        ApiKeys(tmp_path / "keys")


async def test_grpc_asks_for_the_key_too(start, keys):
    served = await start(api_keys=keys, grpc_port=0)
    async with grpc.aio.insecure_channel(f"localhost:{served.server.grpc_port}") as channel:
        metadata = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await metadata(b"")
        shown = await metadata(b"", metadata=[("authorization", f"Bearer {KEY}")])
        lives = await live(b"")

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert b"slipway" in shown
    assert lives == b"\x08\x01", "the kubelet has no key"


async def code_of_an_unfinished(wire, path):
    """Send a part of a body, and wait for what comes of it."""
    stream = wire.call(path, bytes(30_000), end=False)
    await wire.until(lambda: wire.replies[stream].ended)
    return wire.replies[stream].code


async def test_what_is_no_grpc_takes_no_room_and_is_told_so_at_its_end(start):
    """Not before: what breaks HTTP/2 in it must be seen first."""
    served = await start(grpc_port=0)
    async with wired(served) as wire:
        stream = wire.h2.get_next_available_stream_id()
        wire.h2.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")])
        wire.replies[stream] = Reply()
        for _ in range(2):
            wire.h2.send_data(stream, bytes(16_000))
        wire.flush()
        assert (await wire.reply(CALL, rows((1, 0)))).code == 0
        assert served.server._shared.buffered == 0
        wire.h2.end_stream(stream)
        wire.flush()
        await wire.until(lambda: wire.replies[stream].ended)

    assert wire.replies[stream].head[":status"] == "415"


async def test_a_call_without_a_key_is_refused_before_its_body_takes_room(start, keys):
    served = await start(api_keys=keys, grpc_port=0)
    async with wired(served) as wire:
        for path in (CALL, "/nowhere/Nothing"):
            assert await code_of_an_unfinished(wire, path) == 16
            assert served.server._shared.buffered == 0
        again = await wire.reply(CALL, rows((1, 0)), authorization=f"Bearer {KEY}")

    assert again.code == 0


async def test_a_key_that_was_taken_back_opens_no_call_of_a_connection_that_is_open(start, keys):
    """Header blocks that come again are not read again: what they are allowed must not outlive the key."""
    served = await start(api_keys=keys, grpc_port=0)
    async with grpc.aio.insecure_channel(f"localhost:{served.server.grpc_port}") as channel:
        metadata = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        shown = [("authorization", f"Bearer {KEY}")]
        for _ in range(3):
            await metadata(b"", metadata=shown)
        keys.write_text(f"{OTHER}\n")
        refused = None
        end = time.monotonic() + 10
        while refused is None:
            assert time.monotonic() < end, "the old key is still taken"
            try:
                await metadata(b"", metadata=shown)
            except grpc.aio.AioRpcError as error:
                refused = error.code()
            await asyncio.sleep(0.05)

    assert refused is grpc.StatusCode.UNAUTHENTICATED


class Authority:
    """A private authority, and files for a server and a client."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = trustme.CA()
        self.renew()
        self.ca.cert_pem.write_to_path(folder / "ca.crt")
        self.client = self.ca.issue_cert("client.airline")

    def renew(self):
        certificate = self.ca.issue_cert("localhost", "127.0.0.1")
        (self.folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        (self.folder / "tls.key").write_bytes(certificate.private_key_pem.bytes())

    def files(self, *, mutual: bool = False):
        return TlsFiles(self.folder / "tls.crt", self.folder / "tls.key", self.folder / "ca.crt" if mutual else None)

    def trusting(self, *, with_certificate: bool = False):
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if with_certificate:
            self.client.configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


async def until(condition):
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110 -- what is waited for knows nothing of this test
            await asyncio.sleep(0.05)


async def serial_of(port, context):
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    await reader.read()
    return certificate["serialNumber"]


async def test_tls(start, authority):
    served = await start(tls=authority.files())
    async with client_of(served.server.port, verify=authority.trusting()) as client:
        for _ in range(3):
            assert (await client.post(PATH, content=INFER)).status_code == 200
        assert f"https://localhost:{served.server.port}/predict" in (await client.get("/")).text
        closing = await client.post(PATH, content=b"{", headers={"connection": "close"})

    assert closing.status_code == 400
    assert not (await served.send(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP")


async def test_old_tls_is_not_spoken(start, authority):
    served = await start(tls=authority.files())
    context = authority.trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("localhost", served.server.port, ssl=context)


async def test_a_new_certificate_is_used_and_open_connections_stay(start, authority):
    served = await start(tls=authority.files())
    port = served.server.port
    async with client_of(port, verify=authority.trusting()) as client:
        await client.get("/v2")
        before = await serial_of(port, authority.trusting())
        authority.renew()
        end = time.monotonic() + 8
        while (after := await serial_of(port, authority.trusting())) == before:
            assert time.monotonic() < end, "the new certificate is not used"
            await asyncio.sleep(0.02)
        await until(lambda: served.metrics.connections == 1)

        assert (await client.get("/v2")).status_code == 200
        assert served.metrics.connections == 1, "the open connection was used"
    assert after != before


async def test_no_connection_fails_while_certificates_change(start, authority):
    served = await start(tls=authority.files())
    stop, answered = asyncio.Event(), 0

    async def ask():
        nonlocal answered
        while not stop.is_set():
            async with client_of(served.server.port, verify=authority.trusting()) as client:
                assert (await client.get("/v2")).status_code == 200
            answered += 1

    tasks = [asyncio.create_task(ask()) for _ in range(2)]
    for _ in range(3):
        authority.renew()
        await asyncio.sleep(0.7)
    stop.set()
    await asyncio.gather(*tasks)

    assert answered > 5


async def test_a_certificate_that_does_not_fit_its_key_is_not_taken(start, authority):
    served = await start(tls=authority.files())
    before = await serial_of(served.server.port, authority.trusting())
    (authority.folder / "tls.key").write_text("nonsense")
    await asyncio.sleep(1.2)

    assert await serial_of(served.server.port, authority.trusting()) == before


async def test_clients_show_their_certificate(start, authority):
    served = await start(tls=authority.files(mutual=True), probe_port=0)
    async with client_of(served.server.port, verify=authority.trusting(with_certificate=True)) as client:
        assert (await client.post(PATH, content=INFER)).status_code == 200
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        async with client_of(served.server.port, verify=authority.trusting()) as client:
            await client.post(PATH, content=INFER)

    async with client_of(served.server.probe_port) as probe:
        assert (await probe.get("/v2/health/ready")).status_code == 200
        assert (await probe.get("/metrics")).status_code == 200
        for path in ("/", "/v2/models/toy", "/openapi.json"):
            assert (await probe.get(path)).status_code == 404
        assert (await probe.post(PATH, content=INFER)).status_code == 404


async def test_grpc_over_tls(start, authority):
    served = await start(tls=authority.files(), grpc_port=0)
    credentials = grpc.ssl_channel_credentials(authority.ca.cert_pem.bytes())
    async with grpc.aio.secure_channel(f"localhost:{served.server.grpc_port}", credentials) as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert await live(b"") == b"\x08\x01"


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key", "ca.crt"])
def test_files_that_are_none(authority, broken):
    (authority.folder / broken).write_text("nonsense")
    with pytest.raises(CannotServe, match=broken.replace(".", r"\.")):
        Tls(authority.files(mutual=True))


async def test_a_handshake_that_does_not_come_is_given_up(start, authority, monkeypatch):
    monkeypatch.setattr("slipway_runtime.doors.HANDSHAKE_SECONDS", 0.5)
    served = await start(tls=authority.files())
    reader, writer = await asyncio.open_connection("localhost", served.server.port)

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_no_key_is_ever_logged(start, keys, monkeypatch):
    lines: list[bytes] = []
    monkeypatch.setattr("slipway_runtime.observing.access_log._written", lambda _, raw: lines.append(raw))
    served = await start(api_keys=keys, observing=ObservingOptions(access_log=True))
    async with client_of(served.server.port) as client:
        await client.post(PATH, content=INFER, headers={"x-api-key": KEY})
    served.server.stop()
    served.server.stop()
    await asyncio.wait_for(served.task, 20)

    assert lines
    assert KEY.encode() not in b"".join(lines)


async def test_connections_that_end_while_a_server_drains_do_not_end_it(start, authority):
    """Over TLS a connection has no socket any more one turn of the loop before it is told of its end."""
    served = await start(tls=authority.files(), drain_seconds=5.0)
    context = authority.trusting()
    opened = [await asyncio.open_connection("localhost", served.server.port, ssl=context) for _ in range(5)]
    await until(lambda: served.metrics.connections == len(opened))
    connections = tuple(served.server._shared.connections)
    for connection in connections:
        connection.abort()
    while served.metrics.connections:
        for connection in connections:
            connection.close_if_idle(time.perf_counter(), 0.0)
        await asyncio.sleep(0)
    for _, writer in opened:
        writer.close()


async def test_a_last_answer_that_is_read_slowly_over_tls_is_not_cut_off(start, authority, parts):
    served = await start(parts.echo(), tls=authority.files())
    body = orjson.dumps({"rows": [{"carrier": "x" * 8_000_000, "distance": 1, "month": 1}]})
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(
        "localhost", served.server.port, ssl=authority.trusting(), limit=4096
    )
    writer.write(head.encode() + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    await asyncio.sleep(3.2)  # longer than a connection lingers of which all has been sent

    assert len(await asyncio.wait_for(reader.read(), 10)) > 8_000_000
    writer.close()
