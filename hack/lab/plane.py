"""A control plane with Slipway's kinds, roles and policies on it, and the operator as a process beside it.

The operator has the rights that the chart gives it and no others; a server in between can be named, which then
sees all that the operator asks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chart.__main__ import CHART, helm_template
from cluster.controlplane import ControlPlane, control_plane, cpu_seconds
from lab.kube import Kube, KubectlError, wait_for
from lab.ports import free_port

NAMESPACE = "slipway-system"
ACCOUNT = "slipway"
LEFT_OUT = frozenset({"Deployment", "NetworkPolicy"})
"""What the chart installs and nobody needs where there is no node."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """An API server that Slipway is installed on, for an operator on this machine."""

    kube: Kube
    server: str
    authority: Path
    """Certificate that the API server's comes from."""
    folder: Path
    """For files of a run; it goes with it."""
    settings: Path
    token: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """For names that nobody on this control plane has had before."""
    ends: dict[str, Any] = field(default_factory=dict)
    """What a flow that nothing disturbs was seen to end in."""
    has_nodes: bool = False
    """Pods run; else they are played."""

    def kubeconfig(self, server: str | None = None) -> Path:
        """The operator's kubeconfig, for the API server or what stands before it."""
        cluster: dict[str, Any] = {"server": server or self.server}
        if server is None:
            cluster["certificate-authority"] = str(self.authority)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plane", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": self.token}}],
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "operator"}}],
            "current-context": "plane",
        }
        path = self.folder / f"operator-{abs(hash(server)):x}.kubeconfig"
        # An operator that starts beside this one may be reading it.
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(content))
        fresh.replace(path)
        return path


@dataclass(frozen=True, kw_only=True)
class OwnPlane(Plane):
    """A control plane without nodes that was started for this run."""

    control: ControlPlane


@dataclass
class Operator:
    """The operator as a process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def kill(self) -> None:
        """End it as a node that fails does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as the kubelet does."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def is_ready(self) -> bool:
        """Whether it says so."""
        return _status(f"http://127.0.0.1:{self.port}/readyz") == 200

    def memory(self) -> dict[str, float]:
        """MiB: resident now, its share of it, and the most that was resident."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return {
            "rss": _kib(status, "VmRSS:") / 1024,
            "peakRss": _kib(status, "VmHWM:") / 1024,
            "pss": _kib(rollup, "Pss:") / 1024,
        }

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        return cpu_seconds(self.process.pid)

    def complaints(self) -> list[str]:
        """Lines of its log that tell of a bug: traces and errors. That a server is away and asked again is none."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "Request attempt #" not in line]
        return [line for line in lines if "Traceback" in line or '"level": "error"' in line or "never awaited" in line]


@contextlib.contextmanager
def slipway_plane() -> Iterator[OwnPlane]:
    """Start a control plane and install the chart's kinds, roles and policies."""
    with control_plane() as control:
        kube = Kube(control.kubeconfig, control.kubectl)
        folder = control.machine.layout.root
        values = yaml.safe_load((CHART / "ci" / "cluster-wide-values.yaml").read_text())
        # No node is there to be asked.
        path = folder / "values.json"
        path.write_text(json.dumps(values | {"modelDelivery": "ImageVolume"}))
        # Helm writes 1e-05, which YAML 1.2 reads as a number and PyYAML as text.
        text = helm_template(path).replace(" 1e-05", " 1.0e-05")
        rendered = [item for item in yaml.safe_load_all(text) if item]
        maps = [item["data"] for item in rendered if item["kind"] == "ConfigMap"]
        settings = next(data["settings.yaml"] for data in maps if "settings.yaml" in data)
        (folder / "settings.yaml").write_text(settings)
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        kube.apply(*(item for item in rendered if item["kind"] not in LEFT_OUT))
        kube.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        # The policies' part of the API server learns of a kind a moment after it is served.
        wait_for(lambda: _takes_resources(kube), seconds=60, what="the policies to know the kinds")
        token = kube.run("create", "token", ACCOUNT, "-n", NAMESPACE, "--duration=24h").strip()
        yield OwnPlane(
            kube=kube,
            server=control.server,
            authority=control.authority,
            folder=folder,
            settings=folder / "settings.yaml",
            token=token,
            control=control,
        )


def start_operator(plane: Plane, *, server: str | None = None, name: str = "operator") -> Operator:
    """Start the operator; its log goes on where one of that name ended."""
    port = free_port()
    log = plane.folder / "logs" / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "slipway_operator.controllers"],
            env={
                **os.environ,
                "KUBECONFIG": str(plane.kubeconfig(server)),
                "SLIPWAY_SETTINGS": str(plane.settings),
                "SLIPWAY_HEALTH_PORT": str(port),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Operator(process, port, log)


@contextlib.contextmanager
def operator_on(plane: Plane, *, server: str | None = None, name: str = "operator") -> Iterator[Operator]:
    """Run the operator for a while."""
    operator = start_operator(plane, server=server, name=name)
    try:
        wait_for(operator.is_ready, seconds=60, what="the operator to be ready", every=0.1)
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.kill()


def _takes_resources(kube: Kube) -> bool:
    one = {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "one", "namespace": "default"},
        "spec": {
            "source": {"git": {"url": "https://git.test/one.git", "ref": "v1"}},
            "model": {"path": "model.joblib", "example": "sample.csv"},
        },
    }
    try:
        kube.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(one))
    except KubectlError:
        return False
    return True


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - the operator's own port on loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)
    except OSError:
        return 0


def _kib(text: str, field: str) -> int:
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1])
