"""KServe's Python server with a model of its own, Open Inference Protocol over HTTP."""
# mypy: ignore-errors

import os
import sys

import joblib
import pandas as pd
from kserve import InferOutput, InferResponse, Model, ModelServer


def _table(payload):
    """Put columns together."""
    columns = {}
    for tensor in payload.inputs:
        values = tensor.as_numpy().ravel()
        is_bytes = tensor.datatype == "BYTES"
        columns[tensor.name] = (
            [one.decode() if isinstance(one, bytes) else one for one in values] if is_bytes else values
        )
    return pd.DataFrame(columns)


class Bench(Model):
    """Answers the protocol's matrix."""

    def load(self):
        """Load the model."""
        self.model = joblib.load(os.environ["BENCH_MODEL"])
        self.ready = True
        return True

    async def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 -- as it is called
        """Answer."""
        is_table = len(payload.inputs) > 1
        given = _table(payload) if is_table else payload.inputs[0].as_numpy()
        chances = self.model.predict_proba(given)
        outputs = []
        for name, kind, array in (
            ("label", "INT64", chances.argmax(axis=1)),
            ("probabilities", "FP64", chances.astype(float)),
        ):
            output = InferOutput(name=name, shape=list(array.shape), datatype=kind)
            output.set_data_from_numpy(array, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    model = Bench("bench")
    model.load()
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1, access_log_format=None).start(
        [model]
    )
