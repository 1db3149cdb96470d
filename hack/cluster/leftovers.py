"""Takes away what the cluster's processes leave on a machine: pods, mounts, devices, rules, cgroups, files.

Everything is found by something that only ours has: a path below the state folder, a control group, our
containerd's socket, a route into the pod network, a table's name. What is gone already is no error.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster import cgroups, host
from cluster.layout import CNI_NETWORK, FALLBACK_ADDRESS, NFT_TABLE, POD_NETWORK, Layout
from cluster.processes import Running, observe, pids, stop
from tools.refusal import Refused

SYSCTLS = ("net/ipv4/ip_forward", "vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
"""What the cluster (the last three: its kubelet) sets on the machine, so that `down` can put it back."""
TABLES = (("ip", NFT_TABLE), ("ip", "kube-proxy"), ("ip6", "kube-proxy"))
KUBELET_FOLDER = Path("/var/lib/kubelet")
"""The kubelet's sockets for device plugins are here, whatever its root is."""


def remember_machine(layout: Layout) -> None:
    """Note how the machine was before the cluster changed it; once in a boot."""
    before = {
        "bootId": host.boot_id(),
        "sysctls": {name: (Path("/proc/sys") / name).read_text().strip() for name in SYSCTLS},
        "kubeletFolder": KUBELET_FOLDER.exists(),
    }
    fresh = layout.run / "before.json.new"
    fresh.write_text(json.dumps(before))
    fresh.rename(layout.run / "before.json")


def remembered(layout: Layout) -> dict[str, Any] | None:
    """Return what was noted before this boot's first start, or None where nothing was started in this boot."""
    try:
        found = json.loads((layout.run / "before.json").read_text())
    except (OSError, ValueError):
        return None
    return dict(found) if found.get("bootId") == host.boot_id() else None


def sweep(layout: Layout) -> None:
    """Remove all that runs, is mounted or configured beside the components themselves; data stays.

    Raises:
        Refused: Something of the cluster cannot be removed.
    """
    sockets = shim_sockets(layout)
    end_pods(layout)
    unmount_below(layout.root)
    cgroups.remove(layout.cgroup)
    before = remembered(layout)
    # What has no name of its own is touched only where this boot saw our start; a reboot has taken it anyway,
    # and on a first start it would be another cluster's.
    if before is not None:
        _remove_devices()
        _remove_tables()
        for name, value in before["sysctls"].items():
            with contextlib.suppress(OSError):
                (Path("/proc/sys") / name).write_text(value)
        if not before["kubeletFolder"]:
            shutil.rmtree(KUBELET_FOLDER, ignore_errors=True)
    _remove_files(layout, sockets)
    remove_tree(layout.run)


def shim_sockets(layout: Layout) -> set[Path]:
    """Return where our shims listen: a folder that all containerds of a machine share."""
    found = set()
    for task in _tasks(layout):
        for name in ("address", "bootstrap.json"):
            with contextlib.suppress(OSError, ValueError):
                text = (task / name).read_text()
                address = json.loads(text)["address"] if name.endswith("json") else text
                found.add(Path(str(address).removeprefix("unix://").strip()))
    return found


def end_pods(layout: Layout) -> None:
    """End the pods' processes, then their shims."""
    in_pods = [each for each in map(observe, cgroups.members(layout.cgroup)) if each is not None]
    stop(in_pods, patience=3)
    stop((each for each in map(observe, pids()) if each is not None and is_shim(each, layout)), patience=3)


def is_shim(running: Running, layout: Layout) -> bool:
    """Tell whether a process is a shim of our containerd: it was told our socket."""
    return Path(running.arguments[0]).name == "containerd-shim-runc-v2" and (
        str(layout.containerd_socket) in running.arguments or f"{layout.containerd_socket}.ttrpc" in running.arguments
    )


def unmount_below(root: Path) -> None:
    """Unmount everything below a folder, the innermost first.

    Raises:
        Refused: A mount stays.
    """
    for lazily in (False, True):
        for path in reversed(mounts_below(root, Path("/proc/self/mountinfo").read_text())):
            command = ["umount", *(["--lazy"] if lazily else []), path]
            subprocess.run(command, capture_output=True, check=False)
    left = mounts_below(root, Path("/proc/self/mountinfo").read_text())
    if left:
        raise Refused(f"{left[0]} stays mounted: end what uses it (`fuser -m {left[0]}` lists that), then try again.")


def mounts_below(root: Path, table: str) -> list[str]:
    """Read ``/proc/self/mountinfo``: mount points below a folder, in the order in which they were mounted."""
    found = []
    for line in table.splitlines():
        path = _unescaped(line.split()[4])
        if path.startswith(f"{root}/"):
            found.append(path)
    return found


def remove_tree(folder: Path) -> None:
    """Delete a folder, but never through a mount.

    Raises:
        Refused: Something is mounted there.
    """
    if folder.exists():
        unmount_below(folder)
        shutil.rmtree(folder)


def pod_devices(routes: Iterable[dict[str, Any]]) -> set[str]:
    """Return the node's ends of the pods' device pairs: those with a route to one address of the pod network."""
    network = ipaddress.ip_network(POD_NETWORK)
    found = set()
    for route in routes:
        with contextlib.suppress(ValueError, KeyError):
            if ipaddress.ip_address(str(route["dst"])) in network and str(route["dev"]).startswith("veth"):
                found.add(str(route["dev"]))
    return found


def _tasks(layout: Layout) -> list[Path]:
    folder = layout.run / "containerd" / "io.containerd.runtime.v2.task" / "k8s.io"
    return sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []


def _rmdir(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_devices() -> None:
    # The kernel takes a pod's pair with its network namespace, a moment after the last user is gone.
    deadline = time.monotonic() + 3
    while (left := pod_devices(host.ip_json("route", "show"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for device in left:
        subprocess.run(["ip", "link", "delete", device], capture_output=True, check=False)
    if any(
        each.get("local") == FALLBACK_ADDRESS
        for device in host.ip_json("addr", "show", "lo")
        for each in device["addr_info"]
    ):
        subprocess.run(
            ["ip", "addr", "delete", f"{FALLBACK_ADDRESS}/32", "dev", "lo"], capture_output=True, check=False
        )


def _remove_tables() -> None:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    there = {tuple(line.split()[1:3]) for line in done.stdout.splitlines()}
    for family, name in TABLES:
        if (family, name) in there:
            host.run(["nft", "delete", "table", family, name], "the network rules cannot be removed")


def _remove_files(layout: Layout, sockets: set[Path]) -> None:
    for path in sockets:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".lock").unlink(missing_ok=True)
    results = Path("/var/lib/cni/results")
    for path in results.glob(f"{CNI_NETWORK}-*"):
        path.unlink(missing_ok=True)
    links = Path("/var/log/containers")
    for link in links.glob("*.log") if links.is_dir() else ():
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.logs}/"):
            link.unlink(missing_ok=True)
    for folder in (results, results.parent, links, Path("/run/containerd/s"), Path("/run/containerd")):
        _rmdir(folder)


def _unescaped(path: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(octal, character)
    return path
