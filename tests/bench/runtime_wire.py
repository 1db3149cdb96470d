"""A request of `bench_runtime.py`, and how TLS is asked; little, as clients import it anew for each window."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Request:
    """One request of HTTP, a call of gRPC included."""

    path: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"


@cache
def trusting() -> ssl.SSLContext:
    """Give what asks over TLS without looking at certificates, as wrk and h2load do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
