"""The control groups of the cluster's pods: all below one root of its own, so that whose a process is needs no guess.

Both versions: many hierarchies, one for each controller (1), or a single one (2).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

CPUSET = ("cpuset.cpus", "cpuset.mems")


@dataclass(frozen=True)
class Hierarchies:
    """Where the machine's control groups are mounted."""

    version1: tuple[Path, ...]
    version2: tuple[Path, ...]

    @classmethod
    def of_machine(cls) -> Hierarchies:
        """Read the mounts of this machine."""
        return parse(Path("/proc/self/mountinfo").read_text())

    def roots(self, name: str) -> list[Path]:
        """Return the group of this name in every hierarchy that has it."""
        return [each / name for each in (*self.version1, *self.version2) if (each / name).is_dir()]


def parse(table: str) -> Hierarchies:
    """Read ``/proc/self/mountinfo``; where version 1 is used, a version 2 beside it holds no controllers.

    >>> parse("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw").version2
    (PosixPath('/sys/fs/cgroup'),)
    """
    found: dict[str, list[Path]] = {"cgroup": [], "cgroup2": []}
    for line in table.splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1] if "-" in fields else ""
        if kind in found and fields[3] == "/":
            found[kind].append(Path(fields[4]))
    return Hierarchies(tuple(dict.fromkeys(found["cgroup"])), tuple(dict.fromkeys(found["cgroup2"])))


def make(name: str) -> None:
    """Make the root in every hierarchy, ready to hold groups with limits."""
    hierarchies = Hierarchies.of_machine()
    for parent in hierarchies.version1:
        (parent / name).mkdir(exist_ok=True)
        for setting in CPUSET:
            # A new cpuset of version 1 has no processor at all until it is given some.
            given = parent / name / setting
            if given.exists() and not given.read_text().strip():
                given.write_text((parent / setting).read_text())
    for parent in hierarchies.version2:
        controllers = (parent / "cgroup.controllers").read_text().split()
        for controller in controllers:
            with contextlib.suppress(OSError):  # one that is taken by version 1, or is on already
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        (parent / name).mkdir(exist_ok=True)


def members(name: str) -> set[int]:
    """Return the id of every process in the root or below it."""
    found: set[int] = set()
    for folder in folders(name):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    return found - {0}


def remove(name: str, patience: float = 5.0) -> None:
    """Remove the root with all below it, once the kernel has let go of the processes that were there."""
    deadline = time.monotonic() + patience
    while left := folders(name):
        for folder in left:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            return
        if folders(name):
            time.sleep(0.05)


def folders(name: str) -> list[Path]:
    """Return the root and all below it in every hierarchy, the innermost first."""
    roots = Hierarchies.of_machine().roots(name)
    found = [folder for root in roots for folder in (root, *root.rglob("*/")) if folder.is_dir()]
    return sorted(found, key=lambda each: len(each.parts), reverse=True)
