"""The building blocks of both kinds: bases, checks, and scalar types with their rules.

A check is written once and holds twice: as a CEL rule that the API server
evaluates (`x-kubernetes-validations`), and as a pydantic validator for objects
that were stored before the rule existed. Patterns are limited to what Go's RE2
and Python's `re` read alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

VALIDATIONS = "x-kubernetes-validations"

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?")


class SpecModel(BaseModel):
    """Base of everything that a person writes: frozen, camelCase outside, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class StatusModel(BaseModel):
    """Base of what the operator writes: read leniently, since an older or newer operator may have written it."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def to_wire(self) -> dict[str, Any]:
        """What goes to the API server: camelCase, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Check:
    """One rule on a value: CEL for the API server, a predicate for pydantic, one message for people."""

    def __init__(self, rule: str, message: str, holds: Callable[[Any], bool]) -> None:
        self.rule = rule
        self.message = message
        self.holds = holds

    def __call__(self, value: Any) -> Any:
        """Return the value, or raise ``ValueError`` with the message."""
        if not self.holds(value):
            raise ValueError(self.message)
        return value

    def as_validation(self) -> dict[str, str]:
        """The entry for ``x-kubernetes-validations``."""
        return {"rule": self.rule, "message": self.message}


def matches(pattern: str, message: str) -> Check:
    """A check that the whole text matches a pattern."""
    compiled = re.compile(pattern)
    return Check(f"self.matches(r'^({pattern})$')", message, lambda text: compiled.fullmatch(text) is not None)


def checked(*checks: Check) -> Any:
    """The metadata that puts checks on a type: use as ``Annotated[str, *checked(…)]``."""
    rules: dict[str, Any] = {VALIDATIONS: [check.as_validation() for check in checks]}
    return (Field(json_schema_extra=rules), *(AfterValidator(check) for check in checks))


def parse_duration(text: str) -> int:
    """Seconds of a duration such as ``1h30m``, ``90m`` or ``45s``.

    Raises:
        ValueError: The text is not whole hours, minutes and seconds in that order.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise ValueError(f"{text!r} is not a duration such as 45s, 10m or 1h30m")
    hours, minutes, seconds = (int(group or 0) for group in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def duration(minimum: str, maximum: str) -> Any:
    """The metadata of a duration field with bounds, both included."""
    low, high = parse_duration(minimum), parse_duration(maximum)
    form = matches(
        r"([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?",
        "must be whole hours, minutes and seconds in this order, such as 45s, 10m or 1h30m",
    )
    bounds = Check(
        # A text of another form is the other rule's matter: duration() would end in an error here.
        f"!self.matches(r'^([0-9]{{1,6}}h)?([0-9]{{1,6}}m)?([0-9]{{1,7}}s)?$') || "
        f"(duration(self) >= duration('{minimum}') && duration(self) <= duration('{maximum}'))",
        f"must be from {minimum} to {maximum}",
        lambda text: low <= parse_duration(text) <= high,
    )
    return (Field(min_length=2, max_length=24), *checked(form, bounds))


_NO_ESCAPE = Check(
    "!self.split('/').exists(part, part == '..')",
    "must stay inside the project: '..' is not allowed",
    lambda text: ".." not in text.split("/"),
)
_RELATIVE = matches(
    r"[^/\\\x00-\x1f\x7f-][^\\\x00-\x1f\x7f]*",
    "must be a relative path with '/' between its parts: no leading '/' or '-', no backslash, no control character",
)
_A_FILE = Check(
    "!self.endsWith('/') && self != '.'",
    "must name a file, not a directory",
    lambda text: not text.endswith("/") and text != ".",
)

RelativePath = Annotated[str, Field(min_length=1, max_length=512), *checked(_RELATIVE, _NO_ESCAPE)]
"""A path inside the project; ``.`` is the project itself."""

RelativeFile = Annotated[str, Field(min_length=1, max_length=512), *checked(_RELATIVE, _NO_ESCAPE, _A_FILE)]
"""A path of a file inside the project."""

SecretName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    *checked(
        matches(
            r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
            "must be the name of a Secret: lower-case letters, digits, '-' and '.'",
        )
    ),
]
"""The name of a Secret in the object's own namespace."""

Argument = Annotated[
    str,
    Field(max_length=4096),
    *checked(Check("!self.contains('\\u0000')", "must not contain a NUL character", lambda text: "\0" not in text)),
]
"""One argument of a command: passed as it is, read by no shell."""

_QUANTITY = r"([0-9]+(\.[0-9]{0,9})?|\.[0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?"

NumberAsText = BeforeValidator(lambda value: str(value) if type(value) is int else value)
"""Reads YAML's plain whole numbers where the field is text."""

INT_OR_STRING = "x-kubernetes-int-or-string"


def text_matches(pattern: str, message: str) -> Check:
    """As `matches`, for a field that may hold a whole number too."""
    check = matches(pattern, message)
    return Check(check.rule.replace("self.", "string(self).", 1), message, check.holds)


Quantity = Annotated[
    str,
    NumberAsText,
    Field(
        max_length=32,
        json_schema_extra={INT_OR_STRING: True},
        description="A Kubernetes quantity, such as 500m (half a CPU), 2 or 1Gi.",
    ),
    *checked(text_matches(_QUANTITY, "must be a quantity such as 500m, 2 or 1Gi")),
]
"""A Kubernetes quantity; YAML's plain numbers are read too."""
