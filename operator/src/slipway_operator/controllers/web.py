"""The operator's small web server: is it alive, is it ready, and a few numbers.

It answers from a thread of its own: on a node without a free processor the event loop
has a queue, and a probe that waits in it would end a process that does its work. That
the loop turns at all is part of what ``alive`` says.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8081

Page = Callable[[], tuple[int, str]]


class Web:
    """Serves pages until closed."""

    def __init__(self, pages: Mapping[str, Page], port: int) -> None:
        """Start serving.

        Args:
            pages: Status and text by path.
            port: Port on all addresses; 0: any free one.
        """
        try:
            self._server: _Server = _DualStackServer(("::", port), _handler(pages))
        except OSError:
            # A node without IPv6.
            self._server = _Server(("", port), _handler(pages))
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def health(good: Callable[[], bool], yes: str, no: str) -> Page:
    """A page for a probe."""

    def page() -> tuple[int, str]:
        return (200, yes) if good() else (503, no)

    return page


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _DualStackServer(_Server):
    """On IPv6 and, by addresses that stand for it, on IPv4: a cluster may have either alone."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _handler(pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            page = pages.get(self.path)
            status, text = page() if page is not None else (404, "there are /healthz, /readyz and /metrics")
            body = (text.rstrip("\n") + "\n").encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are no news."""

    return Handler
