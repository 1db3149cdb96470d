"""Rows as CSV: a header line with the columns' names, then a line for each row.

An empty field is a missing value. https://www.rfc-editor.org/rfc/rfc4180 is the source of the format.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from slipway_runtime.errors import InvalidRequest, TooLarge
from slipway_runtime.protocol.alignment import suggestion
from slipway_runtime.protocol.datatypes import Datatype

Columns = dict[str, list[Any]]
"""Values by column name."""


def read_table(body: bytes, datatypes: dict[str, Datatype], example: str, *, max_rows: int) -> Columns:
    """Read CSV into columns of plain values.

    Args:
        body: The text, in UTF-8.
        datatypes: What each column holds.
        example: What would be right, for messages.
        max_rows: How many are read.

    Raises:
        InvalidRequest: Naming the line and the column, and what would be right.
        TooLarge: If there are more.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(lines, [])
        _check(names, datatypes, example)
        rows, empty = [], 0
        for row in lines:
            if row and len(row) != len(names):
                raise InvalidRequest(f"line {lines.line_num} has {len(row)} fields, but the header {len(names)}")
            if row or len(names) == 1:  # an empty line is a missing value where there is one column only
                rows.append(row or [""])
            else:
                empty += 1
            # Said while they are read: a body of commas alone would become a hundred times as large.
            if len(rows) > max_rows or empty > max_rows:
                raise TooLarge(f"there are more than {max_rows} lines; send at most as many rows in one request")
    except csv.Error as error:
        raise InvalidRequest(f"the body is not valid CSV at line {lines.line_num}: {error}") from None
    if not rows:
        raise InvalidRequest(f"there are no rows; send a header and at least one line: {example}")
    found = dict(zip(names, zip(*rows, strict=True), strict=True))
    return {name: _values(found[name], datatype, name) for name, datatype in datatypes.items()}


def _check(names: list[str], datatypes: dict[str, Datatype], example: str) -> None:
    if not names:
        raise InvalidRequest(f"the body is empty; send CSV such as {example}")
    for name in names:
        if name not in datatypes:
            raise InvalidRequest(f'the header has "{name[:100]}"{suggestion(name, datatypes)}')
    given = set(names)
    if len(given) != len(names):
        raise InvalidRequest("the header names a column twice")
    if absent := [name for name in datatypes if name not in given]:
        raise InvalidRequest(f'the header has no "{absent[0]}"; the first line names all columns: {example}')


def _values(texts: Sequence[str], datatype: Datatype, name: str) -> list[Any]:
    if datatype.is_text:
        return [text or None for text in texts]
    read = _boolean if datatype.code == "?" else _float if datatype.is_float else _whole
    values: list[Any] = []
    for index, text in enumerate(texts):
        try:
            values.append(read(text.strip()))
        except ValueError:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise InvalidRequest(f'row {index}, "{name}" is "{shown}"; it takes {_takes(datatype)}') from None
    return values


def _takes(datatype: Datatype) -> str:
    return datatype.takes.replace("null where missing", "nothing where missing")


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _float(text: str) -> float | None:
    if "_" in text or not text.isascii():  # Python takes both; nobody else does
        raise ValueError(text)
    if not text:
        return None
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> float | int | None:
    if "_" in text or not text.isascii() or len(text) > 400:
        raise ValueError(text)
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        return float(text)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(text)
    return value


def write_table(names: Sequence[str], columns: Iterable[Sequence[Any]]) -> bytes:
    """Write columns as CSV; null and NaN are an empty field."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    known = ([None if value != value else value for value in column] for column in columns)  # noqa: PLR0124 -- NaN
    writer.writerows(zip(*known, strict=True))
    return text.getvalue().encode()


def wants_table(accept: bytes) -> bool:
    """Whether an Accept header prefers CSV to JSON."""
    if b"text/csv" not in accept:
        return False
    return _quality(accept, b"text/csv") > _quality(accept, b"application/json")


def _quality(accept: bytes, media: bytes) -> float:
    for item in accept.lower().split(b","):
        kind, _, parameters = item.partition(b";")
        if kind.strip() == media:
            value = parameters.strip().removeprefix(b"q=") if parameters.strip().startswith(b"q=") else b"1"
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 0.0
