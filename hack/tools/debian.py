"""Programs from Debian's packages, installed when they are missing and the machine lets us."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools import say
from tools.catalogue import DEBIAN
from tools.refusal import Refused

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> Path | None:
    """Return where a program of the system is, or None; a user's PATH may lack the sbin folders."""
    if program.startswith("/"):
        return Path(program) if Path(program).exists() else None
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    return Path(found) if found else None


def ensure(programs: Iterable[str]) -> dict[str, Path]:
    """Return where each program is, installing the packages of those that are missing.

    Raises:
        Refused: A package is missing and cannot be installed here.
    """
    wanted = tuple(programs)
    missing = sorted({DEBIAN[program] for program in wanted if find(program) is None})
    if missing:
        _install(missing)
    paths = {program: find(program) for program in wanted}
    absent = sorted(program for program, path in paths.items() if path is None)
    if absent:
        raise Refused(f"{', '.join(absent)} is still missing after installing {', '.join(missing)}: see apt's output.")
    return {program: path for program, path in paths.items() if path is not None}


def _install(packages: list[str]) -> None:
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if find("apt-get") is None:
        raise Refused(f"These Debian packages (or your system's own) are needed: {', '.join(packages)}. Install them.")
    if os.geteuid() != 0:
        raise Refused(f"Debian packages are missing and only root may install them: run `sudo {by_hand}` once.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    with say.step(f"installing Debian's {', '.join(packages)}", "about 30 seconds"):
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            # The usual cause is a package list that was never read or is old.
            subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
            done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "apt-get said nothing").splitlines()[-1]
        raise Refused(f"Debian's packages could not be installed: {last} Try `{by_hand}` by hand.")
