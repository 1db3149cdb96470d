"""LitServe as its documentation begins: one API, one worker."""
# mypy: ignore-errors

import os
import sys

import joblib
import litserve as ls
import numpy as np


class Api(ls.LitAPI):
    """Answers rows of numbers."""

    def setup(self, _device):
        """Load the model in the worker."""
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    def decode_request(self, request):
        """Rows to an array or, of a model with strings, to a table."""
        rows = request["rows"]
        if isinstance(rows[0], list):
            return np.array(rows)
        import pandas as pd  # noqa: PLC0415 -- only such a model needs it

        return pd.DataFrame(rows)

    def predict(self, x):
        """Compute."""
        return self.model.predict_proba(x)

    def encode_response(self, output):
        """Array to lists."""
        return {"labels": output.argmax(axis=1).tolist(), "probabilities": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
