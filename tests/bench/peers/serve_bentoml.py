"""BentoML as its documentation begins: a service with one API."""
# mypy: ignore-errors

import os

import bentoml
import joblib


@bentoml.service(workers=1)
class Bench:
    """Answers rows of numbers."""

    def __init__(self):
        """Load the model."""
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> dict:
        """Answer."""
        return self._answer(rows)

    @bentoml.api
    def table(self, rows: list[dict]) -> dict:
        """Answer for named columns."""
        import pandas as pd  # noqa: PLC0415 -- only a model with strings needs it

        return self._answer(pd.DataFrame(rows))

    def _answer(self, rows):
        chances = self.model.predict_proba(rows)
        return {"labels": chances.argmax(axis=1).tolist(), "probabilities": chances.tolist()}
