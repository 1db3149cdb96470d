"""Certificates that change on disk while several processes serve: each of them takes the new ones, on every port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import time
from collections import Counter
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from tests.unit.runtime.test_process import process, ready, until, workers_of

from lab.ports import free_port

WORKERS = 3
CONNECTIONS = 40
"""That the kernel gives none of so many to one of three workers happens once in four million times."""
QUESTION = b"GET /v2/models/toy HTTP/1.1\r\nHost: x\r\n\r\n"


class Mounted:
    """A Secret's volume: files behind a link that is swapped, as the kubelet does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.renew()

    def renew(self, *, key: bytes | None = None) -> int:
        """Give the server another certificate; gives its serial number."""
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        self._number += 1
        fresh = self.folder / f"..data-{self._number}"
        fresh.mkdir(parents=True)
        (fresh / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        (fresh / "tls.key").write_bytes(key or made.private_key_pem.bytes())
        (fresh / "ca.crt").write_bytes(self.clients.cert_pem.bytes())
        link = self.folder / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(self.folder / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            with contextlib.suppress(FileExistsError):
                (self.folder / name).symlink_to(f"..data/{name}")
        return x509.load_pem_x509_certificate((fresh / "tls.crt").read_bytes()).serial_number

    @property
    def arguments(self) -> tuple[str, ...]:
        files = {"--tls-cert": "tls.crt", "--tls-key": "tls.key", "--tls-client-ca": "ca.crt"}
        return tuple(part for name, file in files.items() for part in (name, str(self.folder / file)))

    def client(self, signed_by: trustme.CA, protocol: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        signed_by.issue_cert("client.airline").configure_cert(context)
        context.set_alpn_protocols([protocol])
        return context


async def served_serial(port: int, context: ssl.SSLContext) -> int:
    """Open a connection and be answered on it; gives the serial number of the server's certificate; 0: kept out."""
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return 0
    try:
        tls = writer.get_extra_info("ssl_object")
        serial = int(tls.getpeercert()["serialNumber"], 16)
        writer.write(QUESTION if tls.selected_alpn_protocol() != "h2" else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        # With TLS 1.3 a client learns only now that its certificate was refused.
        return serial if await asyncio.wait_for(reader.read(9), 10) else 0
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


async def seen(port: int, context: ssl.SSLContext) -> set[int]:
    """Give what many connections saw, one after the other."""
    return {await served_serial(port, context) for _ in range(CONNECTIONS)}


async def comes_to(port: int, context: ssl.SSLContext, serial: int) -> None:
    """Wait until all of many connections see one certificate, or (0) are all kept out."""
    end = time.monotonic() + 15
    while (found := await seen(port, context)) != {serial}:
        assert time.monotonic() < end, f"{len(found)} certificates are served"


@contextlib.asynccontextmanager
async def served(parts, tmp_path, mounted):
    port, grpc_port, probe_port = free_port(), free_port(), free_port()
    more = ("--workers", str(WORKERS), "--grpc-port", str(grpc_port), "--probe-port", str(probe_port))
    options = parts.linear().write(tmp_path / "model")
    async with process(options, *more, *mounted.arguments, "--drain-seconds", "0.2", port=port) as one:
        await ready(probe_port, within=30)
        await until(lambda: len(workers_of(one.pid)) == WORKERS)
        yield one, port, grpc_port


def sockets_of(pid: int) -> int:
    count = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the process has closed it since it was listed
            count += str(handle.readlink()).startswith("socket:")
    return count


async def test_so_many_connections_meet_every_worker(parts, tmp_path):
    """What the tests below rely on."""
    mounted = Mounted(tmp_path / "tls")
    async with served(parts, tmp_path, mounted) as (one, port, _):
        workers = workers_of(one.pid)
        before = {pid: sockets_of(pid) for pid in workers}
        context = mounted.client(mounted.clients, "http/1.1")
        opened = [await asyncio.open_connection("localhost", port, ssl=context) for _ in range(CONNECTIONS)]

        def share():
            return Counter({pid: sockets_of(pid) - before[pid] for pid in workers})

        await until(lambda: min(share().values()) > 0)
        for _, writer in opened:
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()


async def test_every_worker_serves_a_new_certificate_on_both_ports(parts, tmp_path):
    mounted = Mounted(tmp_path / "tls")
    async with served(parts, tmp_path, mounted) as (one, port, grpc_port):
        for protocol, where in (("http/1.1", port), ("h2", grpc_port)):
            context = mounted.client(mounted.clients, protocol)
            await comes_to(where, context, mounted.renew())
            await comes_to(where, context, mounted.renew())

        # One that begins later reads what is there then.
        serial = mounted.renew()
        victim = min(workers_of(one.pid))
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(found := workers_of(one.pid)) == WORKERS and victim not in found)
        await comes_to(port, mounted.client(mounted.clients, "http/1.1"), serial)


async def test_every_worker_takes_a_new_authority_of_clients(parts, tmp_path):
    mounted = Mounted(tmp_path / "tls")
    async with served(parts, tmp_path, mounted) as (_, port, grpc_port):
        old = mounted.clients
        assert 0 not in await seen(port, mounted.client(old, "http/1.1"))
        mounted.clients = trustme.CA()
        assert await seen(port, mounted.client(mounted.clients, "http/1.1")) == {0}, "nobody trusts it yet"

        serial = mounted.renew()

        for protocol, where in (("http/1.1", port), ("h2", grpc_port)):
            await comes_to(where, mounted.client(mounted.clients, protocol), serial)
            await comes_to(where, mounted.client(old, protocol), 0)


@pytest.mark.parametrize("broken", ["nonsense", ""])
async def test_every_worker_keeps_the_old_ones_where_the_new_cannot_be_read(parts, tmp_path, broken):
    mounted = Mounted(tmp_path / "tls")
    async with served(parts, tmp_path, mounted) as (_, port, _grpc):
        context = mounted.client(mounted.clients, "http/1.1")
        (before,) = await seen(port, context)
        mounted.renew(key=broken.encode() or trustme.CA().private_key_pem.bytes())
        await asyncio.sleep(1.2)
        assert await seen(port, context) == {before}

        await comes_to(port, context, mounted.renew())
