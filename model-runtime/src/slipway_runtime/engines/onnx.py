"""ONNX Runtime: one thread, no spinning, no telemetry, one file."""

from __future__ import annotations

import os

# Before the import: its Linux build starts telemetry, with a database in the home directory and
# threads that upload, as soon as it is loaded; `disable_telemetry_events` comes too late for that.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]  # it ships no types

from slipway_runtime.engines.onnx_file import refuse_external_data
from slipway_runtime.errors import CannotServe, EngineFailed, Refused
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.signature import Signature, TensorSpec
from slipway_runtime.protocol.tensors import Array

ort.disable_telemetry_events()

_TENSOR_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

_ERRORS_OF_VALUES = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name) for name in ("InvalidArgument", "Fail", "RuntimeException")
)
"""What ONNX Runtime raises when a model that loaded cannot compute certain values."""


class OnnxEngine:
    """A model in ONNX Runtime."""

    waits = False

    def __init__(self, model: bytes, signature: Signature) -> None:
        """Load a model.

        Args:
            model: The ONNX file's bytes, already compared with their digest.
            signature: What the exporter says that it takes and gives.

        Raises:
            CannotServe: If it refers to other files, cannot be loaded, or is not as the signature says.
        """
        refuse_external_data(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.enable_cpu_mem_arena = False  # the arena keeps the largest batch's memory for ever
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise CannotServe(f"ONNX Runtime {ort.__version__} cannot load the model: {_first_line(error)}") from error
        graph_inputs = {item.name: item.type for item in self._session.get_inputs()}
        graph_outputs = {item.name: item.type for item in self._session.get_outputs()}
        _compare("input", signature.inputs, graph_inputs)
        _compare("output", signature.outputs, graph_outputs)
        if absent := graph_inputs.keys() - {spec.tensor for spec in signature.inputs}:
            raise CannotServe(f"the model takes inputs that signature.json does not name: {', '.join(sorted(absent))}")
        self._outputs = [spec.tensor for spec in signature.outputs]
        # A classifier that was not trained to do without a value gives NaN for chances, and a label
        # that means nothing, where scikit-learn raises. A regression's NaN says so by itself: null.
        classifies = signature.task == "classification"
        self._chances = [index for index, spec in enumerate(signature.outputs) if classifies and spec.datatype.is_float]

    def is_ready(self) -> bool:
        """Tell whether it could be asked now: a model that was loaded can."""
        return True

    def run(self, feeds: Feeds) -> list[Array]:
        """Compute all outputs, in the signature's order.

        Raises:
            Refused: If the model cannot compute an answer for these values.
            EngineFailed: If memory runs out, or anything else breaks.
        """
        try:
            outputs = self._session.run(self._outputs, feeds)
        except _ERRORS_OF_VALUES as error:
            raise Refused("the model cannot compute an answer for these values") from error
        except Exception as error:
            raise EngineFailed("the model's engine failed") from error
        for index in self._chances:
            # One call instead of two: the largest value is NaN if any is.
            largest = np.maximum.reduce(outputs[index], axis=None, initial=-np.inf)
            if largest != largest:  # noqa: PLR0124 -- as NaN is
                row = int(np.argwhere(np.isnan(outputs[index]))[0][0])
                raise Refused(
                    f"the model has no answer to row {row}; it cannot do without the value that is missing there"
                )
        return [output if isinstance(output, np.ndarray) else np.asarray(output) for output in outputs]


def _compare(direction: str, specs: tuple[TensorSpec, ...], graph: dict[str, str]) -> None:
    for spec in specs:
        kind = graph.get(spec.tensor)
        if kind is None:
            raise CannotServe(
                f"signature.json names {direction} {spec.tensor}, but the model has {', '.join(sorted(graph))}"
            )
        if _TENSOR_TYPES.get(kind) != spec.datatype.name:
            raise CannotServe(
                f"signature.json says that {direction} {spec.name} is {spec.datatype.name}; the model has {kind}"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
