"""The runtime with everything switched on: TLS, keys, records, access log, traces to a collector that takes them."""

from __future__ import annotations

import os
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

KEY = "bench-0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}


class Collector(BaseHTTPRequestHandler):
    """Takes traces as OpenTelemetry's collector does, and keeps none."""

    taken = 0
    """Batches of spans."""
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a batch."""
        self.rfile.read(int(self.headers["Content-Length"]))
        Collector.taken += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@cache
def collector() -> str:
    """Begin to take traces, on the client's core and as long as this process lives; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)

    def serve() -> None:
        os.sched_setaffinity(0, {1})  # of this thread and of those that it starts
        server.serve_forever()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1/traces"


@cache
def authority() -> trustme.CA:
    """Give who signs the server's certificate."""
    return trustme.CA()


def secured(folder: Path) -> list[str]:
    """Write a certificate and a key of callers; gives the options that name them."""
    signed = authority().issue_cert("localhost", "127.0.0.1")
    certificate, key, keys = folder / "tls.crt", folder / "tls.key", folder / "keys"
    certificate.write_bytes(b"".join(pem.bytes() for pem in signed.cert_chain_pems))
    key.write_bytes(signed.private_key_pem.bytes())
    keys.write_text(f"{KEY}\n")
    return ["--tls-cert", str(certificate), "--tls-key", str(key), "--api-keys", str(keys)]


def traced() -> list[str]:
    """Give the options of traces, of the share of requests that is the default."""
    return ["--trace", "--trace-endpoint", collector()]


def everything(folder: Path) -> list[str]:
    """Give the options that switch on what is off by default; metrics and values are on."""
    return [*secured(folder), *traced(), "--access-log", "--record-to", str(folder / "records")]
