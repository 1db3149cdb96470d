"""The page at ``/``: what the model takes and gives, a form to try it, and how to call it from a program.

One file of HTML with its style and script inside: no framework and nothing from elsewhere, which
the Content-Security-Policy holds it to. Everything can be read without JavaScript; the form needs it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from string import Template
from typing import Any

from slipway_runtime.http.page.snippets import snippets
from slipway_runtime.protocol.datatypes import Datatype
from slipway_runtime.protocol.signature import Signature

CONTENT_TYPE = b"text/html; charset=utf-8"

_HOST = re.compile(rb"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_COLUMNS = 200
"""Fields of the form; a model of more columns is tried by a program."""


class Page:
    """The page of one model."""

    def __init__(self, signature: Signature, name: str, version: str, example: dict[str, Any], base: str = "") -> None:
        """Prepare everything but the address, which depends on how the runtime was reached.

        Args:
            signature: The model's.
            name: The model's name.
            version: Of the content.
            example: A known good value for each column; empty where the model takes no rows.
            base: Where ``/predict`` is, for one of several models.
        """
        self._base = base
        files = resources.files(__name__)
        style = files.joinpath("page.css").read_text("utf-8")
        script = files.joinpath("page.js").read_text("utf-8")
        self._example = example
        specs = list(signature.column_specs.items())[:_COLUMNS] if signature.takes_columns else []
        fields = "\n".join(_field(column, spec.datatype, example.get(column)) for column, spec in specs)
        takes = [(column, spec.datatype) for column, spec in specs]
        takes = takes or [(spec.name, spec.datatype) for spec in signature.inputs]
        many = signature.takes_columns and len(signature.column_specs) > _COLUMNS
        text = Template(files.joinpath("page.html").read_text("utf-8")).safe_substitute(
            style=style,
            base=html.escape(base, quote=True),
            others=' · <a href="/">all models</a>' if base else "",
            script=script,
            name=html.escape(name),
            version=html.escape(version),
            task=html.escape(signature.task if signature.task != "unknown" else "model"),
            fields=fields,
            form_class="hidden" if many or not specs else "",
            inputs="\n".join(_input_line(column, datatype, example.get(column)) for column, datatype in takes),
            outputs="\n".join(
                f"<tr><td><code>{html.escape(spec.name)}</code></td><td>{spec.datatype.name}</td>"
                f"<td>{html.escape(str(list(spec.shape)).replace('-1', 'n'))}</td></tr>"
                for spec in signature.outputs
            ),
            classes=_classes(signature),
        )
        self._before, rest = text.split("<!--tabs-->")
        self._between, self._after = rest.split("<!--snippets-->")
        self.headers = headers_for(style, script)

    def render(self, host: bytes | None, *, secure: bool = False) -> bytes:
        """Write the page for the host by which it was asked; ``secure``: over TLS."""
        scheme = "https" if secure else "http"
        address = host.decode() if host is not None and _HOST.fullmatch(host) else "localhost:8080"
        parts = snippets(f"{scheme}://{address}{self._base}", self._example) if self._example else []
        tabs = "\n".join(
            f'<input type="radio" name="language" id="tab-{place}"{" checked" if not place else ""}>'
            f'<label for="tab-{place}">{language}</label>'
            for place, (language, _) in enumerate(parts)
        )
        blocks = "\n".join(
            f'<div class="snippet"><button type="button" class="copy" hidden>Copy</button>'
            f"<h3>{language}</h3><pre><code>{html.escape(text)}</code></pre></div>"
            for language, text in parts
        )
        return f"{self._before}{tabs}{self._between}{blocks}{self._after}".encode()


def headers_for(style: str, script: str) -> bytes:
    """Write the header lines of a page that runs its own script and style and nothing else."""
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return (
        f"content-security-policy: {policy}\r\nx-content-type-options: nosniff\r\n"
        "referrer-policy: no-referrer\r\ncache-control: no-store\r\n"
    ).encode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _kind(datatype: Datatype) -> str:
    if datatype.is_text:
        return "text"
    if datatype.code == "?":
        return "yes or no"
    return "whole number" if datatype.is_integer else "number"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _field(column: str, datatype: Datatype, value: Any) -> str:
    name = html.escape(column, quote=True)
    kind = "text" if datatype.is_text else "boolean" if datatype.code == "?" else "number"
    if kind == "boolean":
        options = "".join(
            f'<option value="{text}"{" selected" if value is (text == "true") else ""}>{text}</option>'
            for text in ("true", "false")
        )
        control = f'<select name="{name}" data-kind="boolean">{options}</select>'
    else:
        mode = ' inputmode="decimal"' if kind == "number" else ""
        control = (
            f'<input name="{name}" data-kind="{kind}"{mode} value="{html.escape(_shown(value), quote=True)}" '
            f'placeholder="missing" autocomplete="off">'
        )
    return f"<label><span>{name}</span>{control}</label>"


def _input_line(column: str, datatype: Datatype, value: Any) -> str:
    missing = "" if datatype.code == "?" or datatype.is_integer else ", or missing"
    return (
        f"<tr><td><code>{html.escape(column)}</code></td><td>{_kind(datatype)}{missing}</td>"
        f"<td>{datatype.name}</td><td>{html.escape(_shown(value))}</td></tr>"
    )


def _classes(signature: Signature) -> str:
    if not signature.classes:
        return ""
    shown = ", ".join(f"<code>{html.escape(str(value))}</code>" for value in signature.classes[:50])
    return f"<p>Classes: {shown}{' …' if len(signature.classes) > 50 else ''}</p>"
