"""What the dataplane expects of an engine."""

from __future__ import annotations

from typing import Protocol

from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.tensors import Array


class Engine(Protocol):
    """Something that computes a model's answers."""

    waits: bool
    """Whether a run waits for another process, and so may not be done on the loop's thread."""

    def is_ready(self) -> bool:
        """Tell whether it could be asked now. Called twice a second."""
        ...

    def run(self, feeds: Feeds) -> list[Array]:
        """Compute.

        Args:
            feeds: Arrays by name in the model's graph, each with the same number of rows.

        Returns:
            All outputs in the signature's order.

        Raises:
            Refused: If the model cannot compute an answer for these values.
            EngineFailed: If it broke for another reason.
        """
        ...
