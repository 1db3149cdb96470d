"""Calls one hook of a build back-end, as PEP 517 specifies it, in a process of its own.

Run as a file, with the interpreter that the wheel is for: ``pep517.py TOOLS WHEELS BACKEND
[PATH…]`` in the source tree. Standard library only, and nothing of Slipway.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(tools: str, wheels: str, backend: str, *paths: str) -> None:
    """Build a wheel of the current directory.

    Args:
        tools: Folder that the back-end is installed in.
        wheels: Where to put the wheel.
        backend: ``module:object`` of ``[build-system]``.
        paths: Folders of the tree in which to look for the back-end first.
    """
    # The script's own folder comes first on the path: it holds modules named as others are.
    sys.path[0] = tools
    for path in reversed(paths):
        sys.path.insert(0, str(Path(path).resolve()))
    module, _, attribute = backend.partition(":")
    hooks = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        hooks = getattr(hooks, part)
    hooks.build_wheel(wheels, {}, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
