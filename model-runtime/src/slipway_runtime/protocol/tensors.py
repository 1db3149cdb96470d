"""Tensors from and to JSON values and raw bytes.

The binary layout is that of the protocol's binary tensor extension: little-endian values in
row-major order; each string as its length in four bytes, then its UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.protocol.datatypes import Datatype

Array = npt.NDArray[Any]

MAX_DIMENSIONS = 8
_MISSING_SIZE = 0xFFFFFFFF


_MOST_VALUES = 1 << 31  # more than any message has bytes


class Null:
    """Stands in an array of strings where the caller sent null; a signature says what it becomes."""

    def __repr__(self) -> str:
        return "null"


NULL = Null()


def shape_of(value: object, field: str) -> tuple[int, ...]:
    """Read a shape: a list of whole numbers, none negative."""
    if not isinstance(value, list) or not value or len(value) > MAX_DIMENSIONS:
        raise InvalidRequest(f"{field} must be a list of 1 to {MAX_DIMENSIONS} sizes, for example [1, 4]")
    for size in value:
        if type(size) is not int or size < 0:
            raise InvalidRequest(f"{field} must hold whole numbers that are not negative, for example [1, 4]")
    return tuple(value)


def count_of(shape: tuple[int, ...], field: str) -> int:
    """Give the number of values that a shape takes.

    Raises:
        InvalidRequest: If a size of zero hides how large the others are: NumPy has no such array, or none in the
            datatype that the model takes.
    """
    count = math.prod(shape)
    if not count and math.prod(filter(None, shape)) > _MOST_VALUES:
        raise InvalidRequest(f"{field} has no values, but shape {list(shape)} is larger than any can be")
    return count


def from_json(data: object, datatype: Datatype, shape: tuple[int, ...], field: str) -> Array:
    """Build an array from the ``data`` of a JSON tensor, flat in row-major order or nested as its shape.

    Raises:
        InvalidRequest: If the number of values does not fit the shape, or a value not the datatype.
    """
    if not isinstance(data, list):
        raise InvalidRequest(f"{field} must be a list of values")
    if data and type(data[0]) is list:
        data = _flat(data, shape, field)
    expected = count_of(shape, field)
    if len(data) != expected:
        raise InvalidRequest(
            f"{field} has {len(data)} value{'' if len(data) == 1 else 's'}, but shape {list(shape)} needs {expected}"
        )
    return from_values(data, datatype, field).reshape(shape)


def from_values(values: Sequence[object], datatype: Datatype, field: str) -> Array:
    """Build a one-dimensional array from plain values; null becomes NaN or `NULL`.

    `struct` converts and checks in one pass: faster than `numpy.array` on short lists, and it
    takes no text for a number and no number that does not fit.
    """
    if datatype.is_text:
        return _strings(values, field)
    if datatype.code == "?":
        return _booleans(values, field)
    try:
        raw = struct.pack(f"<{len(values)}{datatype.code}", *values)
    except (struct.error, OverflowError):
        raw = struct.pack(f"<{len(values)}{datatype.code}", *_repaired(values, datatype, field))
    return np.frombuffer(raw, datatype.array)


def _flat(data: list[Any], shape: tuple[int, ...], field: str) -> list[Any]:
    level = data
    if len(level) != shape[0]:
        raise InvalidRequest(f"{field} is nested with {len(level)} items outside, but shape is {list(shape)}")
    for size in shape[1:]:
        for item in level:
            if type(item) is not list or len(item) != size:
                raise InvalidRequest(f"{field} is nested, but not as shape {list(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def _strings(values: Sequence[object], field: str) -> Array:
    kinds = set(map(type, values))
    array = np.empty(len(values), dtype=object)
    if kinds <= {str}:
        array[:] = values
        return array
    if kinds <= {str, type(None)}:
        array[:] = [NULL if value is None else value for value in values]
        return array
    place = next(index for index, value in enumerate(values) if value is not None and type(value) is not str)
    raise InvalidRequest(f"{field}[{place}] is {_shown(values[place])}; BYTES takes strings, or null where missing")


def _booleans(values: Sequence[object], field: str) -> Array:
    for index, value in enumerate(values):
        if type(value) is not bool and not (type(value) is int and value in (0, 1)):
            raise InvalidRequest(f"{field}[{index}] is {_shown(value)}; BOOL takes true or false")
    return np.array(values, dtype=bool)


def _repaired(values: Sequence[object], datatype: Datatype, field: str) -> list[Any]:
    """Put NaN for null and int for a whole float; name the first value that cannot be helped."""
    return [_number(value, datatype, f"{field}[{index}]") for index, value in enumerate(values)]


def _number(value: object, datatype: Datatype, field: str) -> float | int:
    if datatype.is_float:
        if value is None:
            return math.nan
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) or (isinstance(value, float) and datatype.is_float):
        try:
            struct.pack(f"<{datatype.code}", value)
        except (struct.error, OverflowError):
            pass
        else:
            return value
    raise InvalidRequest(f"{field} is {_shown(value)}; {datatype.name} takes {datatype.takes}")


def _shown(value: object) -> str:
    """Show a caller's value in a message, in JSON's words and not at length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 40 else f'"{value[:40]}…"'
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return str(value)[:40]


def from_binary(
    raw: bytes | memoryview, datatype: Datatype, shape: tuple[int, ...], field: str, *, may_miss: bool = False
) -> Array:
    """Build an array from the bytes of a binary tensor.

    Args:
        raw: Its bytes.
        datatype: What they are.
        shape: How many.
        field: Where they came from, for messages.
        may_miss: Whether a string may be missing (the length 0xFFFFFFFF, as a worker writes it): it is None then.

    Raises:
        InvalidRequest: If their number does not fit, or a string is not UTF-8.
    """
    expected = count_of(shape, field)
    if datatype.is_text:
        return _binary_strings(raw, expected, field, may_miss=may_miss).reshape(shape)
    if len(raw) != expected * datatype.array.itemsize:
        raise InvalidRequest(
            f"{field} has {len(raw)} bytes, but {expected} values of {datatype.name} "
            f"are {expected * datatype.array.itemsize}"
        )
    if datatype.code == "?":
        truths: Array = np.frombuffer(raw, np.uint8) != 0
        return truths.reshape(shape)
    # Within a body a tensor begins anywhere; engines want their values aligned.
    array: Array = np.require(np.frombuffer(raw, datatype.array).reshape(shape), requirements="A")
    return array


def _binary_strings(raw: bytes | memoryview, expected: int, field: str, *, may_miss: bool) -> Array:
    # A string takes four bytes at least: refuse a shape that cannot be before making room for it.
    if expected * 4 > len(raw):
        raise InvalidRequest(f"{field} ends before its {expected} strings")
    array = np.empty(expected, dtype=object)
    offset = 0
    for index in range(expected):
        end = offset + 4
        size = int.from_bytes(raw[offset:end], "little")
        if end + size > len(raw):
            if may_miss and size == _MISSING_SIZE:
                offset = end  # the array holds None where nothing is put
                continue
            raise InvalidRequest(f"{field} ends within string {index}")
        try:
            array[index] = str(raw[end : end + size], "utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{field}: string {index} is not UTF-8") from None
        offset = end + size
    if offset != len(raw):
        raise InvalidRequest(f"{field} has {len(raw) - offset} bytes after its last string")
    return array


def to_binary(array: Array, datatype: Datatype) -> bytes:
    """Write an array as the binary extension has it, which knows no missing string: it is an empty one."""
    if not datatype.is_text:
        return np.ascontiguousarray(array, dtype=datatype.array).tobytes()
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        text = b"" if value is None else str(value).encode()
        parts.append(len(text).to_bytes(4, "little"))
        parts.append(text)
    return b"".join(parts)
