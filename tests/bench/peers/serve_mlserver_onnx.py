"""A small ONNX runtime for MLServer, as its documentation describes custom runtimes."""
# mypy: ignore-errors

import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


def _column(tensor):
    """Read one column."""
    if tensor.datatype == "BYTES":
        return np.array(StringCodec.decode_input(tensor), object).reshape(-1, 1)
    return NumpyCodec.decode_input(tensor)


class OnnxModel(MLModel):
    """Answers the protocol's matrix."""

    async def load(self):
        """Load the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"])
        self._tensors = [one.name for one in self._session.get_inputs()]
        return True

    async def predict(self, payload):
        """Answer."""
        if len(self._tensors) == 1:
            given = {self._tensors[0]: NumpyCodec.decode_input(payload.inputs[0])}
        else:
            given = {one.name: _column(one) for one in payload.inputs}
        labels, chances = self._session.run(None, given)
        outputs = [NumpyCodec.encode_output("label", labels), NumpyCodec.encode_output("probabilities", chances)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
