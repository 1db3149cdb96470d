"""Real repositories behind real servers on this machine, and a Job's folders."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.ports import free_port
from slipway_operator.builder.workplace import Workplace

WHO = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@airline.test",
    "GIT_AUTHOR_DATE": "2026-11-22T12:00:00Z",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@airline.test",
    "GIT_COMMITTER_DATE": "2026-11-22T12:00:00Z",
}
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    **WHO,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C.UTF-8",
}
USER, PASSWORD = "reader", "p@ss word'"


def run(*command: str | Path, given: bytes = b"") -> str:
    done = subprocess.run(command, env=ENVIRONMENT, input=given, check=True, capture_output=True)
    return done.stdout.decode().strip()


class Repo:
    """A repository with a work tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, given: bytes = b"") -> str:
        return run("git", "-C", self.root, *arguments, given=given)

    def write(self, path: str, content: bytes | str = "x") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")


def fill(repo: Repo) -> None:
    """A project as people have them: folders, a program, a link, bytes of all kinds, attributes that change files."""
    repo.write("README.md", "flights\r\n")
    repo.write(".gitattributes", "*.md text eol=crlf\nsecret export-ignore\n*.ident ident\n")
    repo.write("secret", "is part of the commit")
    repo.write("v.ident", "$Id$\n")
    repo.write("model/train.py", "print('fit')\n").chmod(0o755)
    repo.write("model/data/flüge.bin", bytes(range(256)) * 500)
    repo.write("model/uv.lock", "version = 1\n")
    repo.write("model/empty", "")
    (repo.root / "model" / "latest").symlink_to("data/flüge.bin")
    repo.commit("first")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    root = tmp_path / "job"
    for name in ("work", "handover", "settings", "secrets"):
        (root / name).mkdir(parents=True)
    return Workplace(
        work=root / "work",
        handover=root / "handover",
        settings=root / "settings",
        secrets=root / "secrets",
        variables={"PATH": os.environ["PATH"]},
    )


@pytest.fixture
def secret(place: Workplace) -> Callable[..., None]:
    """Mount a source Secret with these keys (``ssh_privatekey`` for ``ssh-privatekey``)."""

    def mount(**keys: str) -> None:
        folder = place.secrets / "source"
        folder.mkdir(exist_ok=True)
        for name, value in keys.items():
            (folder / name.replace("ssh_", "ssh-")).write_text(value)

    return mount


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with one commit of a project."""
    made = Repo(tmp_path / "repo")
    fill(made)
    return made


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a Python program of some name first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, code: str) -> None:
        (folder / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    return free_port()


@contextmanager
def serving(command: Callable[[int], Sequence[str]]) -> Iterator[int]:
    """Run a server until it is not needed any more; gives its port."""
    port = free_port()
    process = subprocess.Popen(
        command(port),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                threading.Event().wait(0.02)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repositories: ``flights`` (main, tag v1.0.0, a branch of two more commits) and ``empty``."""
    root = tmp_path_factory.mktemp("git")
    flights = Repo(root / "flights")
    fill(flights)
    flights.git("tag", "--annotate", "-m", "first", "v1.0.0")
    flights.git("checkout", "--quiet", "-b", "feature/delay")
    for message in ("second", "third"):
        flights.write("model/train.py", f"print('{message} fit')\n")
        flights.commit(message)
    flights.git("checkout", "--quiet", "main")
    Repo(root / "empty")
    return root


@pytest.fixture(scope="session")
def commit_of(projects: Path) -> Callable[[str], str]:
    """Full name of a commit of ``flights``."""
    return lambda name: run("git", "-C", projects / "flights", "rev-parse", f"{name}^{{commit}}")


@pytest.fixture(scope="session")
def git_url(projects: Path) -> Iterator[str]:
    """Prefix of the repositories' addresses at a git daemon."""

    def command(port: int) -> list[str]:
        where = ["--listen=127.0.0.1", f"--port={port}", f"--base-path={projects}"]
        return ["git", "daemon", "--reuseaddr", "--export-all", *where]

    with serving(command) as port:
        yield f"git://127.0.0.1:{port}"


class WebServer(ThreadingHTTPServer):
    """Serves repositories over HTTP, below ``/open`` to all and below ``/private`` with a password."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.seen: list[str | None] = []
        self.elsewhere = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def _answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _serve(self) -> None:
        authorization = self.headers.get("Authorization")
        self.server.seen.append(authorization)
        path, _, query = self.path.partition("?")
        area, _, rest = path.lstrip("/").partition("/")
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if area == "elsewhere":
            self._answer(302, {"Location": f"{self.server.elsewhere}/private/{rest}?{query}"})
        elif area in {"403", "503"}:
            self._answer(int(area), {})
        elif area == "private" and authorization != expected:
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
        else:
            self._backend(f"/{rest}", query)

    def _backend(self, path: str, query: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        variables = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=variables, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n") if line)
        self._answer(int(headers.pop("Status", "200").split()[0]), headers, content)


@contextmanager
def web_server(root: Path) -> Iterator[WebServer]:
    with WebServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web(projects: Path) -> Iterator[WebServer]:
    with web_server(projects) as server:
        yield server


@pytest.fixture
def other_web(projects: Path) -> Iterator[WebServer]:
    with web_server(projects) as server:
        yield server


@pytest.fixture(scope="session")
def svn_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prefix of two Subversion repositories' addresses, ``open`` and ``private``, each with three revisions."""
    root, tree = tmp_path_factory.mktemp("svn"), tmp_path_factory.mktemp("tree")
    (tree / "trunk" / "data").mkdir(parents=True)
    (tree / "trunk" / "train.py").write_text("print('fit $Revision$')\n")
    (tree / "trunk" / "train.py").chmod(0o755)
    (tree / "trunk" / "data" / "flüge.csv").write_text("a,b\n1,2\n")
    (tree / "trunk" / "latest").symlink_to("data/flüge.csv")
    first = root / "open"
    run("svnadmin", "create", first)
    local, copy = f"file://{first}", tmp_path_factory.mktemp("copy") / "work"
    run("svn", "import", "--quiet", "-m", "first", tree, local)
    run("svn", "checkout", "--quiet", local, copy)
    run("svn", "propset", "--quiet", "svn:keywords", "Revision", copy / "trunk" / "train.py")
    run("svn", "propset", "--quiet", "svn:externals", f"{local}/trunk/data other", copy / "trunk")
    run("svn", "commit", "--quiet", "-m", "second", copy)
    run("svn", "delete", "--quiet", "-m", "third", f"{local}/trunk/data/flüge.csv", f"{local}/trunk/latest")
    run("svnadmin", "hotcopy", first, root / "private")
    (first / "conf" / "svnserve.conf").write_text("[general]\nanon-access = read\n")
    (root / "private" / "conf" / "svnserve.conf").write_text(
        "[general]\nanon-access = none\nauth-access = read\npassword-db = passwd\n"
    )
    (root / "private" / "conf" / "passwd").write_text(f"[users]\n{USER} = {PASSWORD}\n")

    def command(port: int) -> list[str]:
        where = ["--listen-host", "127.0.0.1", "--listen-port", str(port), "--root", str(root)]
        return ["svnserve", "--daemon", "--foreground", *where]

    with serving(command) as port:
        yield f"svn://127.0.0.1:{port}"
