"""Archives of sources on their way from the index: what breaks off, and what is for another interpreter."""

from __future__ import annotations

import http.server
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway_operator.builder import sdists
from slipway_operator.builder.environment import Environment
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.requirements import Requirements, parse
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Interpreter

from .conftest import Index, http_server, make_place, sdist

PYTHON = Interpreter(python="3.11", base=f"base@sha256:{'0' * 64}", tools=f"tools@sha256:{'0' * 64}")


def end(connection: socket.socket) -> None:
    """As a server that ends its answer here."""
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """As a load balancer that forgets the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Breaking(http.server.BaseHTTPRequestHandler):
    """Sends the head of an archive, by the request's path, and breaks off."""

    def do_GET(self) -> None:
        how, *_ = self.path.strip("/").split("/")
        if how == "no-answer":
            return reset(self.connection)
        chunked = how == "chunked"
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100000")))
        self.end_headers()
        self.wfile.write(b"%x\r\n" % 100_000 if chunked else b"")
        self.wfile.write(b"x" * 5000)
        self.wfile.flush()
        self.close_connection = True
        return reset(self.connection) if how == "reset" else end(self.connection)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def breaking() -> Iterator[str]:
    Breaking.protocol_version = "HTTP/1.1"
    with http_server(Breaking) as url:
        yield url


def download(lock: Requirements, place: Workplace) -> Environment:
    environment = Environment(place=place, interpreter=PYTHON)
    environment.create()
    sdists.download(["fromsource"], lock, environment)
    return environment


@pytest.mark.parametrize("how", ["short", "chunked", "reset", "no-answer"])
def test_a_download_that_breaks_off_is_tried_again_and_held_against_nobody(breaking: str, place: Workplace, how: str):
    lock = f"fromsource @ {breaking}/{how}/fromsource-2.0.tar.gz --hash=sha256:{'a' * 64}\n"

    with pytest.raises(StepFailed) as failed:
        download(parse(lock, "requirements.txt"), place)

    assert (failed.value.reason, failed.value.retry) == ("IndexUnavailable", True), failed.value.message


def test_a_whole_download_of_other_bytes_is_a_change(index: Index, place: Workplace):
    index.add("fromsource", "fromsource-2.0.tar.gz", sdist("2.0"))
    lock = f"fromsource @ {index.url}/fromsource/fromsource-2.0.tar.gz --hash=sha256:{'a' * 64}\n"

    with pytest.raises(StepFailed) as failed:
        download(parse(lock, "requirements.txt"), place)

    assert (failed.value.reason, failed.value.retry) == ("HashMismatch", False), failed.value.message


def test_of_two_versions_in_a_lock_for_many_interpreters_the_one_for_this_is_built(index: Index, tmp_path: Path):
    old, new = (index.add("fromsource", f"fromsource-{v}.tar.gz", sdist(v)) for v in ("1.0", "2.0"))
    lock = (
        f"fromsource==1.0 ; python_full_version < '3.11' --hash={old}\n"
        f"fromsource==2.0 ; python_full_version >= '3.11' and sys_platform == 'linux' --hash={new}\n"
        f"fromsource==2.0 ; python_full_version >= '3.11' and sys_platform != 'linux' --hash={new}\n"
    )
    place = make_place(tmp_path, UV_DEFAULT_INDEX=index.url)

    environment = download(parse(lock, "requirements.txt"), place)
    sdists.build(environment)

    assert [path.name for path in environment.root.glob("lib/*/site-packages/fromsource-*")] == [
        "fromsource-2.0.dist-info"
    ]
