"""The datatypes of the Open Inference Protocol and their NumPy counterparts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slipway_runtime.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype: its protocol name, its array type and its code for `struct`.

    Strings (``BYTES``) are object arrays of `str`; on the wire they are UTF-8.
    """

    name: str
    array: np.dtype[np.generic]
    code: str
    takes: str
    """What a value must be, as an error message says it."""

    @property
    def is_float(self) -> bool:
        """Whether a missing value has a place in it (NaN)."""
        return self.array.kind == "f"

    @property
    def is_integer(self) -> bool:
        """Whether only whole numbers fit."""
        return self.array.kind in "iu"

    @property
    def is_text(self) -> bool:
        """Whether values are strings."""
        return self.array.kind == "O"


def _integer(name: str, array: str, code: str) -> Datatype:
    limits = np.iinfo(array)
    return Datatype(name, np.dtype(array), code, f"whole numbers from {limits.min} to {limits.max}")


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", np.dtype("?"), "?", "true or false"),
        _integer("UINT8", "<u1", "B"),
        _integer("UINT16", "<u2", "H"),
        _integer("UINT32", "<u4", "I"),
        _integer("UINT64", "<u8", "Q"),
        _integer("INT8", "<i1", "b"),
        _integer("INT16", "<i2", "h"),
        _integer("INT32", "<i4", "i"),
        _integer("INT64", "<i8", "q"),
        Datatype("FP16", np.dtype("<f2"), "e", "numbers up to 65504, or null where missing"),
        Datatype("FP32", np.dtype("<f4"), "f", "numbers up to 3.4e38, or null where missing"),
        Datatype("FP64", np.dtype("<f8"), "d", "numbers, or null where missing"),
        Datatype("BYTES", np.dtype("O"), "", "strings, or null where missing"),
    )
}
"""Every datatype of the protocol, by name."""


def datatype_named(name: object, field: str) -> Datatype:
    """Look a datatype up.

    Args:
        name: What the request says.
        field: Where it says so, for the message.

    Raises:
        InvalidRequest: If there is no such datatype.
    """
    datatype = DATATYPES.get(name) if isinstance(name, str) else None
    if datatype is None:
        raise InvalidRequest(f"{field} must be one of {', '.join(DATATYPES)}")
    return datatype
