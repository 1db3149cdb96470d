"""Write what is generated from the API: ``python -m slipway_operator.api [ROOT]``.

``crds/`` for people and `kubectl apply`, the chart's copy (a chart cannot reach
out of its own directory), and the tables of docs/spec/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from slipway_operator.api.crd import all_crds
from slipway_operator.api.reference import with_tables

HEADER = "# Written by `make crds` from operator/src/slipway_operator/api: edit that.\n"

CRD_DIRECTORIES = ("crds", "charts/slipway/files/crds")


class _PlainDumper(yaml.SafeDumper):
    """No anchors: a shared rule is written out where it holds."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def render(crd: dict[str, Any]) -> str:
    """A CRD as YAML."""
    return HEADER + yaml.dump(crd, Dumper=_PlainDumper, sort_keys=False, width=10_000, allow_unicode=True)


def generated(root: Path) -> dict[Path, str]:
    """Every generated file and its text; the pages of docs/spec/ keep what stands around their tables."""
    files: dict[Path, str] = {}
    for name, crd in all_crds().items():
        for directory in CRD_DIRECTORIES:
            files[root / directory / name] = render(crd)
        page = root / "docs" / "spec" / f"{crd['spec']['names']['singular']}.md"
        if page.exists():
            files[page] = with_tables(page.read_text(encoding="utf-8"), crd)
    return files


def main() -> None:
    """Write the files below ROOT (default: the working directory)."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path, text in generated(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
