"""An endpoint that belongs to one model among several."""

from __future__ import annotations

from typing import Self


class ModelEndpoint(str):
    """To everybody the endpoint's name, as the metrics have it; to who asks, the model's, too."""

    __slots__ = ("model",)

    model: str

    def __new__(cls, name: str, model: str) -> Self:
        """Make one."""
        made = super().__new__(cls, name)
        made.model = model
        return made


def model_of(endpoint: str) -> str:
    """Give the model's name; nothing where there is but one, or for what belongs to none."""
    return endpoint.model if isinstance(endpoint, ModelEndpoint) else ""
