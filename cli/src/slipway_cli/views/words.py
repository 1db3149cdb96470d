"""Ages, short names and other words that all views share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slipway_operator.domain.labels import PAUSED

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COMMIT = 12


def age(since: str | None, now: datetime) -> str:
    """How long ago, as kubectl writes it: ``45s``, ``12m``, ``5h30m``, ``3d``."""
    if not since:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    return f"{hours}h" if days < 2 else f"{days}d"


def took(started: str | None, finished: str | None) -> str:
    """The time between two moments, or nothing."""
    return age(started, datetime.fromisoformat(finished)) if started and finished else ""


def seconds_of(duration: str) -> float:
    """A duration such as ``90s``, ``10m`` or ``1h30m`` in seconds.

    Raises:
        ValueError: It is none.
    """
    if duration.isdigit():
        return float(duration)
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", duration):
        raise ValueError(duration)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", duration))


def short(digest: str | None) -> str:
    """A digest or commit, cut to what people compare."""
    return (digest or "").removeprefix("sha256:")[:_COMMIT]


def condition(resource: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition, or an empty one."""
    conditions: Sequence[Mapping[str, Any]] = (resource.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def is_true(resource: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and True."""
    return condition(resource, kind).get("status") == "True"


def source_words(spec: Mapping[str, Any]) -> str:
    """Where a spec takes its project from, in a few words."""
    source = spec.get("source") or {}
    if git := source.get("git"):
        inside = f" {git['path']}" if git.get("path") not in {None, "."} else ""
        return f"git {git.get('url')} {git.get('ref', 'HEAD')}{inside}{' (followed)' if git.get('follow') else ''}"
    if svn := source.get("svn"):
        return f"svn {svn.get('url')} {svn.get('revision', 'HEAD')}"
    if package := source.get("package"):
        return f"package {package.get('image')}"
    return "no source"


def is_paused(resource: Mapping[str, Any]) -> bool:
    """Whether it says that it waits, and something still asks it to: a pause ends before the operator says so."""
    spec, annotations = resource.get("spec") or {}, resource["metadata"].get("annotations") or {}
    asked = annotations.get(PAUSED) == "true" or (spec.get("rollout") or {}).get("paused") is True
    return asked and condition(resource, "Ready").get("reason") == "Paused"
