"""The runtime as a pod confines it: process 1, no right to anything, nothing that it could write to, no shell."""

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

from lab.ports import free_port

CONFINED = r"""
import os, subprocess, sys
# A mount namespace of its own: everything is read-only, but what the kernel itself provides.
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
for line in open("/proc/self/mounts").readlines():
    target = line.split()[1]
    if target.startswith(("/proc", "/sys")):
        continue
    subprocess.run(["mount", "-o", "remount,bind,ro", target], stderr=subprocess.DEVNULL)
subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
environment = {"PATH": "/nonexistent", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", sys.executable]
os.execve("/usr/bin/setpriv", [*command, "-m", "slipway_runtime", *sys.argv[1:]], environment)
"""


def can_unshare() -> bool:
    """Whether this machine lets its root make namespaces (a container may not)."""
    return os.geteuid() == 0 and os.system("unshare --mount --pid --fork true 2>/dev/null") == 0  # noqa: S605


@contextlib.asynccontextmanager
async def confined(options, *more: str, port: int):
    arguments = ["--model-dir", str(options.folder), "--name", options.name, "--version", options.version]
    arguments += ["--model-digest", options.digest, "--port", str(port), *more]
    one = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"), sys.executable, "-c", CONFINED, *arguments,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        await one.communicate()


def read(path: str) -> str:
    return Path(path).read_text()


def child_of(pid: int) -> int:
    return int(read(f"/proc/{pid}/task/{pid}/children").split()[0])


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make namespaces")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_confined_as_in_a_pod(parts, tmp_path, workers):
    port = free_port()
    options = parts.linear().write(tmp_path)
    async with confined(options, "--drain-seconds", "0.3", "--workers", workers, port=port) as one:
        await ready(port, within=30)
        inside = child_of(one.pid)
        status, mounts = (read(f"/proc/{inside}/{name}") for name in ("status", "mounts"))
        assert [line.split()[3].split(",")[0] for line in mounts.splitlines() if line.split()[1] == "/"][-1] == "ro"
        assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE), "it is process 1"
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"http://127.0.0.1:{port}{PATH}", content=INFER)
            page = await client.get(f"http://127.0.0.1:{port}/")
        os.kill(inside, signal.SIGTERM)
        code = await asyncio.wait_for(one.wait(), 15)

    assert (answer.status_code, page.status_code) == (200, 200)
    assert code == 0
