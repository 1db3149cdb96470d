"""Where connections come in: listening sockets, and what serves them with the present certificate."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast

from slipway_runtime.security.tls import HANDSHAKE_SECONDS

_log = logging.getLogger(__name__)


class Door:
    """A listening socket and what serves it now; a new certificate is a new server on the same socket."""

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._context = context
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections with the present certificate; the open ones stay."""
        old = self._server
        context = self._context()
        # Both accept for a moment, from one queue: no connection is lost. (On uvloop: asyncio's own servers
        # begin a connection a turn after they accepted it, and drop it if they were closed in that turn.)
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._listener.dup(),
            backlog=1024,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context is not None else None,
        )
        if old is not None:
            old.close()

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
        self._listener.close()


class Listeners(NamedTuple):
    """The listening sockets of one process."""

    http: socket.socket
    grpc: socket.socket | None
    probe: socket.socket | None

    def close(self) -> None:
        """Listen no more."""
        for listener in filter(None, self):
            listener.close()


def listening(host: str, ports: tuple[int, int | None, int | None], *, shared: bool) -> Listeners:
    """Open listening sockets.

    Args:
        host: An address; empty: all of them.
        ports: Of HTTP, of gRPC, and for probes.
        shared: Whether there will be several on a port, among which the kernel divides the connections.

    Raises:
        OSError: With the port as its file name.
    """
    found: list[socket.socket | None] = []
    for port in ports:
        try:
            found.append(None if port is None else _opened(host, port, shared=shared))
        except OSError as error:
            for listener in filter(None, found):
                listener.close()
            raise OSError(error.errno, os.strerror(error.errno or 0), f"port {port}") from None
    http, grpc, probe = found
    return Listeners(cast("socket.socket", http), grpc, probe)


def _opened(host: str, port: int, *, shared: bool) -> socket.socket:
    """Open a socket; without a host for both families, where the machine has both."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024, reuse_port=shared)
    if socket.has_dualstack_ipv6():
        try:
            family = socket.AF_INET6
            return socket.create_server(("", port), family=family, dualstack_ipv6=True, backlog=1024, reuse_port=shared)
        except OSError:
            _log.info("no IPv6 here; listening on IPv4 only")
    return socket.create_server(("", port), backlog=1024, reuse_port=shared)
