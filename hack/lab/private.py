"""Sources beside public Git: a Git server that asks for a password, and a Subversion server."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.kube import wait_for
from lab.ports import free_port


class PrivateGit:
    """Serves the bare repositories of a folder over HTTP, to one user with one password."""

    def __init__(self, folder: Path, address: str, *, username: str, password: str) -> None:
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        handler = type("Handler", (_Handler,), {"folder": folder, "expected": f"Basic {token}"})
        self._server = ThreadingHTTPServer((address, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, name: str) -> str:
        """Return the URL of a repository."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/{name}.git"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Hands each request to `git http-backend`, as a web server would by CGI."""

    folder: Path
    expected: str

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.headers.get("Authorization") != self.expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "reader",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Stay silent: what counts is what the Job says."""


class Subversion:
    """A Subversion repository on this machine's address, readable by everybody."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._port = free_port(address)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the repository's root."""
        return f"svn://{self._address}:{self._port}/models"

    def __enter__(self) -> Self:
        subprocess.run(["svnadmin", "create", str(self._folder / "models")], check=True)
        command = ["svnserve", "--daemon", "--foreground", "--root", str(self._folder)]
        self._process = subprocess.Popen([*command, f"--listen-host={self._address}", f"--listen-port={self._port}"])
        wait_for(self._answers, seconds=10, what="svnserve")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)

    def publish(self, tree: Path, path: str) -> None:
        """Import a folder below a path, as one revision."""
        target = f"file://{self._folder / 'models'}/{path}"
        subprocess.run(["svn", "import", "-q", "-m", "Release", str(tree), target], check=True)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self._address, self._port)) == 0
