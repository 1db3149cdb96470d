"""uv, from its package on PyPI, at the version that the Makefile pins."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tools import cache
from tools.refusal import Refused

REPOSITORY = Path(__file__).parents[2]


def pinned(makefile: str) -> str:
    """Read uv's version from the Makefile, which needs it before any Python of ours can run.

    Raises:
        Refused: The Makefile names none.
    """
    found = re.search(r"^UV_VERSION\s*:?=\s*(\S+)", makefile, re.MULTILINE)
    if not found:
        raise Refused("The Makefile names no UV_VERSION, so there is no uv to install.")
    return found[1]


def ensure() -> Path:
    """Return the folder with uv, installing it first if it is not in the cache."""
    version = pinned((REPOSITORY / "Makefile").read_text())
    folder = cache.root() / f"uv-{version}"
    with cache.locked(cache.root() / ".locks" / folder.name, folder.name):
        if not (folder / "bin" / "uv").exists():
            installed = subprocess.run(
                ["bash", str(REPOSITORY / "hack" / "install-uv"), version, str(folder)], stdout=2, check=False
            )
            if installed.returncode != 0:
                raise Refused(f"uv {version} could not be installed: see the lines above.")
    return folder / "bin"
