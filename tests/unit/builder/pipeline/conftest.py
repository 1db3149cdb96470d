"""Real servers on loopback for the builder's whole way: Git, a registry, a package index."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import servers
from lab.ports import free_port
from lab.projects import packed
from slipway_operator.builder.workplace import Limits, Workplace


def program(name: str) -> str:
    """Path of a program that these tests need; the test is skipped where it is not installed."""
    found = name if Path(name).exists() else servers.find_program(name)
    if found is None:
        pytest.skip(f"{name} is not installed (make tools)")
    return found


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    return free_port()


def git(folder: Path, *arguments: str) -> str:
    """Run git as a developer would, without this machine's own settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    }
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@dataclass
class Origin:
    """A bare repository that is served, and a work tree to commit from."""

    root: Path
    name: str = "project"
    url: str = ""

    @property
    def tree(self) -> Path:
        return self.root / f"{self.name}.work"

    @property
    def bare(self) -> Path:
        return self.root / "served" / f"{self.name}.git"

    def create(self) -> None:
        self.tree.mkdir(parents=True)
        git(self.tree, "init", "--quiet", "--initial-branch=main", ".")
        self.bare.parent.mkdir(parents=True, exist_ok=True)
        git(self.tree, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))

    def write(self, path: str, content: bytes | str = "x\n") -> None:
        target = self.tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str = "change", *, ref: str = "main") -> str:
        git(self.tree, "add", "--all", ".")
        git(self.tree, "commit", "--quiet", "--allow-empty", "-m", message)
        git(self.tree, "push", "--quiet", "--force", str(self.bare), f"HEAD:refs/heads/{ref}")
        return git(self.tree, "rev-parse", "HEAD")


@pytest.fixture(scope="session")
def git_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A git:// server: the folder with its repositories, and its URL."""
    program("git")
    root = tmp_path_factory.mktemp("git")
    (root / "served").mkdir()
    port = free_port()
    command = ["git", "daemon", f"--base-path={root / 'served'}", "--export-all", "--reuseaddr"]
    with servers.serving([*command, "--listen=127.0.0.1", f"--port={port}"], port, root):
        yield root, f"git://127.0.0.1:{port}"


@pytest.fixture
def origin(git_daemon: tuple[Path, str], request: pytest.FixtureRequest) -> Origin:
    """An empty repository of this test's own, served over git://."""
    root, url = git_daemon
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    made = Origin(root=root, name=name, url=f"{url}/{name}.git")
    made.create()
    return made


@contextmanager
def http_server(handler: Callable[..., Any]) -> Iterator[str]:
    """Serve with a handler in a thread; gives the URL without a slash."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A container's folders."""
    return make_place(tmp_path)


def make_place(root: Path, *, limits: Limits | None = None, **variables: str) -> Workplace:
    for name in ("work", "handover", "settings", "secrets"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return Workplace(
        work=root / "work",
        handover=root / "handover",
        settings=root / "settings",
        secrets=root / "secrets",
        limits=limits or Limits(),
        variables={"PATH": os.environ["PATH"], **variables},
    )


def add_secret(place: Workplace, kind: str, **keys: str) -> None:
    folder = place.secrets / kind
    folder.mkdir(exist_ok=True)
    for name, value in keys.items():
        (folder / name.replace("_dot_", ".").replace("privatekey", "-privatekey")).write_text(value)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback: ``127.0.0.1:port``. crane is put on the PATH."""
    crane = Path(program("crane"))
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{crane.parent}:{before}"
    try:
        with registry_in(tmp_path_factory.mktemp("registry")) as address:
            yield address
    finally:
        os.environ["PATH"] = before


def registry_in(root: Path, *, deletes: bool = False, users: str = "") -> AbstractContextManager[str]:
    """A registry while the block runs, as `lab.servers.registry` has it."""
    return servers.registry(program("docker-registry"), root, deletes=deletes, users=users)


@dataclass
class Index:
    """A package index in a folder, as PEP 503 has it."""

    root: Path
    url: str = ""
    hashes: dict[str, str] = field(default_factory=dict)

    def add(self, project: str, name: str, content: bytes) -> str:
        """Publish a file; returns its hash as requirements have it."""
        folder = self.root / "simple" / project
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        page = folder / "index.html"
        before = page.read_text() if page.exists() else ""
        page.write_text(f'{before}<a href="{name}#sha256={digest}">{name}</a>\n')
        self.hashes[name] = f"sha256:{digest}"
        return f"sha256:{digest}"

    def add_wheel(self, project: str, version: str = "1.0", *, tag: str = "py3-none-any", **files: str) -> str:
        """Publish a wheel with one module, and what else ``files`` says."""
        path = self.root / "wheel.zip"
        info = f"{project}-{version}.dist-info"
        contents = {
            f"{project}.py": f"VERSION = {version!r}\n",
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{project}-run = {project}:main\n",
        }
        contents[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*contents, f"{info}/RECORD"])
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in contents.items():
                wheel.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
        return self.add(project, f"{project}-{version}-{tag}.whl", path.read_bytes())


_BACKEND = """
import pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "fromsource-VERSION.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder) / "fromsource-VERSION-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fromsource.py", "")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: fromsource\\nVersion: VERSION\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "fromsource-VERSION-py3-none-any.whl"
"""


def sdist(version: str) -> bytes:
    """The source archive of the package ``fromsource``, which brings its own build backend."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": _BACKEND.replace("VERSION", version),
    }
    return packed(f"fromsource-{version}", files)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An empty package index that is served."""
    root = tmp_path / "index"
    (root / "simple").mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http_server(functools.partial(Quiet, directory=str(root))) as url:
        yield Index(root=root, url=f"{url}/simple")
