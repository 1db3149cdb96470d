"""Which models a server has: a file of JSON that names each with its version, digest and folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from slipway_runtime.errors import CannotServe
from slipway_runtime.model import ModelOptions, WorkerOptions

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODELS = 100
_EXAMPLE = '{"models": [{"name": "fraud", "version": "3b1f09c2aa", "digest": "sha256:…", "folder": "fraud"}]}'


def read_listing(path: Path, common: ModelOptions) -> list[ModelOptions]:
    """Read the file.

    Args:
        path: The file; folders in it are relative to its own.
        common: What a model has that says nothing else of it.

    Raises:
        CannotServe: If it cannot be read, or is not as it should be.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise CannotServe(f"{path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise CannotServe(f"{path} is not JSON: {error}") from None
    items = document.get("models") if isinstance(document, dict) and document.keys() == {"models"} else None
    if not isinstance(items, list) or not 1 <= len(items) <= _MODELS:
        raise CannotServe(f"{path} must name 1 to {_MODELS} models: {_EXAMPLE}")
    models = [_model(item, f"models[{place}] of {path}", path.parent, common) for place, item in enumerate(items)]
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CannotServe(f"{path} has more than one model called {', '.join(twice)}; names must differ")
    return models


def _model(item: Any, where: str, folder: Path, common: ModelOptions) -> ModelOptions:
    fields = _Fields(item, where, {"name", "version", "digest", "folder", "worker", "batchRows", "maxRows"})
    options = replace(
        common,
        name=fields.text("name", NAME, "letters, digits, '.', '_' and '-' only"),
        version=fields.text("version", NAME, "letters, digits, '.', '_' and '-' only"),
        digest=fields.text("digest", DIGEST, "sha256: and 64 hexadecimal digits"),
        folder=folder / fields.text("folder"),
        max_rows=fields.number("maxRows", common.max_rows, int),
        plane=replace(common.plane, batch_rows=fields.number("batchRows", common.plane.batch_rows, int)),
    )
    if (given := item.get("worker")) is None:
        return options
    worker = _Fields(given, f"worker of {where}", {"socket", "model", "seconds", "startSeconds"})
    usual = WorkerOptions(folder / worker.text("socket"), worker.text("model", default="model.joblib"))
    own = replace(
        usual,
        seconds=worker.number("seconds", usual.seconds, float),
        start_seconds=worker.number("startSeconds", usual.start_seconds, float),
    )
    return replace(options, worker=own)


class _Fields:
    """The fields of one object."""

    def __init__(self, item: Any, where: str, known: set[str]) -> None:
        if not isinstance(item, dict):
            raise CannotServe(f"{where} must be an object: {_EXAMPLE}")
        if unknown := sorted(item.keys() - known):
            raise CannotServe(f"{where} has {unknown[0]}, which is unknown; it may have {', '.join(sorted(known))}")
        self._item = item
        self._where = where

    def text(self, name: str, form: re.Pattern[str] | None = None, what: str = "", default: str | None = None) -> str:
        value = self._item.get(name, default)
        if not isinstance(value, str) or not value or (form is not None and not form.fullmatch(value)):
            raise CannotServe(f"{self._where} must have {name}: {what or 'a text'}")
        return value

    def number(self, name: str, default: float, kind: Callable[[Any], Any]) -> Any:
        value = self._item.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0 or kind(value) != value:
            raise CannotServe(f"{name} of {self._where} must be a {'whole ' if kind is int else ''}number above 0")
        return kind(value)
