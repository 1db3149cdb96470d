"""Where the local cluster keeps what, and the numbers that its parts share."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

NODE = "slipway"
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
FALLBACK_ADDRESS = "10.243.0.1"
"""Given to loopback where the machine has no other address."""
CNI_NETWORK = "slipway"
NFT_TABLE = "slipway_cluster"
PAUSE_IMAGE = "slipway.local/pause:0.1.0"


@dataclass(frozen=True)
class Ports:
    """Every port that a component listens on, by the component."""

    etcd: int = 2379
    etcd_peer: int = 2380
    apiserver: int = 6443
    controller_manager: int = 10257
    scheduler: int = 10259
    kubelet: int = 10250
    kubelet_health: int = 10248
    proxy_health: int = 10256
    proxy_metrics: int = 10249
    registry: int = 5000
    dns: int = 10053
    dns_health: int = 10054
    dns_ready: int = 10055
    metrics_server: int = 10443


PORTS = Ports()


@dataclass(frozen=True)
class Layout:
    """The folders of one local cluster."""

    root: Path

    @classmethod
    def of_machine(cls) -> Layout:
        """Return the layout below ``SLIPWAY_CLUSTER_DIR``, by default ``/var/lib/slipway-cluster``."""
        return cls(Path(os.environ.get("SLIPWAY_CLUSTER_DIR") or "/var/lib/slipway-cluster").absolute())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, readable by root only."""
        return self.root / "admin.kubeconfig"

    @property
    def etc(self) -> Path:
        """Rendered configuration; written anew at every start."""
        return self.root / "etc"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        """One log for each component, and those of the pods."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What is worth nothing after a reboot: sockets, process records, containers' bundles."""
        return self.root / "run"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.run / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """The control group that holds every pod, and nothing else."""
        return f"slipway-cluster-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    @property
    def volumes(self) -> Path:
        """The folders behind persistent volume claims."""
        return self.root / "volumes"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root: pods' volumes are mounted below it."""
        return self.root / "kubelet"

    def make_folders(self) -> None:
        """Make the folders; only root may look inside."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)  # pods' volumes below are reached by other users
        for private in (self.pki, self.etc, self.run, self.root / "etcd"):
            private.mkdir(exist_ok=True, mode=0o700)
            private.chmod(0o700)
        for open_folder in (self.logs, self.volumes, self.kubelet, self.root / "registry", self.root / "containerd"):
            open_folder.mkdir(exist_ok=True)
            open_folder.chmod(0o755)  # whatever the caller's umask is
