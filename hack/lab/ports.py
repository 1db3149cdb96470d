"""Ports for servers that are told theirs."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

_EACH = 1000
_NUMBERS = itertools.count(random.randrange(_EACH))  # noqa: S311 - two runs side by side seldom meet


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of this machine that nobody listens on, for a server that is told its port.

    Below what the kernel gives to who asks for any port (from 32768), and for each process of pytest-xdist others:
    until the server has started, nobody else comes by it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw"))
    first = 12_000 + _EACH * worker
    while True:
        port = first + next(_NUMBERS) % _EACH
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                free.bind((address, port))
                return port
