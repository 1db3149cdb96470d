"""Breaks a cluster in every way that a machine can, and checks that it heals and leaves nothing behind.

`make cluster-selftest` runs it, in network and mount namespaces of its own and with its own state folder, so the
cluster that is in use beside it does not notice. There is no default route in there, which is one of the things
to survive.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import cgroups, host, leftovers, local
from cluster.layout import PAUSE_IMAGE, PORTS, Layout
from cluster.processes import MARK, observe, pids
from tools import debian, say
from tools.refusal import Refused

FOLDER = Path("/var/lib/slipway-cluster-selftest")
INSIDE = "SLIPWAY_SELFTEST_INSIDE"
SECOND_START_SECONDS = 20.0
COMPONENTS = (
    "etcd",
    "containerd",
    "registry",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "metrics-server",
    "provisioner",
)
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "selftest", "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": True,
        "containers": [
            {
                "name": "pause",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "Never",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "selftest"}}],
    },
}
CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "selftest", "namespace": "default"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


class Failed(Exception):  # noqa: N818 - it reads as what happened
    """A check that did not hold."""


@dataclass
class Report:
    """What was checked, how it went and how long it took."""

    failures: int = 0
    checks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def check(self, what: str, run: Callable[[], object]) -> None:
        """Run one check and print how it went."""
        started = time.monotonic()
        self.checks += 1
        try:
            run()
        except (Failed, Refused, subprocess.SubprocessError, OSError) as error:
            self.failures += 1
            say.line(f"✗ {what}: {error}")
        else:
            say.line(f"✓ {what} ({say.elapsed(time.monotonic() - started)})")
        self.seconds[what] = time.monotonic() - started


def demand(held: bool, sentence: str) -> None:
    """Fail a check with a sentence unless something holds.

    Raises:
        Failed: It does not.
    """
    if not held:
        raise Failed(sentence)


def cluster(command: str, *, expect: int = 0) -> str:
    """Run one of the cluster's commands and return what it said.

    Raises:
        Failed: It ended otherwise than expected.
    """
    done = subprocess.run(
        [sys.executable, "-m", "cluster", command], capture_output=True, text=True, check=False, timeout=300
    )
    said = done.stdout + done.stderr
    if done.returncode != expect:
        raise Failed(f"`cluster {command}` ended with {done.returncode}: {said.strip()}")
    return said


def until(what: str, held: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until something holds.

    Raises:
        Failed: It never did.
    """
    deadline = time.monotonic() + seconds
    while not held():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.2)


class Bench:
    """The cluster under test."""

    def __init__(self, layout: Layout, kubectl: Path) -> None:
        self.layout = layout
        self.kubectl = kubectl

    def ask(self, *arguments: str, given: object = None) -> str:
        """Run kubectl and return what it printed."""
        command = [str(self.kubectl), "--kubeconfig", str(self.layout.kubeconfig), *arguments]
        text = None if given is None else json.dumps(given)
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        demand(done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def pids(self) -> dict[str, int]:
        """Return the process id of every component that runs."""
        found = {name: local.records(self.layout).find(name) for name in COMPONENTS}
        return {name: each.pid for name, each in found.items() if each is not None}

    def start_pod(self) -> None:
        """Create the pod with its claim and wait until it is Ready."""
        self.ask("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": [CLAIM, POD]})
        self.pod_is_ready()

    def pod_is_ready(self) -> None:
        """Wait until the pod is Ready as the node sees it now, not as it was before a crash."""
        until("the pod to be Ready", self._pod_runs)

    def _pod_runs(self) -> bool:
        pod = json.loads(self.ask("get", "pod", "selftest", "-o", "json"))
        conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
        return conditions.get("Ready") == "True" and bool(cgroups.members(self.layout.cgroup))

    def traces(self) -> dict[str, Any]:
        """Return all that a cluster could leave on this machine."""
        devices = host.ip_json("addr", "show")
        addresses = [(device["ifname"], each.get("local", "")) for device in devices for each in device["addr_info"]]
        folders = [Path(name) for name in ("/run/containerd", "/var/lib/cni/results", "/var/log/containers")]
        return {
            "devices": sorted({str(device["ifname"]) for device in devices}),
            "addresses": sorted(f"{device} {address}" for device, address in addresses),
            "mounts": leftovers.mounts_below(self.layout.root, Path("/proc/self/mountinfo").read_text()),
            "rules": _nft(),
            "cgroups": [str(folder) for folder in cgroups.folders(self.layout.cgroup)],
            "processes": _ours(self.layout),
            "sysctls": {name: (Path("/proc/sys") / name).read_text().strip() for name in leftovers.SYSCTLS},
            "files": sorted(str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()),
        }


def _nft() -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return sorted(done.stdout.splitlines())


def _ours(layout: Layout) -> list[str]:
    """Name every process that our start marked or that was told a path of ours."""
    mark = f"{MARK}={layout.root}:".encode()
    found = []
    for pid in pids():
        with contextlib.suppress(OSError):
            environment = (Path("/proc") / str(pid) / "environ").read_bytes()
            running = observe(pid)
            arguments = " ".join(running.arguments) if running else ""
            if running and pid != os.getpid() and (mark in environment or f"{layout.root}/" in arguments):
                found.append(f"{pid} {arguments[:80]}")
    return found


def kill_component(bench: Bench, name: str) -> None:
    """Kill one component as the kernel would and see that status tells and up heals."""
    before = bench.pids()
    demand(name in before, f"{name} does not run")
    os.kill(before[name], signal.SIGKILL)
    until(f"{name} to be gone", lambda: observe(before[name]) is None)
    said = cluster("status", expect=1)
    demand("down" in said and name in said, f"status does not tell that {name} is down: {said}")
    cluster("up")
    after = bench.pids()
    demand(name in after and after[name] != before[name], f"{name} was not started again")
    others = {each for each in before if each != name and before[each] != after.get(each)}
    demand(not others, f"{', '.join(sorted(others))} did not have to be started again")
    bench.pod_is_ready()


def crash(bench: Bench) -> None:
    """Leave the machine as a reboot does: no process, no mount, no device, another boot's id."""
    for pid in (*bench.pids().values(), *cgroups.members(bench.layout.cgroup)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shims = [each for each in map(observe, pids()) if each is not None and leftovers.is_shim(each, bench.layout)]
    for shim in shims:
        os.kill(shim.pid, signal.SIGKILL)
    until("every process to be gone", lambda: not bench.pids() and all(observe(each.pid) is None for each in shims))
    leftovers.unmount_below(bench.layout.root)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    note = bench.layout.run / "before.json"
    found = json.loads(note.read_text())
    note.write_text(json.dumps({**found, "bootId": "another boot"}))


def reboot(bench: Bench) -> None:
    """Start after a reboot; the pod must come back with its claim."""
    crash(bench)
    cluster("up")
    bench.pod_is_ready()


def interrupt(delay: float) -> None:
    """Kill a start in the middle."""
    starting = subprocess.Popen(
        [sys.executable, "-m", "cluster", "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        starting.wait(delay)
    starting.kill()
    starting.wait()


def interrupted_starts(bench: Bench) -> None:
    """Kill starts at several moments; the next one must go on from there."""
    cluster("down")
    for delay in (0.4, 0.9, 1.6, 3.0, 5.0, 8.0):
        interrupt(delay)
    cluster("up")
    bench.pod_is_ready()
    demand(len(bench.pids()) == len(COMPONENTS), "not every component runs")
    twice = [line for line in _ours(bench.layout) if "/etcd" in line.partition(" ")[2].partition(" ")[0]]
    demand(len(twice) == 1, f"etcd runs {len(twice)} times: {twice}")


def interrupted_stops(bench: Bench) -> None:
    """Kill a stop in the middle; the next one must finish."""
    stopping = subprocess.Popen(
        [sys.executable, "-m", "cluster", "down"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        stopping.wait(1.0)
    stopping.kill()
    stopping.wait()
    cluster("up")
    bench.pod_is_ready()


def taken_port() -> None:
    """See that a start names who holds a port and what to do."""
    cluster("down")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", PORTS.apiserver))  # noqa: S104 - in a network of its own
        holder.listen()
        said = cluster("up", expect=1)
    demand(f"process {os.getpid()}" in said and str(PORTS.apiserver) in said, f"it does not tell who: {said}")
    cluster("up")


def same_processes(bench: Bench) -> None:
    """See that a second start changes nothing."""
    before = bench.pids()
    cluster("up")
    demand(bench.pids() == before, "a second start replaced processes")


def stale_records(bench: Bench) -> None:
    """See that a record that names a process of somebody else costs that process nothing."""
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        record = bench.layout.run / "coredns.json"
        found = json.loads(record.read_text())
        os.kill(found["pid"], signal.SIGKILL)
        until("coredns to be gone", lambda: observe(found["pid"]) is None)
        record.write_text(json.dumps({**found, "pid": stranger.pid}))
        cluster("up")
        demand(stranger.poll() is None, "a process of somebody else was killed")
        demand("coredns" in bench.pids(), "coredns was not started again")
    finally:
        stranger.kill()
        stranger.wait()


def start_again(report: Report, bench: Bench) -> None:
    """See that a start with everything cached is quick."""
    cluster("down")
    started = time.monotonic()
    cluster("up")
    took = time.monotonic() - started
    report.seconds["second start"] = took
    demand(took < SECOND_START_SECONDS, f"it took {took:.1f} s")
    bench.pod_is_ready()


def same_traces(bench: Bench, before: dict[str, Any]) -> None:
    """See that a stop leaves the machine as it was."""
    cluster("down")
    now = bench.traces()
    different = {what: (before[what], now[what]) for what in before if before[what] != now[what]}
    demand(not different, f"left behind: {different}")


def inside() -> int:
    """Run all checks; we are in namespaces of our own."""
    host.run(["ip", "link", "set", "lo", "up"], "loopback cannot be switched on")
    for shared in ("/run", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers"):
        if Path(shared).is_dir():
            host.run(["mount", "-t", "tmpfs", "tmpfs", shared], f"{shared} cannot be covered")
    layout, report = Layout.of_machine(), Report()
    bench = Bench(layout, local.programs().built["kubectl"])
    before = bench.traces()
    try:
        report.check("a first start, on a machine without a default route", lambda: cluster("up"))
        report.check("a pod with a claim becomes Ready", bench.start_pod)
        report.check("status says that all is well", lambda: cluster("status"))
        report.check("starting twice is harmless", lambda: same_processes(bench))
        for name in COMPONENTS:
            report.check(f"{name} killed: status tells, up heals", functools.partial(kill_component, bench, name))
        report.check("a record of somebody else's process is harmless", lambda: stale_records(bench))
        report.check("a reboot is survived", lambda: reboot(bench))
        report.check("interrupted starts are survived", lambda: interrupted_starts(bench))
        report.check("an interrupted stop is survived", lambda: interrupted_stops(bench))
        report.check("a taken port is named", taken_port)
        report.check(f"a second start takes under {SECOND_START_SECONDS:.0f} s", lambda: start_again(report, bench))
        report.check("down leaves nothing", lambda: same_traces(bench, before))
    finally:
        report.check("purge deletes the data", lambda: purge(layout))
    print(json.dumps({"seconds": {what: round(took, 1) for what, took in report.seconds.items()}}))
    print(f"{report.checks - report.failures} passed, {report.failures} failed")
    return 1 if report.failures else 0


def purge(layout: Layout) -> None:
    """Delete the cluster under test."""
    cluster("purge")
    demand(not layout.root.exists(), f"{layout.root} is still there")


def main() -> int:
    """Enter the namespaces and run all checks there."""
    if os.environ.get(INSIDE):
        say.line(f"• the cluster under test lives in {FOLDER}")
        return inside()
    try:
        host.check()
        local.programs()
    except Refused as refused:
        say.line(f"✗ {refused}")
        return 1
    command = [
        str(debian.find("unshare")),
        "--net",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-m",
        "cluster.selftest",
    ]
    own = {"SLIPWAY_CLUSTER_DIR": str(FOLDER), "SLIPWAY_CLUSTER": "local", INSIDE: "1", "SLIPWAY_CONTEXT": ""}
    return subprocess.run(command, env={**os.environ, **own}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
