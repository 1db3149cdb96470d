"""The table of specs that are accepted or refused (tests/unit/api/specs.yaml), as cases."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
API_VERSION = "slipway.dev/v1alpha1"


@dataclass(frozen=True)
class Case:
    """One object and what must become of it."""

    kind: str
    id: str
    manifest: dict[str, Any]
    refused: str | None
    """Part of the message; None: accepted."""
    server_only: bool

    def __str__(self) -> str:
        """Name of the case in a test's report."""
        return f"{self.kind}-{self.id}"


def cases() -> Iterator[Case]:
    """All cases of both kinds."""
    table = yaml.safe_load((ROOT / "tests/unit/api/specs.yaml").read_text(encoding="utf-8"))
    for kind, part in table.items():
        for row in part["cases"]:
            manifest = {"apiVersion": API_VERSION, "kind": kind, **copy.deepcopy(part["base"])}
            for path, value in row.get("set", {}).items():
                above, last = _find(manifest, path)
                above[last] = value
            for path in row.get("without", ()):
                above, last = _find(manifest, path)
                del above[last]
            yield Case(kind, row["id"], manifest, row.get("refused"), row.get("server", False))


def _find(manifest: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *above, last = path.split(".")
    node = manifest
    for name in above:
        node = node.setdefault(name, {})
    return node, last
