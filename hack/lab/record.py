"""What a test saw over time, kept for those who want to look: ``build/records/<name>.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lab.install import ROOT

RECORDS = ROOT / "build" / "records"


def write_record(name: str, seen: Mapping[str, Any]) -> None:
    """Write or replace a record."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    (RECORDS / f"{name}.json").write_text(json.dumps(dict(seen), indent=1) + "\n")
