"""Digests of plain data: one canonical form, so that equal data always has an equal name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHORT = 10
"""Hex digits in names: 40 bits are plenty for the few contents of one deployment."""
_EXPONENT_FROM = 1e21
"""Go writes numbers from here on with an exponent; they are read as floats again."""


def canonical_json(value: Any) -> bytes:
    """Encode plain data with sorted keys, no spaces, no point in whole numbers, and UTF-8.

    Raises:
        ValueError: the data holds NaN or an infinity, which JSON cannot say.
    """
    return json.dumps(
        _with_plain_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_of(value: Any) -> str:
    """SHA-256 of the canonical JSON, as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def short10(digest: str) -> str:
    """The first ten hex digits of a digest, for names and labels."""
    return digest.removeprefix("sha256:")[:SHORT]


def short_of(value: Any) -> str:
    """Short digest of plain data."""
    return short10(sha256_of(value))


def _with_plain_numbers(value: Any) -> Any:
    """0.0 as 0: the API server gives it back so, and what went through it must keep its name."""
    if isinstance(value, dict):
        return {name: _with_plain_numbers(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_numbers(child) for child in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXPONENT_FROM
    return int(value) if whole else value
