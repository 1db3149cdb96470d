"""What a model takes and gives, and whether callers of one model could go on with another.

``signature.json`` is written by the exporter (`docs/design` has its form). What the runtime
does with a request is the measure here (``slipway_runtime.protocol.alignment``): it takes
columns or one matrix, adapts numbers where nothing is lost, and refuses an unknown input as
it refuses a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from slipway_operator.domain.conditions import clipped

_SHOWN = 40
"""Characters of a name in a sentence, as a name may be of any length."""
_LISTED = 3

_UNSIGNED = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64")
_SIGNED = ("INT8", "INT16", "INT32", "INT64")
_NUMBERS = frozenset({*_UNSIGNED, *_SIGNED, "FP16", "FP32", "FP64"})
_TAKES: Mapping[str, frozenset[str]] = {
    "BYTES": frozenset({"BYTES"}),
    **{name: frozenset(_UNSIGNED[: place + 1]) for place, name in enumerate(_UNSIGNED)},
    # A signed type holds all values of the unsigned ones that are narrower.
    **{name: frozenset({*_SIGNED[: place + 1], *_UNSIGNED[: place + 1]}) for place, name in enumerate(_SIGNED)},
    "FP16": frozenset({"BOOL", "UINT8", "INT8", "INT16", "FP16"}),
    "FP32": _NUMBERS,
    "FP64": _NUMBERS,
}
"""The datatypes of which every value is taken where the model has the one named first."""


class Tensor(BaseModel):
    """One input or output."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1)
    datatype: str
    shape: tuple[int, ...] = Field(min_length=1)
    """-1 where any size goes; the first dimension counts rows."""

    @property
    def is_column(self) -> bool:
        """Whether it holds one value a row."""
        return self.shape in {(-1,), (-1, 1)}


class Signature(BaseModel):
    """What a model takes and gives, as ``signature.json`` says it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    inputs: tuple[Tensor, ...] = Field(min_length=1)
    outputs: tuple[Tensor, ...] = Field(min_length=1)
    columns: tuple[str, ...] | None = None
    classes: tuple[Any, ...] | None = None

    @property
    def matrix(self) -> Tensor | None:
        """The one input that takes all columns side by side; None where each has its own."""
        only = self.inputs[0]
        if len(self.inputs) == 1 and len(only.shape) == 2 and self.columns and only.name not in self.columns:
            return only
        return None


def difference(live: Signature, target: Signature) -> str | None:
    """Why callers of ``live`` could not go on with ``target``, in one sentence; None: they can.

    They send what ``live`` takes, in its own form, and read every output that it gives.
    """
    return (
        _inputs_differ(live, target) or _outputs_differ(live.outputs, target.outputs) or _classes_differ(live, target)
    )


def _inputs_differ(live: Signature, target: Signature) -> str | None:
    sent, taken = _by_name(live.inputs), _by_name(target.inputs)
    if sent.keys() == taken.keys():
        return next(filter(None, (_input_differs(sent[name], taken[name]) for name in sent)), None) or _order_differs(
            live, target
        )
    matrix = target.matrix
    if matrix is not None and live.matrix is None and set(sent) == set(target.columns or ()):
        odd = [t for t in sent.values() if not t.is_column or not _fits(t.datatype, matrix.datatype)]
        return _datatype_differs(odd[0], matrix.datatype) if odd else None
    if live.matrix is not None and target.matrix is None and len(taken) > 1:
        return _matrix_differs(live, target)
    return _names_differ(sent, taken)


def _matrix_differs(live: Signature, target: Signature) -> str | None:
    """Callers send one matrix, and the target has an input for each column."""
    sent = live.inputs[0]
    if list(live.columns or ()) != [t.name for t in target.inputs]:
        return _names_differ(dict.fromkeys(live.columns or ()), _by_name(target.inputs)) or _order_differs(live, target)
    odd = next((t for t in target.inputs if not t.is_column or not _fits(sent.datatype, t.datatype)), None)
    return _datatype_differs(odd.model_copy(update={"datatype": sent.datatype}), odd.datatype) if odd else None


def _input_differs(sent: Tensor, taken: Tensor) -> str | None:
    if not _fits(sent.datatype, taken.datatype):
        return _datatype_differs(sent, taken.datatype)
    if sent.is_column and taken.is_column:
        return None
    if len(sent.shape) != len(taken.shape) or any(
        size not in {-1, given} for given, size in zip(sent.shape, taken.shape, strict=False)
    ):
        return f"input {_quoted(sent.name)} has shape {list(sent.shape)} now, and the target takes {list(taken.shape)}"
    return None


def _order_differs(live: Signature, target: Signature) -> str | None:
    """Values that arrive side by side would be taken for one another, and nothing would notice."""
    before, after = live.columns or (), target.columns or ()
    if before == after or not before or not after:
        return None
    if set(before) == set(after):
        return "the target has the same columns in another order, which a caller that sends them as one matrix ignores"
    return _names_differ(dict.fromkeys(before), dict.fromkeys(after))


def _names_differ(sent: Mapping[str, Any], taken: Mapping[str, Any]) -> str | None:
    unknown = [name for name in sent if name not in taken]
    absent = [name for name in taken if name not in sent]
    parts = []
    if unknown:
        parts.append(f"callers send {_listed(unknown)}, which the target does not take")
    if absent:
        parts.append(f"the target needs {_listed(absent)}, which callers do not send")
    return "; ".join(parts) or None


def _outputs_differ(given: Sequence[Tensor], target: Sequence[Tensor]) -> str | None:
    there = _by_name(target)
    absent = [t.name for t in given if t.name not in there]
    if absent:
        return f"callers read {_listed(absent)}, which the target does not give"
    for tensor in given:
        other = there[tensor.name]
        if (tensor.datatype == "BYTES") != (other.datatype == "BYTES"):
            return f"output {_quoted(tensor.name)} is {tensor.datatype} now, and {other.datatype} with the target"
        if tensor.shape != other.shape:
            return (
                f"output {_quoted(tensor.name)} has shape {list(tensor.shape)} now, and {list(other.shape)} "
                "with the target"
            )
    return None


def _classes_differ(live: Signature, target: Signature) -> str | None:
    before, after = list(live.classes or ()), list(target.classes or ())
    if before == after or not before or not after:
        return None
    return f"the classes are {clipped(str(before), 120)} now, and {clipped(str(after), 120)} with the target"


def _fits(sent: str, taken: str) -> bool:
    return sent == taken or sent in _TAKES.get(taken, frozenset())


def _datatype_differs(sent: Tensor, taken: str) -> str:
    return f"input {_quoted(sent.name)} is {sent.datatype} now, and the target takes {taken}"


def _by_name(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {t.name: t for t in tensors}


def _quoted(name: str) -> str:
    return f'"{clipped(name, _SHOWN)}"'


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(_quoted(name) for name in names[:_LISTED]) + more
