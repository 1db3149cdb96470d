"""What the machine is and allows: checked before anything is started, each failure a sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster.layout import FALLBACK_ADDRESS
from tools import say
from tools.refusal import Refused

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
FREE_BYTES = 6_000_000_000
"""Images, layers and etcd of a small cluster; below it the kubelet soon evicts pods."""


def check_privileges(platform: str, user: int, capabilities: int) -> None:
    """Refuse a machine or a user that cannot run containers.

    Raises:
        Refused: Not Linux, not root, or root without the capabilities.
    """
    elsewhere = "Or set SLIPWAY_CONTEXT to the kubeconfig context of a cluster that you have."
    if platform != "linux":
        raise Refused(f"The local cluster needs Linux, and this is {platform}. Use a Linux machine or VM. {elsewhere}")
    if user != 0:
        raise Refused(
            "Only root may start containers: run the same command with sudo "
            f"(`sudo -E make cluster-up` keeps your environment). {elsewhere}"
        )
    for bit, name in ((CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_NET_ADMIN, "CAP_NET_ADMIN")):
        if not capabilities >> bit & 1:
            raise Refused(
                f"This root user lacks {name}, as in an unprivileged container: it cannot mount or configure networks. "
                f"Run on the machine itself or in a privileged container. {elsewhere}"
            )


def effective_capabilities(status: str) -> int:
    """Read the effective capabilities from ``/proc/self/status``."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def check() -> None:
    """Refuse this machine where it cannot run the cluster.

    Raises:
        Refused: With what to do about it.
    """
    status = Path("/proc/self/status")
    check_privileges(sys.platform, os.geteuid(), effective_capabilities(status.read_text() if status.exists() else ""))


def check_disk(folder: Path, free: int | None = None) -> None:
    """Refuse a disk that is too full to start on.

    Raises:
        Refused: Less than `FREE_BYTES` are free.
    """
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    left = shutil.disk_usage(nearest).free if free is None else free
    if left < FREE_BYTES:
        raise Refused(
            f"Only {say.size(left)} are free below {nearest}, and the cluster needs {say.size(FREE_BYTES)}. "
            "Free some space, or set SLIPWAY_CLUSTER_DIR to a folder on a larger disk."
        )


def check_port(address: str, port: int, component: str) -> None:
    """Refuse a port that somebody else listens on.

    Raises:
        Refused: With who it is.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Refused(f"{component} cannot listen on {address}:{port}: {error.strerror}.") from error
            holder = listener(port)
            who = f"{holder[1]} (process {holder[0]})" if holder else "another program"
            raise Refused(
                f"{component} needs port {port}, and {who} listens on it. "
                f"Stop that{f' (`kill {holder[0]}`)' if holder else ''}, then try again."
            ) from error


def await_port(address: str, port: int, component: str, patience: float = 3.0) -> None:
    """Refuse a port that stays taken; one of a process that was just killed is free in a moment.

    Raises:
        Refused: With who it is.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            return check_port(address, port, component)
        except Refused:
            time.sleep(0.1)
    return check_port(address, port, component)


def listener(port: int, proc: Path = Path("/proc")) -> tuple[int, str] | None:
    """Return process id and command of who listens on a TCP port, as far as it can be seen."""
    sockets: set[str] = set()
    for table in ("tcp", "tcp6"):
        path = proc / "net" / table
        if path.exists():
            sockets |= listening_sockets(path.read_text(), port)
    if not sockets:
        return None
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # of somebody else, or gone meanwhile
            if any(_points_to(handle, sockets) for handle in (entry / "fd").iterdir()):
                return int(entry.name), (entry / "comm").read_text().strip()
    return None


def _points_to(handle: Path, targets: set[str]) -> bool:
    try:
        return str(handle.readlink()) in targets
    except OSError:
        return False


def listening_sockets(table: str, port: int) -> set[str]:
    """Read ``/proc/net/tcp``: the sockets that listen on a port, as links in ``/proc/<pid>/fd`` name them."""
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{fields[9]}]")
    return found


def node_address(routes: Iterable[dict[str, Any]], addresses: Iterable[dict[str, Any]]) -> str | None:
    """Choose the node's address: the one on the device of the default route, else any that others can reach.

    Args:
        routes: What ``ip -j -4 route show default`` prints.
        addresses: What ``ip -j -4 addr show`` prints.
    """
    devices = list(addresses)
    by_metric = sorted(routes, key=lambda route: int(route.get("metric", 0)))
    for route in by_metric:
        if route.get("prefsrc"):
            return str(route["prefsrc"])
        for device in devices:
            if device.get("ifname") == route.get("dev"):
                found = _global_address(device)
                if found:
                    return found
    for device in devices:
        if device.get("ifname") != "lo" and device.get("operstate") != "DOWN" and "link_netnsid" not in device:
            found = _global_address(device)
            if found:
                return found
    return None


def _global_address(device: dict[str, Any]) -> str | None:
    for each in device.get("addr_info", ()):
        if each.get("family") == "inet" and each.get("scope") == "global":
            return str(each["local"])
    return None


def ensure_address() -> str:
    """Return the node's address; where the machine has none but loopback, loopback gets one."""
    found = node_address(ip_json("route", "show", "default"), ip_json("addr", "show"))
    if found is not None:
        return found
    # On loopback, as not every kernel has dummy devices; pods reach it all the same, the node being their way out.
    run(["ip", "addr", "replace", f"{FALLBACK_ADDRESS}/32", "dev", "lo"], "an address cannot be set")
    return FALLBACK_ADDRESS


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    """Return what ``ip -j -4`` prints."""
    done = subprocess.run(["ip", "-j", "-4", *arguments], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or "[]")
    return [each for each in found if each]


def resolv_conf() -> str:
    """Return the file with name servers that pods can use too: systemd's stub listens on loopback only."""
    upstream = Path("/run/systemd/resolve/resolv.conf")
    return str(upstream) if upstream.exists() else "/etc/resolv.conf"


def boot_id() -> str:
    """Return what names this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def run(command: list[str], failure: str, *, given: str | None = None) -> str:
    """Run a program of the system.

    Raises:
        Refused: It failed; ``failure`` says in words what that means.
    """
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Refused(f"{failure[0].upper()}{failure[1:]}: `{' '.join(command[:4])}` says {said!r}.")
    return done.stdout
