"""The building blocks of both kinds: bases, checks, and scalar types with their rules.

A check is written once and holds twice: as a CEL rule that the API server
evaluates (`x-kubernetes-validations`), and as a pydantic validator for objects
that were stored before the rule existed. Patterns are limited to what Go's RE2
and Python's `re` read alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?")


class Check:
    """One rule on a value: CEL for the API server, a predicate for pydantic, one message for people.

    Used as metadata: ``Annotated[str, Check(…)]``. Several on one type add up.
    """

    def __init__(self, rule: str, message: str, holds: Callable[[Any], bool], *, expression: str | None = None) -> None:
        """Keep the parts; ``expression`` is CEL that makes a more exact message for the API server."""
        self.rule = rule
        self.message = message
        self.holds = holds
        self.expression = expression

    def require(self, value: Any) -> Any:
        """Return the value, or raise ``ValueError`` with the message."""
        if not self.holds(value):
            raise ValueError(self.message)
        return value

    def as_validation(self) -> dict[str, str]:
        """The entry for ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.message}
        if self.expression is not None:
            entry["messageExpression"] = self.expression
        return entry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check after what the type itself checks."""
        return core_schema.no_info_after_validator_function(self.require, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rule to those that the type has already."""
        json_schema = handler(schema)
        json_schema[VALIDATIONS] = [*json_schema.get(VALIDATIONS, []), self.as_validation()]
        return json_schema


def matches(pattern: str, message: str) -> Check:
    """A check that the whole text matches a pattern."""
    compiled = re.compile(pattern)
    return Check(f"self.matches(r'^({pattern})$')", message, lambda text: compiled.fullmatch(text) is not None)


def unchangeable(field: str) -> Check:
    """A field that keeps the value it was created with; only the API server sees both values."""
    return Check("self == oldSelf", f"{field} cannot be changed: create another object", lambda _: True)


class SpecModel(BaseModel):
    """Base of everything that a person writes: frozen, camelCase outside, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    checks: ClassVar[tuple[Check, ...]] = ()
    """Rules on the object as a whole; their predicates take the model."""

    @model_validator(mode="after")
    def _checks_hold(self) -> Self:
        for check in type(self).checks:
            check.require(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the model's rules."""
        json_schema = handler(schema)
        if cls.checks:
            handler.resolve_ref_schema(json_schema)[VALIDATIONS] = [check.as_validation() for check in cls.checks]
        return json_schema


class StatusModel(BaseModel):
    """Base of what the operator writes: read leniently, since an older or newer operator may have written it."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def to_wire(self) -> dict[str, Any]:
        """What goes to the API server: camelCase, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


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
    return (Field(min_length=2, max_length=24), form, bounds)


_SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``256Mi``.

    Raises:
        ValueError: The text is not a whole number of Ki, Mi or Gi.
    """
    found = re.fullmatch(r"([0-9]{1,6})(Ki|Mi|Gi)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 256Mi")
    return int(found[1]) * _SIZES[found[2]]


def size(minimum: str, maximum: str) -> Any:
    """The metadata of a field for a number of bytes, with bounds, both included."""
    low, high = parse_size(minimum), parse_size(maximum)
    pattern = r"[0-9]{1,6}(Ki|Mi|Gi)"
    form = matches(pattern, "must be a whole number of Ki, Mi or Gi, such as 256Mi")
    bounds = Check(
        # As with durations: a text of another form is the other rule's matter.
        f"!self.matches(r'^({pattern})$') || (quantity(self).compareTo(quantity('{minimum}')) >= 0 && "
        f"quantity(self).compareTo(quantity('{maximum}')) <= 0)",
        f"must be from {minimum} to {maximum}",
        lambda text: low <= parse_size(text) <= high,
    )
    return (Field(min_length=3, max_length=8), form, bounds)


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

RelativePath = Annotated[str, Field(min_length=1, max_length=512), _RELATIVE, _NO_ESCAPE]
"""A path inside the project; ``.`` is the project itself."""

RelativeFile = Annotated[str, Field(min_length=1, max_length=512), _RELATIVE, _NO_ESCAPE, _A_FILE]
"""A path of a file inside the project."""

SecretName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "must be the name of a Secret: lower-case letters, digits, '-' and '.'",
    ),
]
"""The name of a Secret in the object's own namespace."""

Argument = Annotated[
    str,
    Field(max_length=4096),
    Check("!self.contains('\\u0000')", "must not contain a NUL character", lambda text: "\0" not in text),
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


def _is_quantity(text: str) -> str:
    if re.fullmatch(_QUANTITY, text) is None:
        raise ValueError("must be a quantity such as 500m, 2 or 1Gi")
    return text


Quantity = Annotated[
    str,
    NumberAsText,
    Field(
        max_length=32,
        # A pattern and not a rule: the API server cannot bound the cost of a rule on text that may be a number.
        json_schema_extra={INT_OR_STRING: True, "pattern": f"^({_QUANTITY})$", "minimum": 0},
        description="A Kubernetes quantity, such as 500m (half a CPU), 2 or 1Gi.",
    ),
    AfterValidator(_is_quantity),
]
"""A Kubernetes quantity; YAML's plain numbers are read too."""
