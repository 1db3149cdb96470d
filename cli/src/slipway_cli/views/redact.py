"""Takes secrets out of what leaves the cluster in a support bundle.

Two passes. What is a secret by its place (environment values, keys such as ``password``,
arguments such as ``--token``) is replaced, and remembered; then every text is searched for
what was remembered and for what is a secret by its form (keys, tokens, passwords in URLs).
Whatever is doubtful goes: a bundle that says too little can be asked about, one that says
too much cannot be called back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

GONE = "[redacted]"

_SHORTEST = 6
"""Shorter values are not searched for elsewhere: they would blot out ordinary words."""

_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret(?!_?name)|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|credential|"
    r"authori[sz]ation|bearer|cookie|dockerconfig|connection[-_.]?string|\bdsn\b|\bpwd\b|signing|htpasswd",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"(secret|token)[-_]?names?$|secretkeyref|automountserviceaccounttoken|tokenexpiration", re.IGNORECASE
)
# From a word's start, and bounded: a megabyte without a space must not be searched from each of its letters.
_WORD = rf"[\w.-]{{0,64}}?(?:{_KEY.pattern})[\w.-]{{0,64}}"
_FLAG = re.compile(rf"((?<![\w.-])--?{_WORD})(=|\s+|\"\s*,\s*\")(\"[^\"]*\"|'[^']*'|[^\s\"',\]]+)", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"((?<![\w.-])[\"']?{_WORD}[\"']?\s*[=:]\s*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;&)}}\]]+)", re.IGNORECASE
)
_FORMS = (
    re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"),  # user:password@ of a URL
    re.compile(r"(?<=://)[^/\s:@\"']{8,}(?=@)"),  # token@ of a URL
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9+/._~=-]{8,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # JSON web token
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,})"),
    re.compile(r"\b(?:xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,}|pypi-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{20,})"),
    re.compile(r"\bAIza[A-Za-z0-9_-]{30,}"),
    re.compile(
        r"(?<=[?&])(?:sig|signature|x-amz-signature|x-amz-security-token|x-amz-credential|key|auth)=[^&\s\"']+",
        re.IGNORECASE,
    ),
)
_NOISE = ("managedFields",)
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_OWN_VARIABLES = frozenset(
    {
        "SLIPWAY_REQUEST",
        "SLIPWAY_LOG_LEVEL",
        "SLIPWAY_PROJECT_BYTES",
        "SLIPWAY_MODEL_BYTES",
        "SSL_CERT_FILE",
        "DOCKER_CONFIG",
    }
)
_JSON_VARIABLE = "SLIPWAY_REQUEST"


class Redactor:
    """Redacts everything of one bundle; what it learns from one object counts for all that follow.

    Objects should therefore come before logs.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self.count = 0

    def object(self, manifest: Any) -> Any:
        """An API object (or any plain data) without secrets, and without what only fills pages."""
        return self._texts(self._places(manifest, ()))

    def text(self, text: str) -> str:
        """A log's text without secrets."""
        return self._cleaned(text)

    def _places(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            if value.get("kind") == "Secret":
                return {"kind": "Secret", "metadata": {"name": (value.get("metadata") or {}).get("name")}, "data": GONE}
            return {str(k): self._field(str(k), v, path) for k, v in value.items() if k not in _NOISE and k != _APPLIED}
        if isinstance(value, list):
            return self._list(value, path)
        return value

    def _field(self, key: str, value: Any, path: tuple[str, ...]) -> Any:
        if key in {"command", "args"} and isinstance(value, list):
            return self._arguments(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and _is_secret_key(key):
            return self._gone(str(value))
        if path and path[-1] in {"data", "stringData"} and isinstance(value, str) and _is_secret_key(key):
            return self._gone(value)
        return self._places(value, (*path, key))

    def _list(self, value: list[Any], path: tuple[str, ...]) -> list[Any]:
        if path and path[-1] in {"env", "initEnv"}:
            return [self._variable(item) if isinstance(item, Mapping) else item for item in value]
        return [self._places(item, path) for item in value]

    def _variable(self, variable: Mapping[str, Any]) -> dict[str, Any]:
        """An environment variable: people put passwords there under any name, so only our own ones stay."""
        shown = {str(k): self._places(v, ("env",)) for k, v in variable.items() if k != "value"}
        if "value" not in variable:
            return shown
        name, value = str(variable.get("name")), str(variable["value"])
        if name == _JSON_VARIABLE:
            try:
                return {**shown, "value": json.dumps(self._places(json.loads(value), ()))}
            except ValueError:
                return {**shown, "value": self._gone(value)}
        return {**shown, "value": value if name in _OWN_VARIABLES else self._gone(value)}

    def _arguments(self, arguments: list[Any]) -> list[Any]:
        shown: list[Any] = []
        for argument in arguments:
            before = shown[-1] if shown else None
            text = str(argument)
            name, equals, value = text.partition("=")
            if (
                isinstance(before, str)
                and before.startswith("-")
                and "=" not in before
                and _is_secret_key(before.lstrip("-"))
            ):
                shown.append(self._gone(text) if not text.startswith("-") else text)
            elif equals and _is_secret_key(name.lstrip("-")):
                shown.append(f"{name}={self._gone(value)}")
            else:
                shown.append(argument)
        return shown

    def _gone(self, value: str) -> str:
        if value.startswith(GONE[:-1]):
            # By an earlier pass; a pattern may have left its last bracket out.
            return value
        if value:
            self.count += 1
            # A number or a word such as "true" is no secret that could be recognised elsewhere.
            if len(value) >= _SHORTEST and not value.isdigit():
                self._known.add(value)
        return GONE if value else value

    def _texts(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: self._texts(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._texts(item) for item in value]
        return self._cleaned(value) if isinstance(value, str) else value

    def _cleaned(self, text: str) -> str:
        for known in sorted(self._known, key=len, reverse=True):
            if known in text:
                self.count += text.count(known)
                text = text.replace(known, GONE)
        for form in _FORMS:
            text, found = form.subn(GONE, text)
            self.count += found
        text = _FLAG.sub(lambda m: f"{m[1]}{m[2]}{self._gone(m[3])}", text)
        return _ASSIGNED.sub(lambda m: m[0] if _kept(m[1], m[2]) else f"{m[1]}{self._gone(m[2])}", text)


def _is_secret_key(key: str) -> bool:
    return bool(_KEY.search(key)) and not _HARMLESS.search(key)


def _kept(key: str, value: str) -> bool:
    name = key.strip(" \t=:\"'")
    return value.startswith(("{", "[")) or bool(_HARMLESS.search(name))
