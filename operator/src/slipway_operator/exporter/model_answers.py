"""Asking the original model, or a function of the project, for what a signature promises."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .failure import Failure
from .foreign import has, np, pd
from .loading import load_model
from .wire import strings_from, strings_to

_CODES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip

Answering = Callable[[dict[str, Any], memoryview], tuple[list[dict[str, Any]], list[bytes]]]
Ask = Callable[[dict[str, Any]], dict[str, Any]]


class DoesNotFit(ValueError):  # noqa: N818 - named after what happened, which a caller reads
    """An answer is of another kind than the signature promises."""


def answering(model: Path, signature: Path, function: str | None) -> Answering:
    """Load what answers, and give a function from a message to its answer.

    A function of the project (of the argument, or of the signature) gets the columns as a DataFrame, or as a
    dictionary of lists where the project has no pandas (a missing value is None), and gives a dictionary of
    lists by output name, or the one answer.

    Raises:
        Failure: If it cannot be loaded.
    """
    described = json.loads(signature.read_text(encoding="utf-8"))
    # Before anybody waits: to import them while a request is timed would count against the model.
    for name in ("numpy", "pandas"):
        if has(name):
            importlib.import_module(name)
    name = described["function"] = function or described.get("function")
    found = project_function(name, lambda: load_model(model)) if name else load_model(model)
    return replying(asking(found, described), described)


def replying(ask: Ask, described: dict[str, Any]) -> Answering:
    """Give a function from a message to its answer, for what answers inputs by name with outputs by name."""

    def answer(header: dict[str, Any], raw: memoryview) -> tuple[list[dict[str, Any]], list[bytes]]:
        inputs, offset = {}, 0
        for tensor in header["inputs"]:
            end = offset + int(tensor["size"])
            inputs[tensor["name"]] = (tensor, raw[offset:end])
            offset = end
        given = ask(inputs)
        outputs, parts = [], []
        for spec in described["outputs"]:
            shape, part = _written(given[spec["name"]], spec["datatype"])
            outputs.append({"name": spec["name"], "datatype": spec["datatype"], "shape": shape, "size": len(part)})
            parts.append(part)
        return outputs, parts

    return answer


def project_function(name: str, load: Callable[[], Any]) -> Callable[[Any], Any]:
    """Find a function of the project; one with a parameter called ``model`` is given the loaded model.

    Raises:
        Failure: ``FunctionMissing``, or why the model cannot be loaded.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Callable[..., Any] | None = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        message = f"{name} cannot be imported: there is no module {error.name!r} in the project or its lock file."
        raise Failure("FunctionMissing", message) from error
    if found is None or not callable(found):
        raise Failure("FunctionMissing", f"{name} is no function; name one as module:function.")
    if "model" in inspect.signature(found).parameters:
        return functools.partial(found, model=load())
    return found


def asking(found: Any, described: dict[str, Any]) -> Ask:
    """Ask as the signature has it: the project's function that it names, or the model by its methods.

    Raises:
        Failure: If the model has not all of them.
    """
    return _calls_of(found, described) if described.get("function") else _methods_of(found, described)


def _calls_of(function: Callable[[Any], Any], described: dict[str, Any]) -> Ask:
    """Ask a function of the project, with a frame where there is pandas and with lists by column where not."""
    markers = _markers_of(described)

    def ask(inputs: dict[str, Any]) -> dict[str, Any]:
        if has("pandas"):
            arrays = {name: _array(tensor, raw, markers[name]) for name, (tensor, raw) in inputs.items()}
            given = pd.DataFrame(_by_column(arrays, described.get("columns") or []))
        else:
            given = _columns(inputs, described)
        return named_answers(function(given), described["outputs"][0]["name"])

    return ask


def named_answers(answer: Any, only: str) -> dict[str, Any]:
    """Give a function's answers by name: a dictionary's or a frame's own, or the one name for the one answer."""
    if isinstance(answer, dict):
        return answer
    if hasattr(answer, "columns") and hasattr(answer, "to_numpy"):
        return {str(name): answer[name] for name in answer.columns}
    return {only: answer}


def _methods_of(model: Any, described: dict[str, Any]) -> Ask:
    """Ask a model by the methods that its signature names."""
    for spec in described["outputs"]:
        if not hasattr(model, spec.get("method", "predict")):
            raise Failure("ModelLoadFailed", f"The model has no method {spec['method']}.")
    framed = hasattr(model, "feature_names_in_") and has("pandas")
    on_frames = described.get("takes", "frame" if framed else "matrix") == "frame"
    markers = _markers_of(described)

    def ask(inputs: dict[str, Any]) -> dict[str, Any]:
        arrays = {name: _array(tensor, raw, markers.get(name)) for name, (tensor, raw) in inputs.items()}
        if on_frames:
            rows = pd.DataFrame(_by_column(arrays, described.get("columns") or []))
        elif len(arrays) > 1:
            rows = np.array([array.ravel() for array in arrays.values()], dtype=object).T
        else:
            (rows,) = arrays.values()
        return {spec["name"]: getattr(model, spec.get("method", "predict"))(rows) for spec in described["outputs"]}

    return ask


_MARKERS: dict[str, tuple[Any, ...]] = {"nan": (math.nan,), "none": (None,)}
"""What a model was fitted on for a missing string, by the word in the signature; else None, and "" stays."""


def _markers_of(described: dict[str, Any]) -> dict[str, tuple[Any, ...] | None]:
    return {spec["name"]: _MARKERS.get(spec.get("marker", "")) for spec in described["inputs"]}


def _array(tensor: dict[str, Any], raw: memoryview, marker: tuple[Any, ...] | None) -> Any:
    """Give a tensor as the model takes it: missing numbers as NaN, missing strings as its marker."""
    if tensor["datatype"] != "BYTES":
        return np.frombuffer(raw, "<" + _CODES[tensor["datatype"]]).reshape(tensor["shape"])
    values = list(strings_from(raw))
    if marker is not None:
        values = [marker[0] if value in (None, "") else value for value in values]
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(tensor["shape"])


def _by_column(arrays: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """Give every column by its name, a matrix taken apart."""
    if len(arrays) == 1 and list(arrays) != columns and columns:
        (matrix,) = arrays.values()
        return {name: matrix[:, place] for place, name in enumerate(columns)}
    return {name: array.ravel() for name, array in arrays.items()}


def _columns(inputs: dict[str, Any], described: dict[str, Any]) -> dict[str, list[Any]]:
    """Give every column as a list, a matrix taken apart."""
    columns: dict[str, list[Any]] = {}
    for name, (tensor, raw) in inputs.items():
        values = _values(tensor["datatype"], raw)
        width = math.prod(tensor["shape"][1:])
        if width == 1 and name != "input":
            columns[name] = values
            continue
        names = described.get("columns") or [f"x{place}" for place in range(width)]
        columns.update({one: values[place::width] for place, one in enumerate(names)})
    return columns


def _values(datatype: str, raw: memoryview) -> list[Any]:
    if datatype == "BYTES":
        return list(strings_from(raw))
    code = _CODES[datatype]
    values = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
    return [None if value != value else value for value in values] if datatype.startswith("FP") else values  # noqa: PLR0124 - NaN


def _written(answer: Any, datatype: str) -> tuple[list[int], bytes]:
    """Write one output as its signature has it."""
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    if hasattr(answer, "dtype") or hasattr(answer, "to_numpy"):
        array = np.asarray(answer)
        if datatype == "BYTES":
            return list(array.shape), strings_to(array.ravel().tolist())
        return list(array.shape), _fitting(array, datatype).tobytes()
    values = list(answer)
    shape = [len(values)]
    if values and isinstance(values[0], (list, tuple)):
        shape.append(len(values[0]))
        values = [value for row in values for value in row]
    if datatype == "BYTES":
        return shape, strings_to(values)
    filled = [math.nan if value is None else value for value in values]
    return shape, struct.pack(f"<{len(filled)}{_CODES[datatype]}", *filled)


def _fitting(array: Any, datatype: str) -> Any:
    """Give an array in its datatype.

    Raises:
        DoesNotFit: It would be another answer: 99.5 has no place among whole numbers, nor has NaN.
    """
    with np.errstate(invalid="ignore"):
        written = np.ascontiguousarray(array, dtype="<" + _CODES[datatype])
    if datatype.startswith("FP") or np.can_cast(array.dtype, written.dtype):
        return written
    if not np.array_equal(written, array):
        raise DoesNotFit(f"an answer does not fit {datatype}, which it is in the example's answers")
    return written
