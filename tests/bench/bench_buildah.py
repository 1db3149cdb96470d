"""`make bench-image`: an environment image from nothing to pushed, our way and with `buildah bud`.

Both start with empty caches from the same base image, install the same hash-checked
requirements, compile byte code, and push to the same registry. Each round runs both, so
that a slow moment of the network or the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slipway_operator.builder.environment import Environment
from slipway_operator.builder.images import Stack
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.requirements import parse
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Interpreter

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SITE = "lib/python3.11/site-packages"
PIP = "pip==25.3"

CONTAINERFILE = f"""\
FROM {{base}}
USER 0
COPY requirements.txt /opt/requirements.txt
RUN ["/usr/bin/python3.11", "/opt/pip/pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes", \
"--only-binary", ":all:", "--cert", "{CERTIFICATES}", "--target", "/opt/env/{SITE}", "-r", "/opt/requirements.txt"]
USER 65532
"""
"""What a careful person would write for the same image; the base has no shell, so RUN is a list."""


def build_with_buildah(requirements: Path, base_ref: str, target: str) -> float:
    """Build and push with Debian's buildah from an empty storage; returns the seconds it took.

    The base has no pip, so pip is mounted while it builds: it costs buildah no layer.

    Args:
        requirements: Hash-checked requirements.
        base_ref: The base image, in a registry.
        target: Tag to push to.

    Raises:
        RuntimeError: buildah failed; the message is what it said.
    """
    program = _buildah()
    with tempfile.TemporaryDirectory(prefix="bench-buildah-") as scratch:
        folder = Path(scratch)
        _uv("pip", "install", "--quiet", "--target", str(folder / "pip"), PIP)
        context = folder / "context"
        context.mkdir()
        shutil.copyfile(requirements, context / "requirements.txt")
        (context / "Containerfile").write_text(CONTAINERFILE.format(base=base_ref))
        storage = [f"--root={folder / 'root'}", f"--runroot={folder / 'run'}", f"--storage-driver={_driver()}"]
        build = [program, *storage, "bud", "--isolation=chroot", "--network=host", "--layers=false", "--no-cache"]
        build += ["--tls-verify=false", f"--volume={folder / 'pip'}:/opt/pip:ro"]
        build += [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--tag={target}", str(context)]
        try:
            began = time.monotonic()
            _run(build)
            _run([program, *storage, "push", "--tls-verify=false", target, f"docker://{target}"])
            return time.monotonic() - began
        finally:
            _run([program, *storage, "rmi", "--all", "--force"])


def build_our_way(requirements: Path, base_ref: str, target: str, *, crane: str = "crane") -> float:
    """The same image by the builder's own means, from an empty cache; returns the seconds it took.

    The builder's code as its Job runs it; of a Job, only the start of its pod is not in it.
    """
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as scratch:
        work = Path(scratch)
        # The builder finds its programs on PATH.
        programs = f"{Path(_uv_program()).parent}:{os.environ['PATH']}"
        place = Workplace(
            work=work, handover=work, settings=work, secrets=work, variables={**os.environ, "PATH": programs}
        )
        environment = Environment(place=place, interpreter=Interpreter(python="3.11", base=base_ref, tools=base_ref))
        stack = Stack(
            registry=RegistryClient(insecure=True, program=crane),
            place=place,
            scratch=work,
            repository=target.rpartition(":")[0],
        )
        began = time.monotonic()
        locked = parse(requirements.read_text(), requirements.name)
        environment.create()
        if sources := environment.install(locked):
            raise RuntimeError(f"these have no wheel, so the comparison would not be fair: {sources}")
        environment.finish()
        stack.environment(base_ref, environment.root, target)
        return time.monotonic() - began


def compare(requirements: Path, *, rounds: int, prefix: str, base: str, crane: str) -> dict[str, list[float]]:
    """Run both in turn; returns the seconds of each round by name.

    Every round pushes to repositories of its own, so that no layer is there already.

    Raises:
        RuntimeError: Two of our builds have different digests, or a build failed.
    """
    seconds: dict[str, list[float]] = {"buildah": [], "slipway": []}
    registry = RegistryClient(insecure=True, program=crane)
    digests = set()
    for _ in range(rounds):
        name = f"{prefix}/bench-{time.time_ns():x}"
        seconds["slipway"].append(build_our_way(requirements, base, f"{name}-ours:1", crane=crane))
        seconds["buildah"].append(build_with_buildah(requirements, base, f"{name}-theirs:1"))
        digests.add(registry.digest(f"{name}-ours:1"))
        print(f"  slipway {seconds['slipway'][-1]:6.1f} s   buildah {seconds['buildah'][-1]:6.1f} s", flush=True)
    if len(digests) > 1:
        raise RuntimeError(f"clean builds of the same requirements differ: {sorted(digests)}")
    print(f"  {rounds} clean builds, one digest: {digests.pop()}")
    return seconds


def main() -> None:
    """Compare on the given requirements and print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requirements", type=Path, default=ROOT / "examples" / "iris-legacy" / "requirements.txt")
    options = parser.parse_args()
    facts = json.loads((ROOT / "build" / "images.json").read_text())
    crane = _hack_tool("crane")
    print(f"{options.requirements}, {options.rounds} rounds, caches empty in each")
    seconds = compare(
        options.requirements,
        rounds=options.rounds,
        prefix=facts["registry"]["prefix"],
        base=facts["images"]["base"],
        crane=crane,
    )
    ours, theirs = (statistics.median(seconds[name]) for name in ("slipway", "buildah"))
    print(f"median: slipway {ours:.1f} s, buildah {theirs:.1f} s: {ours / theirs:.0%} of the time")
    if ours > theirs / 2:
        sys.exit("That is more than half.")


def _buildah() -> str:
    found = shutil.which("buildah")
    if found is None and os.geteuid() == 0:
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "buildah"])
        found = shutil.which("buildah")
    if found is None:
        raise RuntimeError("Install Debian's buildah (apt-get install buildah) to compare with it.")
    return found


def _driver() -> str:
    """Overlay is what buildah is fastest with; as somebody else than root it has only vfs here."""
    return "overlay" if os.geteuid() == 0 else "vfs"


def _uv(*arguments: str) -> None:
    _run([_uv_program(), *arguments, "--python", sys.executable, "--no-cache"])


def _uv_program() -> str:
    return os.environ.get("UV") or shutil.which("uv") or "uv"


def _hack_tool(name: str) -> str:
    command = [sys.executable, "-m", "tools", "ensure", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "hack")}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    main()
