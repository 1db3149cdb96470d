"""Entry point: ``python /opt/slipway/exporter train|export|worker|serve``.

Run as a directory, this file has no package, and its directory is the first
entry of ``sys.path``. Both are put right here: the package gets a name of its
own, so that no module of a project can stand in for one of ours, or the other
way round.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "slipway_exporter"
COMMANDS = ("train", "export", "worker", "serve")


def adopt() -> None:
    """Make this directory importable as `PACKAGE`, and only so."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != here]
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"{here} is not the exporter's directory.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def main() -> int:
    """Run one command and give its exit status."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: exporter {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    adopt()
    return int(importlib.import_module(f"{PACKAGE}.{sys.argv[1]}").main())


if __name__ == "__main__":
    sys.exit(main())
