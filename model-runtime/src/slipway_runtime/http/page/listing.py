"""The page at ``/`` of a server that has several models: which they are, with a link to the page of each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib import resources
from string import Template

from slipway_runtime.http.page import CONTENT_TYPE, headers_for
from slipway_runtime.model import Model

__all__ = ["CONTENT_TYPE", "listing"]

_SHOWN = 8


def listing(models: Sequence[Model]) -> tuple[bytes, bytes]:
    """Write the page and its header lines."""
    files = resources.files(__package__ or "")
    style = files.joinpath("page.css").read_text("utf-8")
    text = Template(files.joinpath("listing.html").read_text("utf-8")).safe_substitute(
        style=style, count=len(models), models="\n".join(_line(model) for model in models)
    )
    return text.encode(), headers_for(style, "")


def _line(model: Model) -> str:
    signature = model.signature
    name, version = html.escape(model.name, quote=True), html.escape(model.version)
    takes = list(signature.column_specs) if signature.takes_columns else [spec.name for spec in signature.inputs]
    gives = [spec.name for spec in signature.outputs]
    task = html.escape(signature.task if signature.task != "unknown" else "model")
    return (
        f'<tr><td><a href="/models/{name}">{name}</a></td><td><code>{version}</code></td><td>{task}</td>'
        f"<td>{_names(takes)}</td><td>{_names(gives)}</td></tr>"
    )


def _names(names: Sequence[str]) -> str:
    return html.escape(", ".join(names[:_SHOWN])) + (" …" if len(names) > _SHOWN else "")
