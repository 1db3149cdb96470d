"""Starts and stops the cluster on this machine, whatever state an earlier start, kill or reboot left it in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster import addons, api, cgroups, host, leftovers, pause_image, pki, render
from cluster.components import FOUNDATIONS, NODE_PARTS, Component, Machine, Programs, components
from cluster.layout import NODE, POD_NETWORK, PORTS, SERVICE_NETWORK, Layout
from cluster.processes import Records, stop
from tools import cache, debian, gobuild, say
from tools.catalogue import CLUSTER_PROGRAMS, GO_TOOLS
from tools.refusal import Refused

TOOLS = ("kubernetes", "etcd", "containerd", "coredns", "metrics-server", "provisioner", "pause")
READY_SECONDS = 120.0
USERS = (
    "admin",
    "controller-manager",
    "scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "metrics-client",
    "provisioner",
)


def records(layout: Layout) -> Records:
    """Return the records of this cluster's processes."""
    return Records(layout.run, str(layout.root))


def programs() -> Programs:
    """Make every program available.

    Raises:
        Refused: One cannot be installed or built here.
    """
    system = debian.ensure(CLUSTER_PROGRAMS)
    built: dict[str, Path] = {}
    for name in TOOLS:
        tool = GO_TOOLS[name]
        folder = gobuild.ensure(tool)
        built |= {program: folder / program for program in (*tool.programs, *tool.links)}
    return Programs(built, system)


def recorded_address(layout: Layout) -> str:
    """Return the node's address of the last start; empty where there was none."""
    return read(layout.root / "registry-prefix").decode().strip().rpartition(":")[0]


def registry_of(address: str) -> str:
    """Return the registry's prefix on a node of this address."""
    return f"{address}:{PORTS.registry}"


def up(layout: Layout) -> None:
    """Bring the cluster up, or what of it is missing.

    Raises:
        Refused: With what a person must change.
    """
    started = time.monotonic()
    host.check()
    host.check_disk(layout.root)
    found = programs()
    with exclusively(layout):
        if leftovers.remembered(layout) is None:
            # The first start, or the first after a reboot: what an earlier boot left is worth nothing.
            leftovers.sweep(layout)
            layout.make_folders()
            leftovers.remember_machine(layout)
        layout.make_folders()
        machine = Machine(layout, found, host.ensure_address())
        pki.ensure(layout.pki, machine.node_ip)
        configure(machine)
        cgroups.make(layout.cgroup)
        _prepare_network()
        _start(machine)
    say.line(f"✓ The cluster is up after {say.elapsed(time.monotonic() - started)}: Kubernetes on {machine.node_ip}.")
    say.line(f"  export KUBECONFIG={layout.kubeconfig} PATH={found.built['kubectl'].parent}:$PATH")
    say.line(f"  registry for images, from here and from pods: {machine.registry}")


def down(layout: Layout, *, purge: bool = False) -> None:
    """Stop everything and leave nothing on the machine but, unless purged, the data.

    Raises:
        Refused: With what a person must change.
    """
    if not layout.root.exists():
        say.line("✓ There is no cluster on this machine.")
        return
    host.check()
    debian.ensure(("ip", "nft", "mount"))
    with exclusively(layout), say.step("stopping the cluster"):
        stop_components(layout)
        leftovers.sweep(layout)
    if purge:
        leftovers.remove_tree(layout.root)
        say.line("  its data are deleted; the built programs stay in the cache")
    else:
        say.line(f"  images and objects stay in {layout.root} for the next start; `make cluster-purge` deletes them")


def exclusively(layout: Layout) -> contextlib.AbstractContextManager[None]:
    """Hold the cluster's lock: one start or stop at a time."""
    layout.root.mkdir(parents=True, exist_ok=True)
    return cache.locked(layout.root / ".lock", "another start or stop of the cluster")


def configure(machine: Machine) -> None:
    """Write every configuration file."""
    layout, resolv_conf = machine.layout, host.resolv_conf()
    files = {
        layout.etc / "kubelet.json": render.kubelet(layout, node_ip=machine.node_ip, resolv_conf=resolv_conf),
        layout.etc / "kube-proxy.json": render.kube_proxy(layout, node_ip=machine.node_ip),
        layout.etc / "containerd.toml": render.containerd(layout),
        layout.etc / "registry.json": render.registry(layout, node_ip=machine.node_ip),
        layout.etc / "Corefile": render.corefile(layout, node_ip=machine.node_ip, resolv_conf=resolv_conf),
        layout.etc / "cni" / "10-slipway.conflist": render.cni(layout),
        layout.etc / "registries" / machine.registry / "hosts.toml": render.registry_hosts(machine.registry),
        layout.root / "registry-prefix": f"{machine.registry}\n",
    }
    files |= {layout.etc / f"{user}.kubeconfig": render.kubeconfig(layout, user) for user in USERS}
    certificates = {
        name: base64.b64encode((layout.pki / name).read_bytes()).decode()
        for name in ("ca.crt", "admin.crt", "admin.key")
    }
    files[layout.kubeconfig] = render.portable_kubeconfig(
        f"https://{machine.node_ip}:{PORTS.apiserver}",
        certificates["ca.crt"],
        certificates["admin.crt"],
        certificates["admin.key"],
    )
    for path, text in files.items():
        write(path, text)
    (layout.root / "registry-prefix").chmod(0o644)


def read(path: Path) -> bytes:
    """Return a file's bytes, or none where there is no file."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, for root only; nothing where it says so already."""
    if read(path) == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)
        fresh.rename(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}.") from error


def _prepare_network() -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    if forwarding.read_text().strip() != "1":
        forwarding.write_text("1")
    host.run(["nft", "-f", "-"], "the pods' network rules cannot be loaded", given=render.masquerade())


def _start(machine: Machine) -> None:
    parts = list(components(machine))
    with say.step("starting the cluster"):
        for stage in sorted({part.stage for part in parts}):
            of_stage = [part for part in parts if part.stage == stage]
            for part in of_stage:
                ensure_running(machine, part)
            if stage == NODE_PARTS:
                _apply_addons(machine)  # the helpers of the next stage need their rights
            for part in of_stage:
                _wait_ready(machine, part)
            if stage == FOUNDATIONS:
                pause_image.ensure(
                    machine.layout, machine.programs["ctr"], Path(machine.programs["pause"]), platform.machine()
                )
        for what, is_there in _signs(machine.layout).items():
            wait(what, is_there, machine.layout.logs)


def _signs(layout: Layout) -> dict[str, Callable[[], bool]]:
    """What must be true before a person can use the cluster."""
    metrics = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
    return {
        "the node to be Ready": lambda: api.is_true(api.get(layout, f"/api/v1/nodes/{NODE}"), "Ready"),
        "the metrics API": lambda: api.is_true(api.get(layout, metrics), "Available"),
        "the namespace default": lambda: (
            api.get(layout, "/api/v1/namespaces/default/serviceaccounts/default") is not None
        ),
    }


def fingerprint(part: Component) -> str:
    """Return what changes when a component must be started anew: arguments, configuration, certificates."""
    seen = hashlib.sha256(json.dumps(part.arguments).encode())
    named = [Path(argument.partition("=")[2]) for argument in part.arguments if argument.endswith((".crt", ".pub"))]
    for path in (*part.configuration, *named):
        seen.update(read(path))
    return seen.hexdigest()


def environment_for(given: Mapping[str, str], node_ip: str) -> dict[str, str]:
    """Return a component's environment: the caller's, without what would configure it behind our back.

    A proxy stays, as containerd may pull from outside; the cluster's own addresses go past it.
    """
    kept = {
        key: value for key, value in given.items() if not key.startswith(("KUBE", "CONTAINERD", "ETCD_", "REGISTRY_"))
    }
    if any(key.upper() in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} for key in kept):
        past = [kept.pop("NO_PROXY", ""), kept.pop("no_proxy", ""), "localhost,127.0.0.1", node_ip]
        past += [POD_NETWORK, SERVICE_NETWORK, ".svc", ".cluster.local"]
        kept["NO_PROXY"] = kept["no_proxy"] = ",".join(part for part in past if part)
    return kept


def ensure_running(machine: Machine, part: Component) -> None:
    """Start a component unless it runs as it should.

    Raises:
        Refused: A port of its own is taken.
    """
    layout, own = machine.layout, records(machine.layout)
    print_path = layout.run / f"{part.name}.fingerprint"
    wanted = fingerprint(part)
    running = own.find(part.name)
    if running is not None and read(print_path) == wanted.encode() and running.arguments == part.arguments:
        return
    if running is not None:
        stop([running])
    for address, port in part.ports:
        host.await_port(address, port, part.name)
    write(print_path, wanted)
    path = f"{Path(machine.programs['containerd']).parent}:{debian.SYSTEM_PATH}"
    environment = environment_for(os.environ, machine.node_ip) | {"PATH": path}
    own.start(part.name, part.arguments, log=layout.logs / f"{part.name}.log", environment=environment, cwd=layout.root)


def _wait_ready(machine: Machine, part: Component) -> None:
    layout, own = machine.layout, records(machine.layout)
    log = layout.logs / f"{part.name}.log"

    restarts = 2

    def is_ready() -> bool:
        nonlocal restarts
        if own.find(part.name) is None and restarts:
            # Rights take a moment to reach every part of the API server, and some parts do not wait for theirs.
            restarts -= 1
            ensure_running(machine, part)
            return False
        if own.find(part.name) is None:
            raise Refused(f"{part.name} ended as soon as it was started: {last_words(log)} The whole log: {log}")
        if part.name == "containerd":
            return _connects(layout.containerd_socket)
        if part.ready:
            return api.answers(layout, part.ready)
        return all(_listens(address, port) for address, port in part.ports)

    wait(part.name, is_ready, log)


def wait(what: str, is_there: Callable[[], bool], log: Path) -> None:
    """Wait until something is true.

    Raises:
        Refused: It never was.
    """
    deadline = time.monotonic() + READY_SECONDS
    pause = 0.05
    while not is_there():
        if time.monotonic() > deadline:
            raise Refused(
                f"Waited {say.elapsed(READY_SECONDS)} in vain for {what}: look into {log}. "
                "`make cluster-up` tries again; `make cluster-purge cluster-up` begins from nothing."
            )
        time.sleep(pause)
        pause = min(0.3, pause * 1.3)


def _apply_addons(machine: Machine) -> None:
    layout = machine.layout
    manifest = addons.manifests(machine.node_ip, (layout.pki / "ca.crt").read_bytes())
    last = manifest["items"][-1]
    # Applied in order, so that the last one tells for all; where it does, kubectl's second is saved.
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    last["metadata"]["annotations"] = {addons.DIGEST: digest}
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{last['metadata']['name']}"
    there = api.get(layout, path) or {}
    if there.get("metadata", {}).get("annotations", {}).get(addons.DIGEST) == digest:
        return
    command = [machine.programs["kubectl"], "--kubeconfig", str(layout.kubeconfig), "apply", "--server-side"]
    command += ["--field-manager=slipway-local-cluster", "--force-conflicts", "-f", "-"]
    said = ""

    def applied() -> bool:
        nonlocal said
        done = subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True, check=False)
        said = done.stderr.strip()
        return done.returncode == 0

    try:
        wait("the API server to take the cluster's own objects", applied, layout.logs / "kube-apiserver.log")
    except Refused as refused:
        raise Refused(f"{refused} It says: {said}") from refused


def stop_components(layout: Layout) -> None:
    """Stop the components, those that use others first."""
    own = records(layout)
    names = (
        "kubelet",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "coredns",
        "metrics-server",
        "provisioner",
    )
    for together in (names, ("kube-apiserver",), ("containerd", "registry", "etcd")):
        running = [each for each in map(own.find, together) if each is not None]
        # The API server waits for watches that nobody will end; what it has acknowledged is in etcd.
        stop(running, patience=5)
        for name in together:
            own.forget(name)


def last_words(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = (
        [line for line in log.read_text(errors="replace").splitlines()[-50:] if line.strip()] if log.exists() else []
    )
    errors = [line for line in lines if "rror" in line or line.startswith("F")]
    return (errors or lines or ["it said nothing."])[-1][:500]


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def has_docker() -> bool:
    """Tell whether a Docker engine answers here."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return subprocess.run([docker, "info"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
