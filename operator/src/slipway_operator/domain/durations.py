"""Durations as a person reads them and times as Kubernetes writes them (`api.parse_duration` reads durations)."""

from __future__ import annotations

from datetime import UTC, datetime


def words_of(seconds: float) -> str:
    """A duration as a person reads it: ``45s``, ``2m``, ``1h30m``."""
    rest = max(0, round(seconds))
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts) or "0s"


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp as an aware datetime."""
    return datetime.fromisoformat(text)


def format_time(moment: datetime) -> str:
    """A datetime as Kubernetes writes it: UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
