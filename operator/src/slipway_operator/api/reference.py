"""The field tables of docs/spec/, written from the same schema as the CRDs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from slipway_operator.api.schema import INT_OR_STRING, VALIDATIONS

Schema = dict[str, Any]

BEGIN = "<!-- fields of {part}: written by `make crds` -->"
END = "<!-- end of the fields of {part} -->"


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Every field below a schema, depth first: its path, its schema, and whether it must be set."""
    required = set(schema.get("required", ()))
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, child, name in required
        yield from fields(child, here)
        items = child.get("items")
        if items is not None:
            yield from fields(items, f"{here}[]")


def type_of(schema: Schema) -> str:
    """The type of a field in a word."""
    if schema.get(INT_OR_STRING):
        return "string or integer"
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'])}s"
    if "additionalProperties" in schema:
        return f"map to {type_of(schema['additionalProperties'])}"
    return str(schema["type"])


def _limits(schema: Schema) -> str:
    """What the API server refuses, as sentences."""
    said = []
    if "enum" in schema:
        said.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    ranges = (
        ("minimum", "maximum", ""),
        ("minItems", "maxItems", " entries"),
        ("minLength", "maxLength", " characters"),
    )
    for low, high, unit in ranges:
        if low == "minimum" and schema.get("exclusiveMinimum"):
            most = f", at most {schema[high]}" if high in schema else ""
            said.append(f"More than {schema[low]}{most}{unit}.")
        elif low in schema and high in schema:
            said.append(f"From {schema[low]} to {schema[high]}{unit}.")
        elif high in schema:
            said.append(f"At most {schema[high]}{unit}.")
        elif low in schema:
            said.append(f"At least {schema[low]}{unit}.")
    said.extend(f"Rule: {rule['message']}." for rule in schema.get(VALIDATIONS, ()))
    text = " ".join(said)
    # The description says the range of a number already.
    return text if not schema["description"].endswith(text) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def table(schema: Schema, prefix: str) -> str:
    """A Markdown table of every field below a schema."""
    lines = ["| field | type | default | what it says |", "| --- | --- | --- | --- |"]
    for path, child, must in fields(schema):
        default = "required" if must else ""
        if "default" in child and child["type" if not child.get(INT_OR_STRING) else INT_OR_STRING] != "object":
            default = f"`{json.dumps(child['default'])}`"
        description = child["description"]
        if default:  # it has a column of its own
            description = description.partition(" Default: ")[0]
        words = _cell(" ".join(part for part in (description, _limits(child)) if part))
        lines.append(f"| `{prefix}.{path}` | {type_of(child)} | {default} | {words} |")
    return "\n".join(lines)


def with_tables(page: str, crd: Schema) -> str:
    """The page with its tables of spec and status written anew.

    Raises:
        ValueError: The page has no place for one of them.
    """
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        begin, end = BEGIN.format(part=part), END.format(part=part)
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for the fields of {part}: {begin} … {end}")
        page = f"{before}{begin}\n{table(properties[part], part)}\n{end}{after}"
    return page
