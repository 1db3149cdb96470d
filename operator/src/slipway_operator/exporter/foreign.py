"""The libraries of the project and of the tools layer, imported when they are needed.

They are `Any` to the type checker on purpose: which version is there is the
project's decision, and no stubs describe all of them at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


class _Lazy:
    """A module that is imported at its first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def lazy(name: str) -> Any:
    """Give a stand-in for a module that is imported when an attribute is asked for."""
    return _Lazy(name)


def has(name: str) -> bool:
    """Tell whether the project's environment has a top-level package."""
    return importlib.util.find_spec(name) is not None


np = lazy("numpy")
"""NumPy of the project: every supported model needs it."""

pd = lazy("pandas")
"""pandas of the project: there where a model was fitted on frames."""
