"""Digests of plain data: one canonical form, so that equal data always has an equal name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 10
"""Hex digits in names: 40 bits are plenty for the few contents of one deployment."""


def canonical_json(value: Any) -> bytes:
    """Encode plain data with sorted keys, no spaces and UTF-8.

    Raises:
        ValueError: the data holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """SHA-256 of the canonical JSON, as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def short10(digest: str) -> str:
    """The first ten hex digits of a digest, for names and labels."""
    return digest.removeprefix("sha256:")[:SHORT]


def short_of(value: Any) -> str:
    """Short digest of plain data."""
    return short10(sha256_of(value))
