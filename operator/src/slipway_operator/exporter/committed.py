"""A model that is ONNX already: checked, run on the example, and described; there is no original to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import artifacts
from .answers import Output, Session
from .columns import is_missing
from .convert import check
from .example import as_number, plain_cells
from .failure import Failure
from .files import ONNX_LIMIT
from .foreign import lazy, np
from .reference import reference
from .request import ExportRequest, Places
from .rows import Input

_NEWEST_IR = 10
_DTYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "INT32": "int32", "BOOL": "bool"}


def take(request: ExportRequest, places: Places, model_file: Path, area: Path) -> None:
    """Leave a committed ONNX model with its signature and recorded answers.

    Raises:
        Failure: ``ConversionFailed``, ``ConversionUnsupported``, or what the example earns.
    """
    onnx = lazy("onnx")
    if (size := model_file.stat().st_size) > ONNX_LIMIT:
        message = f"{request.model_path} has {size} bytes, more than the {ONNX_LIMIT} that an ONNX model may have."
        raise Failure("ModelFileUnsafe", message)
    content = model_file.read_bytes()
    check(content)
    proto = onnx.load_model_from_string(content)
    if proto.ir_version > _NEWEST_IR:
        message = (
            f"{request.model_path} has IR version {proto.ir_version}; save it with {_NEWEST_IR} or older (opset 21)."
        )
        raise Failure("ConversionUnsupported", message)
    inputs = [
        _input(value) for value in proto.graph.input if value.name not in {one.name for one in proto.graph.initializer}
    ]
    names, values = plain_cells(places.project / request.example, request.example)
    feed = _feed(inputs, names, values, request.example)
    session = Session(content)
    answers = session.run(feed)
    outputs = [Output(name, name, "run", is_label=False) for name in session.outputs]
    for output, answer in zip(outputs, answers):  # noqa: B905 - Python 3.9
        if not hasattr(answer, "dtype"):
            message = f"Output {output.name!r} is not a tensor. Convert with zipmap=False."
            raise Failure("ConversionUnsupported", message)
    columns = list(names or ()) if len(inputs) == 1 else [item.name for item in inputs]
    (area / "model.onnx").write_bytes(content)
    described = artifacts.signature(None, [(item, item.name) for item in inputs], list(zip(outputs, answers)), columns)  # noqa: B905
    artifacts.write_json(area / "signature.json", described)
    few = {name: array[: artifacts.EXAMPLES] for name, array in feed.items()}
    recorded = {
        "inputs": [artifacts.tensor(item.name, item.datatype, few[item.name]) for item in inputs],
        "outputs": [
            artifacts.tensor(output.name, artifacts.datatype_of(answer), answer)
            for output, answer in zip(outputs, session.run(few))  # noqa: B905
        ],
        "tolerance": artifacts.TOLERANCE,
    }
    artifacts.write_json(area / "examples.json", recorded)
    named = list(zip(session.outputs, answers))  # noqa: B905 - Python 3.9
    artifacts.write_json(
        area / "reference.json", reference([(item, feed[item.name]) for item in inputs], columns, named)
    )
    artifacts.write_json(area / "certificate.json", _certificate(content, len(values), request, int(proto.ir_version)))


def _certificate(content: bytes, rows: int, request: ExportRequest, ir_version: int) -> dict[str, Any]:
    digest = artifacts.sha256(content)
    return {
        "rows": rows,
        "maxAbsoluteDifference": 0.0,
        "labelFlips": 0,
        "where": {"row": None, "output": None},
        "limits": {
            "maxAbsoluteDifference": request.max_absolute_difference,
            "maxLabelFlips": request.max_label_flips,
        },
        "compared": {},
        "note": "The model was committed as ONNX: it is its own original.",
        "irVersion": ir_version,
        "versions": artifacts.versions(),
        "digests": {"model": digest, "onnx": digest},
    }


def _input(value: Any) -> Input:
    onnx = lazy("onnx")
    kinds = {
        onnx.TensorProto.FLOAT: ("FP32", "number"),
        onnx.TensorProto.DOUBLE: ("FP64", "number"),
        onnx.TensorProto.INT64: ("INT64", "integer"),
        onnx.TensorProto.INT32: ("INT32", "integer"),
        onnx.TensorProto.BOOL: ("BOOL", "boolean"),
        onnx.TensorProto.STRING: ("BYTES", "string"),
    }
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    if kind.elem_type not in kinds or len(dims) != 2:
        message = f"Input {value.name!r} of the ONNX model is not a matrix of numbers or strings (rows by columns)."
        raise Failure("ConversionUnsupported", message)
    datatype, name = kinds[kind.elem_type]
    return Input(value.name, datatype, (-1, int(dims[1])), name)


def _feed(inputs: list[Input], names: tuple[str, ...] | None, values: Any, named: str) -> dict[str, Any]:
    if len(inputs) == 1:
        width = inputs[0].shape[1]
        if width not in (-1, values.shape[1]):
            raise Failure(
                "ExampleColumnsMismatch", f"{named} has {values.shape[1]} columns and the model takes {width}."
            )
        return {inputs[0].name: _cast(values, inputs[0], named)}
    absent = [item.name for item in inputs if item.name not in (names or ())]
    if absent:
        raise Failure("ExampleColumnsMismatch", f"{named} lacks {', '.join(absent)}, which the ONNX model takes.")
    place = {name: number for number, name in enumerate(names or ())}
    return {item.name: _cast(values[:, [place[item.name]]], item, named) for item in inputs}


def _cast(values: Any, item: Input, named: str) -> Any:
    if item.datatype == "BYTES":
        # As they are written: the text 02134 is no number.
        return np.array([["" if is_missing(one) else str(one) for one in row] for row in values.tolist()], dtype=object)
    try:
        cells = [[as_number(one) for one in row] for row in values.tolist()]
    except (TypeError, ValueError) as error:
        message = f"{named} holds something else than numbers for the input {item.name!r} of the ONNX model: {error}."
        raise Failure("ExampleColumnsMismatch", message) from error
    return np.array(cells, dtype="float64").astype(_DTYPES[item.datatype])
