"""Records in an object store: a real S3 server (Versity's gateway on a folder), and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
import trustme
from tests.unit.runtime.test_process import INFER, PATH, process, ready

from lab.ports import free_port
from slipway_runtime.observing.background import Background
from slipway_runtime.observing.bucket import Bucket, BucketOptions
from slipway_runtime.observing.options import ObservingOptions
from slipway_runtime.observing.sinks import sink_for
from tools.__main__ import ensure

KEY, SECRET = "records", "a-secret-that-nobody-may-see"


@dataclass
class Store:
    """A running server."""

    endpoint: str
    root: Path
    ca: Path | None = None

    def objects(self, bucket="records") -> list[Path]:
        return sorted((self.root / bucket).rglob("*.arrows"))


def begun(root: Path, folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], int]:
    (root / "records").mkdir(parents=True)
    port = free_port()
    environment = {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET, "HOME": str(folder)}
    command = [str(ensure("versitygw")), "--quiet", "--port", f"127.0.0.1:{port}", *more]
    command += ["--iam-dir", str(folder)]  # so that it has users
    one = subprocess.Popen([*command, "posix", str(root)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx.RemoteProtocolError:  # it speaks TLS
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the object store did not begin"
            time.sleep(0.05)  # between two looks, with a deadline
        else:
            break
    return one, port


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    one, port = begun(folder / "root", folder)
    yield Store(f"http://127.0.0.1:{port}", folder / "root")
    one.kill()
    one.wait()


@pytest.fixture
def secret(tmp_path):
    """A mounted Secret."""
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text(KEY + "\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(SECRET + "\n")
    return folder


def bucket(place, **options) -> Bucket:
    return Bucket(place, model="toy", who="pod-1", options=BucketOptions(**options))


def reason(sink: Bucket) -> str:
    with pytest.raises(OSError, match="bucket") as caught:
        sink.write("predictions", b"piece")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pieces_are_objects_of_their_own(store, secret):
    sink = bucket("s3://records/a/b/", endpoint=store.endpoint, credentials=secret)
    for number in range(3):
        sink.write("predictions", b"piece %d" % number)
    sink.write("feedback", b"truth")

    found = {path.relative_to(store.root / "records" / "a" / "b"): path.read_bytes() for path in store.objects()}
    assert list(found.values()) == [b"truth", b"piece 0", b"piece 1", b"piece 2"]
    for path in found:
        assert re.fullmatch(r"toy/(feedback|predictions)/\d{4}-\d\d-\d\d/\d{8}T\d{6}Z-pod-1-00000\d\.arrows", str(path))


def test_keys_may_come_from_the_environment(store, monkeypatch):
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("ENDPOINT_URL", store.endpoint)):
        monkeypatch.setenv(f"AWS_{name}", value)
    before = len(store.objects())

    bucket("s3://records").write("predictions", b"x")

    assert len(store.objects()) == before + 1


def test_keys_that_change_are_read_again(store, secret, monkeypatch):
    monkeypatch.setattr("slipway_runtime.observing.bucket._READ_AGAIN", timedelta(seconds=-1))
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("not yet right")
    sink = bucket("s3://records", endpoint=store.endpoint, credentials=secret)
    assert "does not take the credentials" in reason(sink)

    (secret / "AWS_SECRET_ACCESS_KEY").write_text(SECRET)
    sink.write("predictions", b"x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"place": "s3://nowhere"}, "there is no bucket nowhere of", id="bucket"),
        pytest.param({"key": "other"}, "does not take the credentials", id="key"),
        pytest.param({"secret": "other"}, "does not take the credentials (SignatureDoesNotMatch)", id="secret"),
        pytest.param({"endpoint": "http://127.0.0.1:1"}, "nobody listens there", id="away"),
        pytest.param({"endpoint": "http://no.such.host.invalid"}, "its host name is not known", id="host"),
        pytest.param({"scheme": "https"}, "it does not speak TLS; is http:// meant?", id="tls"),
    ],
)
def test_what_is_refused_is_explained_in_one_line(store, secret, change, said):
    (secret / "AWS_ACCESS_KEY_ID").write_text(change.get("key", KEY))
    (secret / "AWS_SECRET_ACCESS_KEY").write_text(change.get("secret", SECRET))
    endpoint = change.get("endpoint", store.endpoint).replace("http:", change.get("scheme", "http") + ":")

    assert said in reason(bucket(change.get("place", "s3://records"), endpoint=endpoint, credentials=secret))


def test_credentials_that_may_not_write_are_told_what_they_need(store, secret):
    """A user of the store to whom the bucket's owner gave nothing."""
    program = [str(ensure("versitygw")), "admin", "--access", KEY, "--secret", SECRET, "--endpoint-url", store.endpoint]
    user = ["create-user", "--access", "weak", "--secret", "another-secret", "--role", "user"]
    subprocess.run([*program, *user], check=True, capture_output=True, timeout=20)
    (secret / "AWS_ACCESS_KEY_ID").write_text("weak")
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("another-secret")

    refused = reason(bucket("s3://records", endpoint=store.endpoint, credentials=secret))

    assert "does not let these credentials write (AccessDenied); they need s3:PutObject" in refused


def test_tls_trusts_the_authority_that_is_named(tmp_path, secret):
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    files = ("--cert", str(tmp_path / "tls.crt"), "--key", str(tmp_path / "tls.key"))
    one, port = begun(tmp_path / "root", tmp_path, *files)
    try:
        endpoint = f"https://127.0.0.1:{port}"
        bucket("s3://records", endpoint=endpoint, credentials=secret, ca=tmp_path / "ca.crt").write("predictions", b"x")
        assert len(list((tmp_path / "root" / "records").rglob("*.arrows"))) == 1
        refused = reason(bucket("s3://records", endpoint=endpoint, credentials=secret))
        assert "its certificate is not trusted; --record-ca" in refused
    finally:
        one.kill()
        one.wait()


@pytest.mark.parametrize(
    ("place", "options", "said"),
    [
        ("s3://", {}, "is no bucket"),
        ("s3://UPPER", {}, "is no bucket"),
        ("s3://records?x=1", {}, "is no bucket"),
        ("s3://records", {"endpoint": "ftp://x"}, "endpoint is none"),
        ("s3://records", {"endpoint": "https://user:password@x"}, "endpoint is none"),
        ("s3://records", {"ca": Path("/nonexistent")}, "cannot be read"),
        ("s3://records", {"credentials": Path("/nonexistent")}, "must hold the files AWS_ACCESS_KEY_ID"),
    ],
)
def test_settings_that_cannot_be(place, options, said):
    with pytest.raises(ValueError, match=said):
        sink_for(place, model="toy", who="pod", most=1, bucket=BucketOptions(**options))


async def test_a_served_models_records_arrive_in_the_bucket(start, store, secret):
    options = BucketOptions(endpoint=store.endpoint, credentials=secret)
    served = await start(observing=ObservingOptions(record_to="s3://records/served", bucket=options))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        for number in range(5):
            await client.post(PATH, content=INFER, headers={"x-request-id": f"r-{number}"})
        assert (await client.post("/feedback", json={"id": "r-3", "truth": "yes"})).status_code == 202
    served.server.stop()
    served.server.stop()
    await asyncio.wait_for(served.task, 20)

    found = {path.parts[-3]: pa.ipc.open_stream(path.read_bytes()).read_all()
             for path in store.objects() if "served" in path.parts}  # fmt: skip
    assert found["predictions"]["request_id"].to_pylist() == [f"r-{number}" for number in range(5)]
    assert found["feedback"]["truth"].to_pylist() == ['"yes"']
    assert b'outcome="written"} 6' in served.metrics.render()


async def test_a_store_that_is_away_costs_records_and_no_request(start, secret, caplog):
    caplog.set_level(logging.WARNING)
    options = BucketOptions(endpoint="http://127.0.0.1:1", credentials=secret)
    served = await start(observing=ObservingOptions(record_to="s3://records", bucket=options))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        for _ in range(20):
            assert (await client.post(PATH, content=INFER)).status_code == 200
    served.server.stop()
    served.server.stop()
    await asyncio.wait_for(served.task, 20)

    assert b'outcome="failed"} 20' in served.metrics.render()
    assert "20 records are lost: bucket records of http://127.0.0.1:1 took nothing: nobody listens there" in caplog.text


async def test_by_arguments_with_workers(parts, store, secret, tmp_path):
    """Each process writes its own objects; what belongs to a bucket is refused without one."""
    port = free_port()
    place = ("--record-endpoint", store.endpoint, "--record-credentials", str(secret))
    more = ("--record-to", "s3://records/workers", *place, "--workers", "2", "--drain-seconds", "0.1")
    async with process(parts.linear().write(tmp_path / "model"), *more, port=port) as one:
        await ready(port)
        for number in range(12):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                await client.post(PATH, content=INFER, headers={"x-request-id": f"w-{number:02}"})
        one.terminate()
        assert await asyncio.wait_for(one.wait(), 15) == 0
    found = [path for path in store.objects() if "workers" in path.parts]
    ids = [one for path in found for one in pa.ipc.open_stream(path.read_bytes()).read_all()["request_id"].to_pylist()]
    assert sorted(ids) == [f"w-{number:02}" for number in range(12)]

    async with process(parts.linear().write(tmp_path / "other"), "--record-to", "/x", *place, port=port) as other:
        _, log = await asyncio.wait_for(other.communicate(), 15)
    assert (other.returncode, b"are for --record-to s3://" in log) == (1, True)


def test_the_library_is_not_loaded_unasked():
    rooms = "slipway_runtime.observing.recording, slipway_runtime.observing.sinks"
    script = f"import sys, {rooms}; print('obstore' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "False"


async def test_a_store_that_hangs_keeps_no_pod_from_ending(start, secret, monkeypatch):
    """It takes connections and says nothing."""
    monkeypatch.setattr(Background.close, "__defaults__", (1.0,))  # instead of five seconds
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = BucketOptions(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", credentials=secret)
        served = await start(observing=ObservingOptions(record_to="s3://records", bucket=options))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
            assert (await client.post(PATH, content=INFER)).status_code == 200
        began = time.monotonic()
        served.server.stop()
        served.server.stop()
        await asyncio.wait_for(served.task, 20)

    assert time.monotonic() - began < 5
