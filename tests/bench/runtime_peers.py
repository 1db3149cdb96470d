"""The servers that `bench_runtime.py` compares: how each is installed, started and asked.

Each peer has an environment of its own in the cache, made by uv from a locked, hashed list of
requirements under ``peers/``; nothing of it is in the workspace's lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from tests.bench import runtime_everything
from tests.bench.runtime_models import BenchModel

PEERS = Path(__file__).parent / "peers"
CACHE = Path(os.environ.get("SLIPWAY_CACHE", str(Path.home() / ".cache" / "slipway"))) / "bench"
SERVER_CORE, CLIENT_CORE = "0", "1"
START_SECONDS = 40.0


class Ports(NamedTuple):
    """Where a server is asked."""

    http: int
    grpc: int


Command = Callable[[str, BenchModel, Ports, Path], list[str]]
"""Python, model, ports and a folder for settings to a command."""


@dataclass(frozen=True, eq=False)
class Peer:
    """One server."""

    name: str
    requirements: str
    """Name of its environment; empty: the workspace's."""
    command: Command
    path: str = "/v2/models/bench/infer"
    plain: bool = False
    """Whether it takes rows as lists instead of the protocol's tensors."""
    table_path: str = ""
    """Where it takes rows as objects instead, of a model with strings."""
    table_requirements: str = ""
    """Name of its environment then, if it is another one: with pandas."""
    wants_hints: bool = False
    """Whether parameters must say how it has to read tensors of strings."""
    is_limit: bool = False
    """Whether it answers the same whatever it is asked."""
    is_secure: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def serves_from(self, model: BenchModel) -> str:
        """Give the name of the environment that serves a model."""
        return self.requirements if model.is_matrix else self.table_requirements or self.requirements


def slipway(*more: str) -> Command:
    """Give the command of the runtime, with further arguments."""

    def command(python: str, model: BenchModel, ports: Ports, _: Path) -> list[str]:
        start = [python, "-m", "slipway_runtime", "--model-dir", str(model.folder), "--name", "bench"]
        start += ["--version", "v1", "--model-digest", model.digest, "--host", "127.0.0.1"]
        return [*start, "--port", str(ports.http), "--grpc-port", str(ports.grpc), *more]

    return command


def _with_everything(python: str, model: BenchModel, ports: Ports, folder: Path) -> list[str]:
    command = slipway(*runtime_everything.everything(folder))(python, model, ports, folder)
    return ["sh", "-c", 'exec "$@" > /dev/null', "sh", *command]  # gigabytes of access log, which others read in a pod


def _script(name: str) -> Command:
    return lambda python, _model, ports, _folder: [python, str(PEERS / name), *map(str, ports)]


def _mlserver(implementation: str, **settings: object) -> Command:
    def command(python: str, model: BenchModel, ports: Ports, folder: Path) -> list[str]:
        numbers = {"http_port": ports.http, "grpc_port": ports.grpc, "metrics_port": free_port(), "host": "127.0.0.1"}
        (folder / "settings.json").write_text(json.dumps({**numbers, **settings}))
        parameters = {"uri": str(model.folder / "model.joblib"), "version": "v1"}
        described = {"name": "bench", "implementation": implementation, "parameters": parameters}
        (folder / "model-settings.json").write_text(json.dumps(described))
        return [str(Path(python).parent / "mlserver"), "start", str(folder)]

    return command


def _bentoml(python: str, _model: BenchModel, ports: Ports, _folder: Path) -> list[str]:
    command = [str(Path(python).parent / "bentoml"), "serve", "serve_bentoml:Bench", "--working-dir", str(PEERS)]
    return [*command, "--port", str(ports.http), "--host", "127.0.0.1"]


SKLEARN = "mlserver_sklearn.SKLearnModel"
ONNX = {"PYTHONPATH": str(PEERS)}
PEER_LIST = (
    Peer("Slipway", "", slipway()),
    Peer("Slipway, all on", "", _with_everything, is_secure=True, headers=runtime_everything.HEADERS),
    Peer("MLServer, as installed", "mlserver", _mlserver(SKLEARN), wants_hints=True),
    Peer("MLServer, no workers", "mlserver", _mlserver(SKLEARN, parallel_workers=0, debug=False), wants_hints=True),
    Peer(
        "MLServer, ONNX Runtime",
        "mlserver",
        _mlserver("serve_mlserver_onnx.OnnxModel", parallel_workers=0, debug=False),
        environment=ONNX,
        wants_hints=True,
    ),
    Peer("KServe", "kserve", _script("serve_kserve.py")),
    Peer(
        "BentoML", "bentoml", _bentoml, "/predict", plain=True, table_path="/table", table_requirements="bentoml-table"
    ),
    Peer(
        "LitServe",
        "litserve",
        _script("serve_litserve.py"),
        "/predict",
        plain=True,
        table_path="/predict",
        table_requirements="litserve-table",
    ),
    Peer("FastAPI, joblib", "fastapi", _script("serve_fastapi.py"), "/predict", plain=True, table_path="/table"),
    Peer("uvicorn, raw ASGI", "asgi", _script("serve_asgi.py")),
    Peer("uvloop, hello", "", _script("serve_hello.py"), "/", is_limit=True),
)


def free_port() -> int:
    """Find a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_of(requirements: str) -> Path:
    """Make a peer's environment, if it is not in the cache; gives its interpreter.

    Raises:
        subprocess.CalledProcessError: If it cannot be installed here; ``stderr`` says why.
    """
    if not requirements:
        return Path(sys.executable)
    lock = PEERS / f"{requirements}.txt"
    folder = CACHE / requirements
    python = folder / "bin" / "python"
    mark = folder / ".installed"
    if mark.is_file() and mark.read_text() == lock.read_text():
        return python
    uv = os.environ["UV"]
    subprocess.run(
        [uv, "venv", "-q", "--clear", "--python", "3.11", str(folder)], check=True, capture_output=True, text=True
    )
    command = [uv, "pip", "sync", "-q", "--require-hashes", "--python", str(python), str(lock)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    mark.write_text(lock.read_text())
    return python


def environments() -> list[str]:
    """Name every environment that a peer needs."""
    return [*dict.fromkeys(name for peer in PEER_LIST for name in (peer.requirements, peer.table_requirements))]


@dataclass
class Running:
    """A server that answers."""

    peer: Peer
    model: BenchModel
    pid: int
    ports: Ports
    started: float
    """Seconds from the start of its process to the first right answer."""

    def url(self, *, grpc: bool = False) -> str:
        """Give where it is asked, up to the path."""
        return f"http{'s' * self.peer.is_secure}://127.0.0.1:{self.ports.grpc if grpc else self.ports.http}"

    @property
    def pids(self) -> list[int]:
        """Give its processes, itself first."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
        return found

    @property
    def cpu_seconds(self) -> float:
        """Give the processor time that its processes have used."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until it is done with what a client has left behind: it would take the next server's core."""
        end = time.perf_counter() + 5
        while time.perf_counter() < end:
            before = self.cpu_seconds
            time.sleep(0.03)
            if self.cpu_seconds - before < 0.015:
                return

    @property
    def megabytes(self) -> float:
        """Give the proportional share of memory of all its processes."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024


@contextlib.contextmanager
def serving(peer: Peer, model: BenchModel, is_right: Callable[[Ports], bool]) -> Iterator[Running]:
    """Run a server on its core until the block ends.

    Args:
        peer: Who serves.
        model: What it serves.
        is_right: Asks it, and tells whether it has answered, and rightly.

    Raises:
        RuntimeError: If it does not answer in time; the message ends with its last words.
    """
    python = environment_of(peer.serves_from(model))
    with tempfile.TemporaryDirectory(prefix="bench-runtime-") as name:
        folder = Path(name)
        ports = Ports(free_port(), free_port())
        own = {"BENCH_MODEL": str(model.folder / "model.joblib"), "BENCH_ONNX": str(model.folder / "model.onnx")}
        # Byte code is kept, as images have it; beside the packages, as those are others' too.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {
            **own,
            "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode"),
            "OMP_NUM_THREADS": "1",
            "BENTOML_DO_NOT_TRACK": "1",
            **peer.environment,
        }
        environment["PATH"] = f"{python.parent}:{environment['PATH']}"
        if not model.is_matrix and peer.plain:
            environment["PYTHONPATH"] = str(PEERS.parents[2] / "examples" / "flight-delay" / "src")
        command = ["taskset", "-c", SERVER_CORE, *peer.command(str(python), model, ports, folder)]
        with (folder / "log").open("wb") as log:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
            )
            try:
                while not is_right(ports):
                    if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                        raise RuntimeError(f"no right answer: {_tail(folder / 'log')}")
                    time.sleep(0.005)
                yield Running(peer, model, process.pid, ports, time.perf_counter() - began)
            finally:
                # Its whole session: some of them fork workers.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])[-400:]


def installed_megabytes(requirements: str) -> float:
    """Give the size of a peer's packages, byte code left out."""
    if not requirements:
        return _of_slipway()
    site = environment_of(requirements).parent.parent / "lib" / "python3.11" / "site-packages"
    return sum(
        file.stat().st_size for file in site.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    ) / (1 << 20)


def _of_slipway() -> float:
    """Give the size of the runtime and of what it needs; its environment here is the workspace's, which has more."""
    found: dict[str, int] = {}
    waiting = ["slipway-runtime"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            package = metadata.distribution(name)
            files = [Path(str(file.locate())) for file in package.files or () if "__pycache__" not in file.parts]
            found[name] = sum(file.stat().st_size for file in files if file.is_file())
            # Extras are not installed, nor is what other platforms need.
            needed = [Requirement(text) for text in package.requires or ()]
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    source = PEERS.parents[2] / "model-runtime" / "src"
    own = sum(file.stat().st_size for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return (sum(found.values()) + own) / (1 << 20)
