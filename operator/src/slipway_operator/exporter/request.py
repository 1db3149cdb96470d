"""The operator's requests, read with the standard library (see ``slipway_operator.domain.requests``)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import Failure

VARIABLE = "SLIPWAY_REQUEST"


@dataclass(frozen=True)
class Places:
    """Where things are; a test or a laptop puts them elsewhere by environment variables."""

    work: Path
    project: Path
    tools: Path

    @classmethod
    def from_environment(cls) -> Places:
        """Read the places, with the images' layout as the default."""
        here = Path(__file__).resolve().parent
        return cls(
            work=Path(os.environ.get("SLIPWAY_WORK", "/workspace")),
            project=Path(os.environ.get("SLIPWAY_PROJECT", "/opt/project")),
            tools=Path(os.environ.get("SLIPWAY_TOOLS", str(here.parent / "tools"))),
        )


@dataclass(frozen=True)
class TrainRequest:
    """Run this command, then take this file."""

    command: tuple[str, ...]
    timeout_seconds: float
    model_path: str
    metrics_path: str | None


@dataclass(frozen=True)
class ExportRequest:
    """Convert this model and prove it on these rows, within these limits."""

    model_path: str
    trained: bool
    example: str
    max_absolute_difference: float
    max_label_flips: int
    timeout_seconds: float
    native: bool = False
    """A model that cannot be ONNX is to be answered by itself, instead of being refused."""
    function: str | None = None
    """``module:function`` of the project that answers instead of the model's own methods; never ONNX."""


def _raw() -> dict[str, Any]:
    try:
        value = json.loads(os.environ[VARIABLE])
    except KeyError:
        raise Failure("RequestInvalid", f"{VARIABLE} is not set: the operator starts this program.") from None
    except ValueError as error:
        raise Failure("RequestInvalid", f"{VARIABLE} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise Failure("RequestInvalid", f"{VARIABLE} is not a JSON object.")
    return value


def train_request() -> TrainRequest:
    """Read `TrainRequest` from the environment."""
    raw = _raw()
    try:
        metrics = raw.get("metricsPath")
        return TrainRequest(
            command=tuple(str(item) for item in raw["command"]),
            timeout_seconds=float(raw["timeoutSeconds"]),
            model_path=str(raw["modelPath"]),
            metrics_path=None if metrics is None else str(metrics),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Failure("RequestInvalid", f"The training request lacks {error}.") from error


def export_request() -> ExportRequest:
    """Read `ExportRequest` from the environment."""
    raw = _raw()
    try:
        return ExportRequest(
            model_path=str(raw["modelPath"]),
            trained=raw.get("trained") is not None,
            example=str(raw["example"]),
            max_absolute_difference=float(raw["maxAbsoluteDifference"]),
            max_label_flips=int(raw["maxLabelFlips"]),
            timeout_seconds=float(raw.get("timeoutSeconds", 900)),
            native=raw.get("onFailure") == "ServeNative",
            function=None if raw.get("function") is None else str(raw["function"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Failure("RequestInvalid", f"The export request lacks {error}.") from error
