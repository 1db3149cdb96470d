"""Trees with Python packages: from the lock file, from hashed requirements, from our own sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from images import recipe

_SITE = f"lib/python{recipe.PYTHON}/site-packages"
_PLATFORM = "x86_64-manylinux_2_28"


def uv_program() -> Path:
    """The uv that runs us (or the one on PATH), which also goes into the builder image."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        sys.exit("uv is missing: run this by `make images`, which brings its own.")
    return Path(found)


def locked_requirements(root: Path, package: str, extra: str | None) -> str:
    """What one distribution of the workspace needs, as hashed requirements from ``uv.lock``."""
    command = [str(uv_program()), "export", "--frozen", "--no-dev", "--no-emit-workspace", "--no-header"]
    command += ["--no-annotate", "--package", package, *(["--extra", extra] if extra else [])]
    return _run(command, root)


def install(requirements: str, site: Path, *, python: str = sys.executable) -> None:
    """Install hash-checked wheels into a folder, without what no process of ours runs."""
    site.mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [str(uv_program()), "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--python-platform", _PLATFORM, "--python", python]
        command += ["--target", str(site), "--requirement", file.name]
        _run(command, site)
    for pattern in recipe.UNWANTED_PYTHON:
        for path in site.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def environment(requirements: str, tree: Path) -> None:
    """Lay out a relocatable virtual environment with these packages."""
    install(requirements, tree / _SITE)
    programs = tree / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(f"/usr/bin/python{recipe.PYTHON}")
    for name in ("python3", f"python{recipe.PYTHON}"):
        (programs / name).symlink_to("python")
    config = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {recipe.PYTHON}\n"
    (tree / "pyvenv.cfg").write_text(config)


def own_code(root: Path, package: str, tree: Path) -> None:
    """Build the wheel of one of our distributions and lay it into an environment's tree."""
    with tempfile.TemporaryDirectory(prefix="slipway-wheel-") as scratch:
        command = [str(uv_program()), "build", "--quiet", "--wheel", "--package", package, "--out-dir", scratch]
        _run(command, root)
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree / _SITE)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr.strip()[-3000:]}")
    return done.stdout
