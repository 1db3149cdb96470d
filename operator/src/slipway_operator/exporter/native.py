"""A model that cannot be ONNX, made ready to be answered by itself (`serve`), in the project's environment.

Its answers to the example are recorded as a server gives them: through the bytes that travel, by
the code that answers them. They are compared with the model asked directly, within the limits
of the spec, so that nothing is lost on the way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import artifacts
from .answers import Original, Output
from .columns import is_missing, kind_of
from .example import MOST_ROWS, read_columns, read_example
from .export import NATIVE, served_name
from .failure import Failure
from .foreign import has, np, pd
from .function import Function
from .loading import load_model
from .model_answers import Ask, DoesNotFit, asking, replying
from .parity import Compared, compare, refuse
from .reference import reference
from .request import ExportRequest, Places
from .rows import FrameRows, MatrixRows, Rows
from .wire import strings_from, strings_to

NUMBER = "float64"
"""Numbers travel as the original knows them: no graph asks for less."""


class Wire:
    """What answers, behind the bytes of a worker's protocol; asked as an ONNX session is."""

    def __init__(self, ask: Ask, described: dict[str, Any]) -> None:
        self._described = described
        self._reply = replying(ask, described)
        self.outputs = [str(spec["name"]) for spec in described["outputs"]]

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """Answer tensors that go by the callers' names.

        Raises:
            Failure: ``ParityFailed``: asked again, what answers gives another kind of answer.
        """
        inputs, parts = [], []
        for spec in self._described["inputs"]:
            array = feed[spec["name"]]
            is_text = spec["datatype"] == "BYTES"
            raw = strings_to(array.ravel().tolist()) if is_text else np.ascontiguousarray(array).tobytes()
            inputs.append({**spec, "shape": list(array.shape), "size": len(raw)})
            parts.append(raw)
        try:
            outputs, answers = self._reply({"inputs": inputs}, memoryview(b"".join(parts)))
        except DoesNotFit as error:
            message = f"Asked again, by the bytes that travel, it answers otherwise: {error}."
            raise Failure("ParityFailed", f"{message} Have it answer from the row alone.") from error
        return [self._read(told, raw) for told, raw in zip(outputs, answers)]  # noqa: B905 - Python 3.9

    def _read(self, told: dict[str, Any], raw: bytes) -> Any:
        if told["datatype"] == "BYTES":
            values = np.empty(len(raw) and int(np.prod(told["shape"])), dtype=object)
            values[:] = list(strings_from(memoryview(raw)))
            return values.reshape(told["shape"])
        name = next(name for name, datatype in artifacts.DATATYPES.items() if datatype == told["datatype"])
        return np.frombuffer(raw, np.dtype(name).newbyteorder("<")).reshape(told["shape"])


def take(request: ExportRequest, places: Places, model_file: Path, area: Path) -> None:
    """Leave signature, examples, reference and certificate of a model that answers by itself.

    Raises:
        Failure: If it does not answer the example, or answers it otherwise over the wire.
    """
    original, rows, outputs = _asked(request, places.project / request.example, model_file)
    items = [(item, item.name) for item in rows.inputs(NUMBER)]
    described = artifacts.signature(original, items, outputs, rows.columns)
    named_function = {} if request.function is None else {"function": request.function}
    described.update(named_function)
    described["takes"] = "frame" if isinstance(rows, FrameRows) or getattr(rows, "framed", False) else "matrix"
    for spec, (output, _) in zip(described["outputs"], outputs):  # noqa: B905 - Python 3.9
        spec["method"] = output.method
    for spec, marker in zip(described["inputs"], _markers(rows)):  # noqa: B905 - as above
        if spec["datatype"] == "BYTES":
            spec["marker"] = marker
    artifacts.write_json(area / "signature.json", described)
    wire, named = Wire(asking(original.model, described), described), [output for output, _ in outputs]
    feed = rows.feed(NUMBER)
    compared = compare(original, wire, named, asked=rows, fed=feed)
    limits = (request.max_absolute_difference, request.max_label_flips)
    if not compared.within(*limits):
        if request.function is not None:
            raise _restless(request.function, compared)
        where = "the example, answered over the wire by the model itself"
        raise refuse(compared, where, difference=limits[0], flips=limits[1])
    artifacts.write_json(area / "examples.json", artifacts.examples(wire, rows, named, number=NUMBER))
    looks = reference(
        [(item, feed[item.name]) for item in rows.inputs(NUMBER)],
        rows.columns,
        [(output.name, answer) for output, answer in outputs],
        classes=described["classes"],
    )
    artifacts.write_json(area / "reference.json", looks)
    model_digest = artifacts.sha256_of(model_file)
    certificate = {
        "engine": "worker",
        "file": served_name(request.model_path),
        "why": json.loads(os.environ[NATIVE]),
        "rows": compared.rows,
        "maxAbsoluteDifference": compared.largest,
        "labelFlips": compared.flips,
        "where": {"row": compared.row, "output": compared.output},
        "limits": {"maxAbsoluteDifference": limits[0], "maxLabelFlips": limits[1]},
        "numbers": NUMBER,
        "methods": {output.name: output.method for output in named},
        "estimator": request.function or type(original.model).__name__,
        **named_function,
        "versions": artifacts.versions(),
        "digests": {
            "model": model_digest,
            "signature": artifacts.sha256((area / "signature.json").read_bytes()),
        },
    }
    artifacts.write_json(area / "certificate.json", certificate)


def _restless(function: str, compared: Compared) -> Failure:
    message = (
        f"{function} answers the example otherwise when it is asked again, by the bytes that travel: row "
        f"{compared.row}, output {compared.output}: {compared.expected}, then {compared.got}. Have it answer from the "
        "row alone."
    )
    return Failure("ParityFailed", message)


def _asked(request: ExportRequest, example: Path, model_file: Path) -> tuple[Original, Rows, list[tuple[Output, Any]]]:
    """Give what answers, the rows that it answers, and its answers."""
    if request.function is not None:
        function = Function(request.function, model_file)
        rows = read_columns(example, request.example).rounded(NUMBER)
        told = function.outputs(rows)
        return function, rows, [(output, _plain(answer, output.name, rows)) for output, answer in told]
    model = load_model(model_file)
    _check(model)
    original = Original(model)
    rows = _rows(example, request.example, original)
    return original, rows, _outputs(original, rows)


def _check(model: Any) -> None:
    """Refuse what cannot be asked: any other object may answer, whatever it was made with."""
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if isinstance(model, type) or not (hasattr(model, "predict") or hasattr(model, "transform")):
        message = f"The model file holds {kind}, which has no predict. Save the fitted object that answers."
        raise Failure("ModelTypeUnsupported", message)


def _rows(path: Path, named: str, original: Original) -> Rows:
    """Read the example as the model takes it; where it was fitted on a frame and does not say so, as a frame."""
    rows: Rows | None = None
    try:
        rows = read_example(path, named, original.model)
    except Failure as failure:
        if failure.reason in {"ExampleMissing", "ExampleUnreadable"}:
            raise
        refused: Exception = failure
    if rows is not None:
        try:
            original.ask(original.main, rows)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a project's code may raise anything
            refused = error
        else:
            return rows
    if path.suffix.lower() in {".csv", ".parquet"} and has("pandas"):
        frame = pd.read_csv(path, nrows=MOST_ROWS) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
        frame = frame.head(MOST_ROWS)
        framed = FrameRows(frame, tuple(kind_of(str(name), frame[name], None) for name in frame.columns))
        if original.accepts(framed):
            return framed
    if isinstance(refused, Failure):
        raise refused
    message = (
        f"The model itself refuses {named}: {type(refused).__name__}: {str(refused)[:400]}. "
        "Commit rows such as it was trained on."
    )
    raise Failure("ExampleUnreadable", message) from refused


def _outputs(original: Original, rows: Rows) -> list[tuple[Output, Any]]:
    name = {"regression": "prediction", "transformation": "transformed"}.get(original.task, "label")
    answer = _plain(original.ask(original.main, rows), name, rows)
    found = [(Output(name, name, original.main, is_label=answer.dtype.kind != "f"), answer)]
    for method, called in (("predict_proba", "probabilities"), ("decision_function", "scores")):
        if len(found) > 1 or method not in original.scores or original.task == "transformation":
            continue
        try:
            scores = _plain(original.ask(method, rows), called, rows)
        except Exception:  # noqa: BLE001, S112 - a method that does not answer is not offered
            continue
        if scores.dtype.kind == "f":
            found.append((Output(called, called, method, is_label=False), scores))
    return found


def _plain(answer: Any, name: str, rows: Rows) -> Any:
    """Give an answer as an array that travels."""
    if answer.ndim not in (1, 2) or len(answer) != len(rows):
        message = f"Output {name!r} has shape {tuple(answer.shape)} for {len(rows)} rows. Give one answer a row."
        raise Failure("ModelTypeUnsupported", message)
    if answer.dtype.kind in "OUS":
        if all(isinstance(value, (str, bytes)) for value in answer.ravel().tolist()):
            return answer.astype(str).astype(object)
        try:
            return answer.astype("float64")
        except (TypeError, ValueError):
            pass
    elif answer.dtype.name in artifacts.DATATYPES:
        return answer
    elif answer.dtype.kind == "f":
        return answer.astype("float64")
    message = f"Output {name!r} holds {answer.dtype}, which does not travel. Give numbers, booleans or strings."
    raise Failure("ModelTypeUnsupported", message)


def _markers(rows: Rows) -> list[str]:
    """Say what the original sees for a missing string in each input: ``none`` or ``nan``."""
    if isinstance(rows, FrameRows):
        return ["none" if column.marker is None else "nan" for column in rows.described]
    if isinstance(rows, MatrixRows):
        lost = [value for value in rows.array.ravel().tolist() if is_missing(value)]
        return ["none" if lost and lost[0] is None else "nan"]
    return []
