"""Byte code for a tree of Python files, equal whenever the sources are.

Python's own compiler of trees writes the source's time and size into each file and lets
reference counts of the moment reach the bytes. Here a ``.pyc`` carries the source's hash,
which nobody checks at import (a layer is read-only), and is written in marshal's format 2,
which has no references. Shipping it saves each pod the compilation that a read-only root
file system could never keep.

Standard library only, and nothing of Slipway: the file is also run by itself, once a worker,
with the interpreter that the tree is for.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import subprocess
import sys
from pathlib import Path

WORKERS = 2
_SKIPPED = frozenset({"__pycache__", "tests", "test"})
_MARSHAL_VERSION = 2
_UNCHECKED_HASH = (0b01).to_bytes(4, "little")


def compile_tree(root: Path, prefix: str, *, python: str = sys.executable) -> None:
    """Write ``__pycache__`` files for every ``.py`` below ``root``.

    What does not compile (templates, sources for other versions) is left out, as pip does.
    So are the packages' own tests, half of all sources in a scientific environment: Python
    compiles them when somebody does import them.

    Args:
        root: Directory with the sources.
        prefix: Where it will be in the image, such as ``/opt/env``: the path that tracebacks show.
        python: The interpreter that the byte code is for; its version must be the image's.

    Raises:
        subprocess.CalledProcessError: A worker died.
    """
    command = [python, "-I", "-S", "-B", "-W", "ignore", __file__, os.fspath(root), prefix]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(WORKERS)]
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    for code in codes:
        if code != 0:
            raise subprocess.CalledProcessError(code, command)


def compile_file(source: Path, shown: str) -> bool:
    """Write the byte code of one file beside it; False when it does not compile."""
    text = source.read_bytes()
    try:
        code = compile(text, shown, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    target = Path(importlib.util.cache_from_source(os.fspath(source)))
    target.parent.mkdir(exist_ok=True)
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(text)
    target.write_bytes(header + marshal.dumps(code, _MARSHAL_VERSION))
    return True


def _work(root: Path, prefix: str, number: int) -> None:
    sources: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        sources += [os.path.join(folder, name) for name in files if name.endswith(".py")]  # noqa: PTH118  # thousands
    for source in sorted(sources)[number::WORKERS]:
        path = Path(source)
        if not path.is_symlink():
            compile_file(path, f"{prefix.rstrip('/')}/{path.relative_to(root).as_posix()}")


if __name__ == "__main__":
    _work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
