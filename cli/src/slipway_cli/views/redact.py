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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

GONE = "[redacted]"

_SHORTEST = 6
"""Shorter values are not searched for elsewhere: they would blot out ordinary words."""

_KEY = re.compile(
    r"passw(?:or)?d|passphrase|secret(?!_?name)|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|credential|"
    r"authori[sz]ation|bearer|cookie|dockerconfig|connection[-_.]?string|\bdsn\b|signing|htpasswd|pgpass|"
    # Words of their own: `DB_PASS` and `dbPass`, neither `bypass` nor `passenger`.
    r"(?<![a-z])(?:pass|pwd)(?![a-z])|(?-i:(?<=[a-z])(?:Pass|Pwd)(?![a-z]))",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"(secret|token)[-_]?names?$|secretkeyref|automountserviceaccounttoken|tokenexpiration", re.IGNORECASE
)
# From a word's start, and bounded: a megabyte without a space must not be searched from each of its letters.
_WORD = rf"[\w.-]{{0,64}}?(?:{_KEY.pattern})[\w.-]{{0,64}}"
# A quote as it stands in a text, or in JSON within JSON, where backslashes are before it.
_QUOTE = r"\\{0,7}[\"']"


def _quoted(group: str) -> str:
    """A pattern of a quoted value up to its own closing quote, or to the line's end where there is none.

    The quotes within it have more backslashes before them; an even number of times as many
    (and one) are backslashes of the value's own.
    """
    mark = rf"(?P={group})"
    closing = rf"(?<!\\)(?:{mark}\\{mark}\\)*{mark}(?P={group}q)"
    return rf"(?P<{group}>\\{{0,7}})(?P<{group}q>[\"'])[^\n]*?(?:{closing}|(?=\n|\Z))"


_BARE = r"(?:[^\s\"',;&)}\]\[{\\]|\\(?![\"']))(?:[^\s\"',;&)}\]\\]|\\(?![\"']))*"
# Strings of a list, without groups: Python 3.11 loses those in a repetition that gives nothing back.
_STRING = r"\\{1,7}[\"'][^\"'\n]*[\"']|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
# A list of plain values, over lines where it ends, or up to its line's end; one of objects (`[{`) is searched inside.
_LIST = (
    rf"\[(?:{_STRING}|[^\]\[{{}}\"'])*+\]|"
    rf"\[(?:{_STRING}|[^\]\[{{}}\"'\n])*+(?:[\"'][^\n]*)?"
)
_ITEM = re.compile(rf"{_quoted('i')}|[^\s\"',\]]+")
_FLAG = re.compile(
    rf"((?<![\w.-])--?{_WORD})(=|\s+|{_QUOTE}\s*,\s*)({_quoted('v')}|{_LIST}|[^\s\"',\]]+)", re.IGNORECASE
)
_ASSIGNED = re.compile(rf"((?<![\w.-]){_WORD}(?:{_QUOTE})?\s*[=:]\s*)({_quoted('v')}|{_LIST}|{_BARE})", re.IGNORECASE)
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
        if _is_scalar(value) and _is_secret_key(key):
            return self._gone(str(value))
        if isinstance(value, list) and _is_secret_key(key):
            return self._secrets(value, (*path, key))
        return self._places(value, (*path, key))

    def _secrets(self, values: list[Any], path: tuple[str, ...]) -> list[Any]:
        """A list under a secret's key: its plain values go; objects (``imagePullSecrets``) are looked into."""
        return [
            self._gone(str(value))
            if _is_scalar(value)
            else (self._secrets(value, path) if isinstance(value, list) else self._places(value, path))
            for value in values
        ]

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
        before = ""
        for argument in arguments:
            text = str(argument)
            name, equals, value = text.partition("=")
            if before.startswith("-") and "=" not in before and _is_secret_key(before.lstrip("-")):
                # Whatever it looks like: a token may begin with a dash.
                shown.append(self._gone(text))
            elif equals and _is_secret_key(name.lstrip("-")):
                shown.append(f"{name}={self._gone(value)}")
            else:
                shown.append(argument)
            before = text
        return shown

    def _gone(self, value: str) -> str:
        if value.startswith(GONE[:-1]):
            # By an earlier pass; a pattern may have left its last bracket out.
            return value
        if value:
            self.count += 1
            # A number or a word such as "true" is no secret that could be recognised elsewhere.
            if len(value) >= _SHORTEST and not value.isdigit():
                self._known.update(_spellings(value))
        return GONE if value else value

    def _texts(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: self._texts(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._texts(item) for item in value]
        return self._cleaned(value) if isinstance(value, str) else value

    def _cleaned(self, text: str) -> str:
        longest = sorted(self._known, key=len, reverse=True)
        # A value such as `password` is searched for last: without that word, what it stands before would stay.
        text = self._without(text, (known for known in longest if not _KEY.search(known)))
        for form in _FORMS:
            text, found = form.subn(GONE, text)
            self.count += found
        text = _FLAG.sub(lambda m: f"{m[1]}{m[2]}{self._hidden(m[3])}", text)
        text = _ASSIGNED.sub(lambda m: m[0] if _is_harmless(m[1]) else f"{m[1]}{self._hidden(m[2])}", text)
        return self._without(text, (known for known in longest if _KEY.search(known)))

    def _without(self, text: str, known: Iterable[str]) -> str:
        for value in known:
            if value in text:
                self.count += text.count(value)
                text = text.replace(value, GONE)
        return text

    def _hidden(self, value: str) -> str:
        """A value as a text has it: its quotes and brackets stay, so that JSON stays JSON."""
        if value.startswith(GONE[:-1]):
            return value
        if value.startswith("["):
            return "[" + _ITEM.sub(lambda item: self._hidden(item[0]), value[1:])
        opening = re.match(_QUOTE, value)
        mark = opening[0] if opening else ""
        inside = value[len(mark) :]
        closed = bool(mark) and inside.endswith(mark)
        return f"{mark}{self._gone(inside.removesuffix(mark))}{mark if closed else ''}"


def _is_secret_key(key: str) -> bool:
    return bool(_KEY.search(key)) and not _HARMLESS.search(key)


def _is_harmless(key: str) -> bool:
    return bool(_HARMLESS.search(key.strip(" \t\r\n=:\"'\\")))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _spellings(value: str) -> Iterator[str]:
    """A value as texts may have it: plain, in JSON, and in JSON within JSON."""
    yield value
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
