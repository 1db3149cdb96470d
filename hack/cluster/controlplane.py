"""A control plane for tests: etcd, API server and controller-manager, on free ports, in a folder of its own.

The real programs with the arguments of the local cluster, but no node: pods are objects, and whoever uses it
plays what runs in them. It stands beside any other cluster, needs no privileges, and ends with its user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster import api, pki, render
from cluster.components import Component, Machine, Programs, components
from cluster.layout import Layout, Ports
from cluster.local import environment_for, last_words, write
from tools import gobuild
from tools.catalogue import GO_TOOLS
from tools.refusal import Refused

ADDRESS = "127.0.0.1"
PREFIX = "slipway-control-plane-"
READY_SECONDS = 90.0
TOOLS = ("kubernetes", "etcd")
CERTIFICATES = frozenset(
    {
        "apiserver",
        "etcd-server",
        "etcd-client",
        "front-proxy-client",
        "admin",
        "apiserver-kubelet",
        "controller-manager",
    }
)
MORE = {
    # Nothing here is worth more than the run that it belongs to.
    "etcd": ("--unsafe-no-fsync",),
    # The address of the Service kubernetes cannot be on loopback, and nobody asks for it.
    "kube-apiserver": (f"--bind-address={ADDRESS}", "--endpoint-reconciler-type=none"),
    "kube-controller-manager": (),
}


@dataclass
class ControlPlane:
    """A control plane that runs."""

    machine: Machine
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{ADDRESS}:{self.machine.ports.apiserver}"

    @property
    def authority(self) -> Path:
        """Certificate that the API server's comes from."""
        return self.machine.layout.pki / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.machine.layout.etc / "admin.kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the API server's version."""
        return Path(self.machine.programs["kubectl"])

    def memory(self) -> dict[str, float]:
        """MiB of each process (RSS)."""
        return {name: _resident(process.pid) for name, process in self.processes.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time that each process has used."""
        return {name: cpu_seconds(process.pid) for name, process in self.processes.items()}

    def start(self) -> None:
        """Start all parts in their order.

        Raises:
            Refused: One does not get ready; its log is named.
        """
        for part in components(self.machine):
            if part.name in MORE:
                self._start(part)
                self._wait(part)

    def stop(self) -> None:
        """End every process at once: nothing of it is needed any more."""
        for process in reversed(self.processes.values()):
            process.kill()
        for process in self.processes.values():
            process.wait()

    def _start(self, part: Component) -> None:
        layout = self.machine.layout
        with (layout.logs / f"{part.name}.log").open("ab") as log:
            self.processes[part.name] = subprocess.Popen(
                # A test run that is killed takes its control plane with it.
                ["setpriv", "--pdeathsig", "KILL", "--", *part.arguments, *MORE[part.name]],
                cwd=layout.root,
                env=environment_for(os.environ, ADDRESS),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, part: Component) -> None:
        log = self.machine.layout.logs / f"{part.name}.log"
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready(part):
            if self.processes[part.name].poll() is not None:
                raise Refused(f"{part.name} ended as soon as it was started: {last_words(log)}")
            if time.monotonic() > deadline:
                raise Refused(f"{part.name} is not ready after {READY_SECONDS:.0f} s: {last_words(log)}")
            time.sleep(0.05)

    def _is_ready(self, part: Component) -> bool:
        if part.ready:
            return api.answers(self.machine.layout, part.ready)
        return all(_listens(address, port) for address, port in part.ports)


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Start a control plane; stop it and remove all of it in the end.

    Raises:
        Refused: With what a person must change.
    """
    built: dict[str, Path] = {}
    for name in TOOLS:
        tool = GO_TOOLS[name]
        folder = gobuild.ensure(tool)
        built |= {program: folder / program for program in (*tool.programs, *tool.links)}
    _sweep()
    root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    layout = Layout(root)
    plane = ControlPlane(Machine(layout, Programs(built, {}), ADDRESS, _free_ports()))
    try:
        layout.make_folders()
        pki.ensure(layout.pki, ADDRESS, only=CERTIFICATES)
        for user in ("admin", "controller-manager"):
            write(layout.etc / f"{user}.kubeconfig", render.kubeconfig(layout, user, plane.server))
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(root, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of runs that were killed; their processes went with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _free_ports() -> Ports:
    names = ("etcd", "etcd_peer", "apiserver", "controller_manager")
    with contextlib.ExitStack() as held:
        # All are held at once, so that no two are the same.
        sockets = {name: held.enter_context(socket.socket()) for name in names}
        for each in sockets.values():
            each.bind((ADDRESS, 0))
        return Ports(**{name: int(each.getsockname()[1]) for name, each in sockets.items()})


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
