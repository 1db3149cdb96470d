"""The runtime as a pod confines it: process 1 of a user without rights, nothing that it could write to, no shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from tests.unit.runtime.test_process import INFER, PATH, ready

import slipway_runtime
from lab.ports import free_port

USER = 65532
SHELLS = [path for name in ("sh", "bash", "dash", "busybox") if (path := Path("/bin") / name).exists()]
"""Of this machine; the images have none (`tests/cluster/test_images.py`)."""
CONFINED = r"""
import os, subprocess, sys
from pathlib import Path

user, needed, shells = sys.argv[1], sys.argv[2].split(":"), sys.argv[3].split(":")

def mount(*arguments, **options):
    subprocess.run(["mount", *map(str, arguments)], check=True, **options)

# A mount namespace of its own. In it, what is needed is shown below the folders that only root may enter.
mount("--make-rprivate", "/")
held = {Path(path): os.open(path, os.O_PATH) for path in needed}
closed = {
    path: next((above for above in reversed(path.parents) if not above.stat().st_mode & 0o001), None) for path in held
}
for above in {one for one in closed.values() if one is not None}:
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", above)
for path, handle in held.items():
    if closed[path] is not None:
        path.mkdir(parents=True)
        mount("--no-canonicalize", "--bind", f"/proc/self/fd/{handle}", path, pass_fds=[handle])
    os.close(handle)
for shell in shells:
    mount("--bind", "/dev/null", shell)
# Everything is read-only, but what the kernel itself provides.
for line in open("/proc/self/mounts").readlines():
    target = line.split()[1]
    if target.startswith(("/proc", "/sys")):
        continue
    subprocess.run(["mount", "-o", "remount,bind,ro", target], stderr=subprocess.DEVNULL)
mount("-t", "proc", "proc", "/proc")
environment = {"PATH": "/nonexistent", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *rights, sys.executable]
os.execve("/usr/bin/setpriv", [*command, "-m", "slipway_runtime", *sys.argv[4:]], environment)
"""


def can_unshare() -> bool:
    """Whether this machine lets its root make namespaces (a container may not)."""
    return os.geteuid() == 0 and os.system("unshare --mount --pid --fork true 2>/dev/null") == 0  # noqa: S605


@contextlib.asynccontextmanager
async def confined(options, *more: str, port: int):
    arguments = ["--model-dir", str(options.folder), "--name", options.name, "--version", options.version]
    arguments += ["--model-digest", options.digest, "--port", str(port), *more]
    source = Path(slipway_runtime.__file__).parents[1]
    needed = ":".join(map(str, (sys.base_prefix, sys.prefix, source, options.folder)))
    shells = ":".join(map(str, SHELLS))
    one = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"), sys.executable, "-c", CONFINED,
        *(str(USER), needed, shells, *arguments), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        await one.communicate()


def read(path: str) -> str:
    return Path(path).read_text()


def children_of(pid: int) -> list[int]:
    return list(map(int, read(f"/proc/{pid}/task/{pid}/children").split()))


def runs_in(pid: int, program: Path) -> bool:
    """Whether a program is one as a process sees it."""
    return Path(f"/proc/{pid}/root{program}").is_file()


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make namespaces")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_confined_as_in_a_pod(parts, tmp_path, workers):
    port = free_port()
    options = parts.linear().write(tmp_path / "model")
    async with confined(options, "--drain-seconds", "0.3", "--workers", workers, port=port) as one:
        await ready(port, within=30)
        (inside,) = children_of(one.pid)
        mounts, first = (read(f"/proc/{inside}/{name}") for name in ("mounts", "status"))
        assert {line.split()[3].split(",")[0] for line in mounts.splitlines() if line.split()[1] == "/"} == {"ro"}
        assert re.search(r"^NSpid:\s+\d+\s+1$", first, re.MULTILINE), "it is process 1"
        statuses = [first, *(read(f"/proc/{worker}/status") for worker in children_of(inside))]
        for status in statuses:
            assert re.search(rf"^Uid:(\s+{USER}){{4}}$", status, re.MULTILINE)
            assert re.search(rf"^Gid:(\s+{USER}){{4}}$", status, re.MULTILINE)
            assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
            for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
                assert re.search(rf"^Cap{kind}:\s+0+$", status, re.MULTILINE), kind
        assert [shell for shell in SHELLS if runs_in(inside, shell)] == []
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"http://127.0.0.1:{port}{PATH}", content=INFER)
            page = await client.get(f"http://127.0.0.1:{port}/")
        os.kill(inside, signal.SIGTERM)
        code = await asyncio.wait_for(one.wait(), 15)

    assert (answer.status_code, page.status_code) == (200, 200)
    assert len(statuses) == (1 if workers == "1" else 3)
    assert code == 0
