"""Taking files that a project's code has written: regular ones, inside the project, of a sane size."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from .failure import Failure

MODEL_LIMIT = 4 << 30
"""Bytes of a model file; as many as a runtime takes of a model that is answered by a worker."""

ONNX_LIMIT = 2 << 30
"""Bytes of an ONNX file: a message of protobuf has no more, nor does a runtime load more."""

MODEL_SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops", ".cloudpickle", ".onnx")


def resolve_inside(root: Path, relative: str) -> Path:
    """Give the path of a file below ``root``.

    Raises:
        Failure: ``ModelFileUnsafe`` where the path leaves the project, by ``..`` or by a symbolic link.
    """
    base = root.resolve()
    path = (root / relative).resolve()
    if base != path and base not in path.parents:
        message = (
            f"{relative} leads out of the project (to {path}). "
            "Write the file itself into the project, not a link to another place."
        )
        raise Failure("ModelFileUnsafe", message)
    return path


def take(source: Path, target: Path, *, named: str, limit: int = MODEL_LIMIT) -> None:
    """Copy a regular file without following a link at its end.

    Raises:
        Failure: ``ModelFileUnsafe`` for anything but a regular file within the limit.
        FileNotFoundError: There is none.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Failure("ModelFileUnsafe", f"{named} cannot be read: {error.strerror}.") from error
    # What was opened is looked at, not the name: the name may point elsewhere a moment later.
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Failure("ModelFileUnsafe", f"{named} is not a regular file. Write the model to a plain file.")
    with os.fdopen(descriptor, "rb") as stream:
        if found.st_size > limit:
            message = f"{named} has {found.st_size} bytes, more than the {limit} that a model may have."
            raise Failure("ModelFileUnsafe", message)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)


def mark(path: Path) -> tuple[int, int, int] | None:
    """Give what tells one writing of a file from another; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def models_written_since(root: Path, moment: float, *, most: int = 5) -> list[str]:
    """Name the files below ``root`` that look like a model and were written after a moment, newest first."""
    found: list[tuple[float, str]] = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in {".git", ".venv", "__pycache__"})
        for name in files:
            if name.lower().endswith(MODEL_SUFFIXES):
                path = Path(folder, name)
                try:
                    written = path.lstat().st_mtime
                except OSError:
                    continue
                if written >= moment:
                    found.append((-written, str(path.relative_to(root))))
    return [name for _, name in sorted(found)[:most]]
