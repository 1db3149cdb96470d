"""The processes of the cluster: which program with which arguments, in which order, and when each is ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import NODE, PORTS, SERVICE_NETWORK, Layout, Ports


@dataclass(frozen=True)
class Programs:
    """Where each program is: built ones in the cache, Debian's in the system."""

    built: dict[str, Path]
    system: dict[str, Path]

    def __getitem__(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.built.get(name) or self.system.get(name) or name)


@dataclass(frozen=True)
class Machine:
    """What a component's arguments depend on."""

    layout: Layout
    programs: Programs
    node_ip: str
    ports: Ports = PORTS
    """A cluster for tests has ports of its own."""

    @property
    def registry(self) -> str:
        """The registry's prefix, one for node and pods."""
        return f"{self.node_ip}:{self.ports.registry}"


@dataclass(frozen=True, kw_only=True)
class Component:
    """One process."""

    name: str
    arguments: tuple[str, ...]
    stage: int
    """Those of one stage start together, once all of the stage before are ready."""
    ports: tuple[tuple[str, int], ...]
    """Address and port that it listens on."""
    ready: str = ""
    """URL that answers 200 when it is ready; empty: a listening port is enough."""
    configuration: tuple[Path, ...] = ()
    """Files that it reads once, at its start."""


FOUNDATIONS, CONTROL_PLANE, NODE_PARTS, HELPERS = 1, 2, 3, 4


def components(machine: Machine) -> Iterator[Component]:
    """Yield every component in the order of their start."""
    yield from _foundations(machine)
    yield _apiserver(machine)
    yield from _controllers(machine)
    yield from _node(machine)
    yield from _helpers(machine)


def _foundations(machine: Machine) -> Iterator[Component]:
    layout, programs, ports = machine.layout, machine.programs, machine.ports
    pki = layout.pki
    yield Component(
        name="etcd",
        stage=FOUNDATIONS,
        arguments=(
            programs["etcd"],
            f"--data-dir={layout.root / 'etcd'}",
            f"--listen-client-urls=https://127.0.0.1:{ports.etcd}",
            f"--advertise-client-urls=https://127.0.0.1:{ports.etcd}",
            # One member has no peers; the port is opened all the same, so it gets the same certificate.
            f"--listen-peer-urls=https://127.0.0.1:{ports.etcd_peer}",
            f"--initial-advertise-peer-urls=https://127.0.0.1:{ports.etcd_peer}",
            f"--initial-cluster=default=https://127.0.0.1:{ports.etcd_peer}",
            *(f"--{peer}cert-file={pki / 'etcd-server.crt'}" for peer in ("", "peer-")),
            *(f"--{peer}key-file={pki / 'etcd-server.key'}" for peer in ("", "peer-")),
            *(f"--{peer}trusted-ca-file={pki / 'etcd-ca.crt'}" for peer in ("", "peer-")),
            "--client-cert-auth",
            "--peer-client-cert-auth",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
        ),
        ports=(("127.0.0.1", ports.etcd), ("127.0.0.1", ports.etcd_peer)),
    )
    yield Component(
        name="containerd",
        stage=FOUNDATIONS,
        arguments=(programs["containerd"], "--config", str(layout.etc / "containerd.toml"), "--log-level", "warn"),
        ports=(),
        configuration=(layout.etc / "containerd.toml",),
    )
    yield Component(
        name="registry",
        stage=FOUNDATIONS,
        arguments=(programs["docker-registry"], "serve", str(layout.etc / "registry.json")),
        ports=((machine.node_ip, ports.registry),),
        ready=f"http://{machine.registry}/v2/",
        configuration=(layout.etc / "registry.json",),
    )


def _apiserver(machine: Machine) -> Component:
    pki, ports = machine.layout.pki, machine.ports
    return Component(
        name="kube-apiserver",
        stage=CONTROL_PLANE,
        arguments=(
            machine.programs["kube-apiserver"],
            f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
            f"--etcd-cafile={pki / 'etcd-ca.crt'}",
            f"--etcd-certfile={pki / 'etcd-client.crt'}",
            f"--etcd-keyfile={pki / 'etcd-client.key'}",
            f"--secure-port={ports.apiserver}",
            f"--advertise-address={machine.node_ip}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-account.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # Metrics are served by a process on the node: a Service's address leads nowhere from here.
            "--enable-aggregator-routing=true",
            "--shutdown-delay-duration=0s",
            f"--cert-dir={machine.layout.run / 'apiserver'}",
        ),
        ports=((machine.node_ip, ports.apiserver),),
        ready=f"https://127.0.0.1:{ports.apiserver}/readyz",
    )


def _controllers(machine: Machine) -> Iterator[Component]:
    layout, programs, ports = machine.layout, machine.programs, machine.ports
    pki = layout.pki
    for name, port in (("controller-manager", ports.controller_manager), ("scheduler", ports.scheduler)):
        own = layout.etc / f"{name}.kubeconfig"
        more: tuple[str, ...] = ()
        if name == "controller-manager":
            more = (
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--service-account-private-key-file={pki / 'service-account.key'}",
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                "--use-service-account-credentials=true",
            )
        yield Component(
            name=f"kube-{name}",
            stage=NODE_PARTS,
            arguments=(
                programs[f"kube-{name}"],
                f"--kubeconfig={own}",
                f"--authentication-kubeconfig={own}",
                f"--authorization-kubeconfig={own}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--cert-dir={layout.run / name}",
                "--leader-elect=false",  # one of each: an election would only delay the start
                *more,
            ),
            ports=(("127.0.0.1", port),),
            ready=f"https://127.0.0.1:{port}/healthz",
        )


def _node(machine: Machine) -> Iterator[Component]:
    layout, programs, ports = machine.layout, machine.programs, machine.ports
    yield Component(
        name="kubelet",
        stage=NODE_PARTS,
        arguments=(
            programs["kubelet"],
            f"--config={layout.etc / 'kubelet.json'}",
            f"--kubeconfig={layout.etc / 'kubelet.kubeconfig'}",
            f"--hostname-override={NODE}",
            f"--node-ip={machine.node_ip}",
            f"--root-dir={layout.kubelet}",
        ),
        ports=((machine.node_ip, ports.kubelet), ("127.0.0.1", ports.kubelet_health)),
        ready=f"http://127.0.0.1:{ports.kubelet_health}/healthz",
        configuration=(layout.etc / "kubelet.json",),
    )
    yield Component(
        name="kube-proxy",
        stage=NODE_PARTS,
        arguments=(
            programs["kube-proxy"],
            f"--config={layout.etc / 'kube-proxy.json'}",
            f"--hostname-override={NODE}",
        ),
        ports=(("127.0.0.1", ports.proxy_health), ("127.0.0.1", ports.proxy_metrics)),
        ready=f"http://127.0.0.1:{ports.proxy_health}/healthz",
        configuration=(layout.etc / "kube-proxy.json",),
    )


def _helpers(machine: Machine) -> Iterator[Component]:
    layout, programs, ports = machine.layout, machine.programs, machine.ports
    pki, etc = layout.pki, layout.etc
    yield Component(
        name="coredns",
        stage=HELPERS,
        arguments=(programs["coredns"], "-conf", str(etc / "Corefile")),
        ports=((machine.node_ip, ports.dns), ("127.0.0.1", ports.dns_health), ("127.0.0.1", ports.dns_ready)),
        ready=f"http://127.0.0.1:{ports.dns_ready}/ready",
        configuration=(etc / "Corefile",),
    )
    yield Component(
        name="metrics-server",
        stage=HELPERS,
        arguments=(
            programs["metrics-server"],
            *(
                f"--{use}kubeconfig={etc / 'metrics-client.kubeconfig'}"
                for use in ("", "authentication-", "authorization-")
            ),
            f"--bind-address={machine.node_ip}",
            f"--secure-port={ports.metrics_server}",
            f"--tls-cert-file={pki / 'metrics-server.crt'}",
            f"--tls-private-key-file={pki / 'metrics-server.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=15s",
            f"--cert-dir={layout.run / 'metrics-server'}",
        ),
        ports=((machine.node_ip, ports.metrics_server),),
    )
    yield Component(
        name="provisioner",
        stage=HELPERS,
        arguments=(
            programs["provisioner"],
            f"--kubeconfig={etc / 'provisioner.kubeconfig'}",
            f"--root={layout.volumes}",
            f"--node={NODE}",
        ),
        ports=(),
    )
