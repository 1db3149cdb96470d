"""Servers for tests, on loopback unless another address is named: any program that listens, and a registry."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.ports import free_port

LOOPBACK = "127.0.0.1"
_DEADLINE = 20.0


def find_program(name: str) -> str | None:
    """Path of a program on the PATH or among the project's own tools."""
    # The folders of servers are not on everybody's PATH.
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is not None:
        return found
    cache = Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway")
    cached = sorted([*cache.glob(f"{name}-*/{name}"), *cache.glob(f"{name}-*/bin/{name}")])
    return str(cached[-1]) if cached else None


@contextmanager
def serving(command: Sequence[str], port: int, folder: Path, *, address: str = LOOPBACK) -> Iterator[None]:
    """Run a server while the block runs; returns once its port answers.

    Raises:
        RuntimeError: It does not start; the message ends with its last words.
    """
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _DEADLINE
            while True:
                try:
                    socket.create_connection((address, port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        words = (folder / "server.log").read_text()[-500:]
                        raise RuntimeError(f"{command[0]} did not start: {words}") from None
                    threading.Event().wait(0.02)
            yield
        finally:
            process.terminate()
            process.wait()


@contextmanager
def registry(server: str, folder: Path, *, host: str = "", deletes: bool = False, users: str = "") -> Iterator[str]:
    """Run a registry of plain HTTP; gives its ``address:port``.

    Args:
        server: The program docker-registry.
        folder: For its configuration, and its content below ``data``.
        host: Address and port; empty: loopback, and a port that is free.
        deletes: Whether it lets anybody delete.
        users: Lines of an htpasswd file; empty: everybody may do everything.
    """
    (folder / "htpasswd").write_text(users)
    access = f"auth: {{htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}}}\n" if users else ""
    host = host or f"{LOOPBACK}:{free_port(LOOPBACK)}"
    address, _, port = host.rpartition(":")
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, delete: {{enabled: {str(deletes).lower()}}}}}\n"
        f'http: {{addr: "{host}", secret: tests}}\n{access}'
    )
    with serving([server, "serve", str(config)], int(port), folder, address=address):
        yield host
