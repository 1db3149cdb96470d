"""KServe's Python server with a model of its own, Open Inference Protocol over HTTP."""
# mypy: ignore-errors

import os
import sys

import joblib
from kserve import InferOutput, InferResponse, Model, ModelServer


class Bench(Model):
    """Answers the protocol's matrix."""

    def load(self):
        """Load the model."""
        self.model = joblib.load(os.environ["BENCH_MODEL"])
        self.ready = True
        return True

    async def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 -- as it is called
        """Answer."""
        chances = self.model.predict_proba(payload.inputs[0].as_numpy())
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
