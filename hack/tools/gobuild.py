"""Builds the pinned Go programs from their locked modules into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools import cache, debian, say
from tools.catalogue import GO_MODULE_SUM, GO_VERSION, GoTool
from tools.refusal import Refused

OLDEST_GO = (1, 26)
NO_GO = (
    "Go {version} could not be fetched as a module: {cause}\nInstall Go 1.26 or newer and put its bin folder on PATH."
)


def folder_name(tool: GoTool) -> str:
    """Name a tool's folder in the cache by its version and by all that its build depends on."""
    seen = hashlib.sha256(repr((tool.programs, tool.stamps, tool.tags, tool.links)).encode())
    for path in sorted(tool.module.iterdir()):
        if path.suffix in {".go", ".mod", ".sum"}:
            seen.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{tool.name}-{tool.version}-{seen.hexdigest()[:8]}"


def ensure(tool: GoTool) -> Path:
    """Return the folder with a tool's programs, building them first if they are not in the cache."""
    return cache.made(folder_name(tool), lambda fresh: _build(tool, fresh))


def go_version(said: str) -> tuple[int, int] | None:
    """Read ``go env GOVERSION``.

    >>> go_version("go1.26.8"), go_version("devel")
    ((1, 26), None)
    """
    found = re.match(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def find_go() -> Path:
    """Return a Go that is new enough: the machine's own, or the pinned one, fetched once."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/go/bin:/usr/lib/go/bin"
    found = shutil.which("go", path=path)
    if found is not None:
        done = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/")
        version = go_version(done.stdout.strip())
        if version is None or version >= OLDEST_GO:
            return Path(found)
    return cache.made(f"go-{GO_VERSION}", _fetch_go) / "bin" / "go"


def _fetch_go(fresh: Path) -> None:
    """Fetch the pinned Go as Go itself would: as a module, by whatever older Go there is, else Debian's."""
    older = debian.ensure(["go"])["go"]
    with say.step(f"fetching Go {GO_VERSION}", "about 10 seconds"), tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [older, "mod", "download", "-json", f"golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-amd64"],
            env={**os.environ, "GOPATH": scratch, "GOMODCACHE": f"{scratch}/mod", "GOFLAGS": "-modcacherw"},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        said = json.loads(done.stdout or "{}")
        if done.returncode != 0:
            raise Refused(NO_GO.format(version=GO_VERSION, cause=said.get("Error") or done.stderr.strip()))
        if said["Sum"] != GO_MODULE_SUM:
            raise Refused(NO_GO.format(version=GO_VERSION, cause=f"its sum is {said['Sum']}, not {GO_MODULE_SUM}."))
        shutil.copytree(said["Dir"], fresh, dirs_exist_ok=True, symlinks=True)
    # The module cache keeps no executable bit.
    for program in (*(fresh / "bin").iterdir(), *(fresh / "pkg" / "tool").rglob("*")):
        if program.is_file():
            program.chmod(0o755)


def linker_flags(tool: GoTool) -> str:
    """Return what ``go build -ldflags`` takes: no debug tables, and the versions that programs print."""
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in sorted(tool.stamps.items()))])


def _build(tool: GoTool, fresh: Path) -> None:
    go = find_go()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly"}
    environment["GOTOOLCHAIN"] = "local"  # a toolchain that downloads itself is not a locked build
    with say.step(f"building {tool.name} {tool.version}", tool.cold):
        for name, package in tool.programs.items():
            command = [str(go), "build", "-ldflags", linker_flags(tool), "-o", str(fresh / name)]
            command += ["-tags", ",".join(tool.tags), package]
            done = subprocess.run(
                command, cwd=tool.module, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise Refused(f"{name} {tool.version} could not be built: {_cause(done.stderr)}")
    for name, program in tool.links.items():
        (fresh / name).symlink_to(program)


def _cause(said: str) -> str:
    if "no space left on device" in said:
        return "the disk is full. Free some space (Go's build cache counts: `go clean -cache`)."
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("go: downloading", "#"))]
    return "\n".join(lines[-5:]) or "go build failed without a word."
