"""A small ONNX runtime for MLServer, as its documentation describes custom runtimes."""
# mypy: ignore-errors

import os

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    """Answers the protocol's matrix."""

    async def load(self):
        """Load the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"])
        self._tensor = self._session.get_inputs()[0].name
        return True

    async def predict(self, payload):
        """Answer."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        labels, chances = self._session.run(None, {self._tensor: rows})
        outputs = [NumpyCodec.encode_output("label", labels), NumpyCodec.encode_output("probabilities", chances)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
