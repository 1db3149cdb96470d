"""Asking both sides: the original model by its methods, the ONNX model by its outputs."""

from __future__ import annotations

import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Any, Protocol

from .failure import Failure
from .foreign import has, np
from .inside import last_step
from .rows import Rows

SCORES = ("predict_proba", "decision_function", "score_samples", "transform")


def task_of(model: Any) -> str:
    """Name what a model does, in scikit-learn's words."""
    if not has("sklearn") or not hasattr(model, "get_params"):
        return "classification" if hasattr(model, "predict_proba") else "regression"
    base = importlib.import_module("sklearn.base")
    if base.is_classifier(model):
        return "classification"
    if base.is_regressor(model):
        return "regression"
    if getattr(base, "is_outlier_detector", lambda _: False)(last_step(model)):
        return "outlier-detection"
    if hasattr(model, "predict"):
        return "clustering"
    return "transformation"


class Original:
    """The fitted model, asked row by row in bulk; each method once for the same rows."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.task = task_of(model)

    def ask(self, method: str, rows: Rows) -> Any:
        """Give one method's answers, densely."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = getattr(self.model, method)(rows.original())
        return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)

    @property
    def main(self) -> str:
        """The method that every caller uses."""
        return "transform" if self.task == "transformation" else "predict"

    @property
    def scores(self) -> tuple[str, ...]:
        """The methods that give numbers beside the label."""
        return tuple(name for name in SCORES if hasattr(self.model, name))

    def accepts(self, rows: Rows) -> bool:
        """Tell whether the model answers these rows at all."""
        try:
            self.ask(self.main, rows)
        except Exception:  # noqa: BLE001 - whatever it raises, it does not answer
            return False
        return True


class Asked(Protocol):
    """What answers tensors: ONNX Runtime, or the model itself over a wire."""

    outputs: list[str]
    """Names of the answers, in their order."""

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """Answer tensors that go by the callers' names."""


class Session:
    """ONNX Runtime on one thread, which says nothing to anybody."""

    def __init__(self, content: bytes, tensors: dict[str, str] | None = None) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its Linux build begins with it when it is loaded
        runtime = importlib.import_module("onnxruntime")
        runtime.disable_telemetry_events()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Failure("ConversionFailed", f"ONNX Runtime refuses the model: {str(error)[:500]}") from error
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]
        known = [str(value.name) for value in self._session.get_inputs()]
        self.tensors = {name: name for name in known} if tensors is None else tensors
        """Name in the graph of each input."""

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """Answer tensors that go by the callers' names."""
        try:
            return list(self._session.run(self.outputs, {self.tensors[name]: value for name, value in feed.items()}))
        except Exception as error:
            raise Failure("ConversionFailed", f"ONNX Runtime cannot answer the rows: {str(error)[:500]}") from error


@dataclass(frozen=True)
class Output:
    """One output of the ONNX model and the method of the original that it stands for."""

    name: str
    tensor: str
    method: str
    is_label: bool
    column: int | None = None
    """Column of the output that is compared, where the original gives one number and ONNX two."""


def pair(original: Original, session: Session, rows: Rows, feed: dict[str, Any]) -> list[Output]:
    """Find for each ONNX output the method that it stands for.

    Raises:
        Failure: ``ConversionUnsupported`` where an output stands for none.
    """
    answers = session.run(feed)
    paired = []
    for place, (tensor, answer) in enumerate(zip(session.outputs, answers)):  # noqa: B905 - Python 3.9
        if not hasattr(answer, "dtype"):
            raise Failure(
                "ConversionUnsupported", f"Output {tensor!r} is not a tensor. Use a model with one answer a row."
            )
        if place == 0:
            label = original.task in {"classification", "outlier-detection", "clustering"}
            name = {"regression": "prediction", "transformation": "transformed"}.get(original.task, "label")
            paired.append(Output(name, tensor, original.main, label))
            continue
        found = _closest(original, rows, tensor, answer)
        if found is not None:
            paired.append(found)
    return paired


def _closest(original: Original, rows: Rows, tensor: str, answer: Any) -> Output | None:
    best: tuple[float, Output] | None = None
    for method in original.scores:
        try:
            expected = original.ask(method, rows)
        except Exception:  # noqa: BLE001, S112 - a method that does not answer stands for nothing
            continue
        if expected.dtype.kind not in "fiu":
            continue
        column = None
        compared = answer.reshape(len(rows), -1)
        expected = expected.reshape(len(rows), -1)
        if expected.shape[1] == 1 and compared.shape[1] == 2:
            column, compared = 1, compared[:, 1:]
        if expected.shape != compared.shape:
            continue
        distance = float(np.max(np.abs(expected - compared))) if expected.size else 0.0
        name = "probabilities" if method == "predict_proba" else "scores"
        candidate = (distance, Output(name, tensor, method, is_label=False, column=column))
        if best is None or candidate[0] < best[0]:
            best = candidate
    return None if best is None else best[1]
