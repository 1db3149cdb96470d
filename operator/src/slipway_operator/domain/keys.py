"""What names one object that a worker looks after."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """Namespace and name of one custom resource; the unit of work, of locks and of logs."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
