"""``make images``: build what changed, push it, say what it became.

``--verify`` builds everything twice from nothing and compares the digests.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from images import publish, recipe
from images.store import Layer, Store
from images.workshop import Workshop
from slipway_operator.builder.errors import StepFailed

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway") / "images"
SOURCES = ("operator/", "model-runtime/", "cli/", "pyproject.toml", "uv.lock", "README.md", "LICENSE")
"""What the images are made from, as `git ls-files` names it."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    parser.add_argument("--registry", help="host[:port]/prefix to push to; default: the cluster's registry")
    parser.add_argument("--insecure", action="store_true", help="the registry of --registry speaks plain HTTP")
    parser.add_argument("--refresh", action="store_true", help="look for newer Debian packages")
    parser.add_argument("--verify", action="store_true", help="build twice from nothing and compare the digests")
    options = parser.parse_args()
    if options.verify:
        sys.exit(_verify())
    try:
        _build_and_push(options)
    except StepFailed as failed:
        sys.exit(f"{failed.reason}: {failed.message}")
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        sys.exit(f"{failed.strerror}: {failed.filename}. The images need 2 GB in {CACHE} (SLIPWAY_CACHE moves it).")


def _build_and_push(options: argparse.Namespace) -> None:
    started = time.monotonic()
    target = _target(options)
    with _alone():
        Store(CACHE).sweep()
        made = _build(CACHE, refresh=options.refresh)
        pushed = publish.push(made, target, crane(), _version())
        publish.write_facts(made, target, ROOT / "build")
    print(publish.table(made, pushed))
    print(f"{target.prefix}: {len(pushed)} pushed, {time.monotonic() - started:.1f} s; digests in build/images.json")
    if any(not one.image.why_large for one in publish.large(made)):
        sys.exit("An image grew over 150 MB without a reason: make it smaller or say why in hack/images/recipe.py.")


def _build(cache: Path, *, root: Path = ROOT, refresh: bool = False) -> list[publish.Made]:
    workshop = Workshop(root=root, store=Store(cache), crane=crane, refresh=refresh)
    layers: dict[str, Layer] = {}
    made = []
    for image in recipe.IMAGES:
        for name in image.layers:
            if name not in layers:
                layers[name] = workshop.layer(name)
        made.append(publish.lay_out(image, [layers[name] for name in image.layers], _version(), cache / "layouts"))
    return made


def _verify() -> int:
    """Build twice, each time from an empty cache; 1 when a digest differs."""
    rounds: list[dict[str, str]] = []
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=CACHE) as scratch:
        # A copy of the sources: somebody may go on editing between the two builds.
        sources = Path(scratch) / "sources"
        tracked = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
        )
        for name in tracked.stdout.decode().split("\0"):
            if name.startswith(SOURCES) and (ROOT / name).is_file():
                (sources / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, sources / name)
        for number in (1, 2):
            started = time.monotonic()
            made = _build(Path(scratch) / str(number), root=sources)
            rounds.append({one.image.name: one.digest for one in made})
            print(f"build {number}: {time.monotonic() - started:.0f} s", flush=True)
    different = 0
    for name, digest in rounds[0].items():
        same = rounds[1][name] == digest
        different += not same
        print(f"{'same' if same else 'DIFFERENT':10} {name:18} {digest}" + ("" if same else f" {rounds[1][name]}"))
    return 1 if different else 0


@functools.cache
def crane() -> Path:
    """The pinned crane of the cluster's tools, or the one on PATH where those are not built yet."""
    done = _hack("tools", "ensure", "crane")
    if done.returncode == 0:
        return Path(done.stdout.strip().splitlines()[-1])
    found = shutil.which("crane")
    if found is None:
        sys.exit(f"crane is missing, and the pinned one could not be built:\n{done.stderr.strip()}")
    return Path(found)


def _target(options: argparse.Namespace) -> publish.Target:
    if options.registry:
        return publish.Target(prefix=options.registry, insecure=options.insecure)
    if given := os.environ.get("SLIPWAY_REGISTRY"):
        return publish.Target(prefix=given, insecure=os.environ.get("SLIPWAY_REGISTRY_INSECURE") == "1")
    done = _hack("cluster", "registry")
    if done.returncode != 0:
        sys.exit((done.stderr + done.stdout).strip() + "\nThe images need a registry; SLIPWAY_REGISTRY names another.")
    return publish.Target(prefix=f"{done.stdout.strip()}/slipway", insecure=True)


def _hack(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "hack")}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


@functools.cache
def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


class _alone:  # noqa: N801  # used as a statement: with _alone()
    """One build at a time on this machine: two would make the same layers twice."""

    def __enter__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._file = (CACHE / "lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of the images", flush=True)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


if __name__ == "__main__":
    main()
