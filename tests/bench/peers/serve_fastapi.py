"""FastAPI with joblib, as a data scientist writes it: a pydantic body, the model, a dictionary."""
# mypy: ignore-errors

import os
import sys
from typing import Any

import joblib
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["BENCH_MODEL"])


class Matrix(BaseModel):
    """Rows of numbers."""

    rows: list[list[float]]


class Table(BaseModel):
    """Rows with named columns."""

    rows: list[dict[str, Any]]


@app.post("/predict")
def predict(body: Matrix) -> dict[str, Any]:
    """Answer for numbers."""
    chances = model.predict_proba(body.rows)
    return {"labels": chances.argmax(axis=1).tolist(), "probabilities": chances.tolist()}


@app.post("/table")
def table(body: Table) -> dict[str, Any]:
    """Answer for named columns."""
    chances = model.predict_proba(pd.DataFrame(body.rows))
    return {"labels": chances.argmax(axis=1).tolist(), "probabilities": chances.tolist()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
