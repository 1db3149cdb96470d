"""Where built tools are kept, and how one gets there: whole or not at all, by one builder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tools import say
from tools.refusal import Refused


def root() -> Path:
    """Return the cache's folder, outside any work tree: ``SLIPWAY_CACHE`` or ``~/.cache/slipway``."""
    return Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway").absolute()


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the kernel frees it when the holder dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with say.step(f"waiting for another process: {what}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def made(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache, made by ``make`` if it is not there yet.

    Args:
        name: Says all that the content depends on, so that an old folder is never wrong.
        make: Fills the empty folder that it is given; what it leaves behind when it fails is thrown away.
    """
    final = root() / name
    if final.is_dir():
        return final
    with locked(root() / ".locks" / name, name):
        if final.is_dir():
            return final
        _drop_interrupted(name)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root()))
        try:
            make(fresh)
            fresh.chmod(0o755)
            fresh.rename(final)
        except OSError as error:
            raise Refused(f"{name} cannot be written to {root()}: {error.strerror}. Free some space there.") from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return final


def _drop_interrupted(name: str) -> None:
    """Remove what a killed builder of the same thing left; we hold its lock, so nobody is at it."""
    for left in root().glob(f".{name}.*"):
        shutil.rmtree(left, ignore_errors=True)
