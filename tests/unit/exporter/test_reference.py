# mypy: disable-error-code="import-untyped,misc"
"""What the exporter says of its example rows, so that live values can be compared with them."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from slipway_operator.exporter.reference import reference
from slipway_operator.exporter.rows import Input

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's and skl2onnx's own deprecations


def described(values, *, datatype: str = "FP32", **options):
    array = np.asarray(values).reshape(len(values), 1)
    return reference([(Input("x", datatype, (-1, 1), "number"), array)], ["x"], [], **options)["features"][0]


def test_bins_of_numbers_hold_all_rows_in_tenths():
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    told = described(values)

    edges = np.array(told["edges"])
    assert len(edges) == 11
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    assert set(edges.tolist()) <= set(values.astype("float64").tolist())
    assert sum(told["counts"]) == 1000
    assert told["counts"][-1] == 0
    assert all(95 <= count <= 105 for count in told["counts"][1:-1])


def test_few_values_are_a_bin_each_and_missing_ones_are_none():
    told = described(np.array([1, 1, 2, np.nan, np.inf, -np.inf], dtype="float32"))

    assert told["edges"] == [1.0, 2.0]
    assert told["counts"] == [3, 1, 1]
    assert told["missing"] == 1


def test_a_column_without_a_value_has_one_bin():
    assert described(np.array([np.nan, np.nan], dtype="float32")) == {
        "name": "x", "input": "x", "column": 0, "edges": [], "counts": [0], "missing": 2,
    }  # fmt: skip


def test_categories_are_counted_and_known_ones_are_not_unseen():
    values = np.array(["UA"] * 3 + ["AA"] + [""] * 2, dtype=object)
    told = described(values, datatype="BYTES", known={"x": ["AA", "DL"]})

    assert told["categories"] == {"UA": 3, "AA": 1, "DL": 0}
    assert (told["missing"], told["other"]) == (2, 0)
    assert "known" not in told


def test_rare_categories_are_counted_together():
    values = np.array([f"c{number:03}" for number in range(150)] + ["c149"], dtype=object)
    told = described(values, datatype="BYTES")

    assert len(told["categories"]) == 100
    assert told["other"] == len(told["known"]) == 50
    assert next(iter(told["categories"])) == "c149"


def test_outputs_name_their_classes():
    outputs = [("label", np.array([0, 1, 1])), ("probabilities", np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]))]
    told = reference([], [], outputs, classes=["no", "yes"])["outputs"]

    assert told[0]["categories"] == {"1": 2, "0": 1}
    assert [(one["column"], one["class"]) for one in told[1:]] == [(0, "no"), (1, "yes")]


def test_an_export_leaves_the_reference_of_its_rows(station):
    make = np.random.default_rng(1)
    frame = pd.DataFrame({"carrier": make.choice(["UA", "AA", "DL"], 200), "miles": make.normal(900, 300, 200)})
    late = (frame["miles"] > 800).astype(int)
    columns = [("c", OneHotEncoder(handle_unknown="ignore"), ["carrier"]), ("m", "passthrough", ["miles"])]
    model = make_pipeline(ColumnTransformer(columns), LogisticRegression(max_iter=1000)).fit(frame, late)
    joblib.dump(model, station.project / "model.joblib")
    frame[frame["carrier"] != "DL"].head(50).to_csv(station.project / "sample.csv", index=False)
    station.export()

    told = station.result("reference")
    assert told["rows"] == 50
    carrier, miles = told["features"]
    assert (carrier["name"], miles["name"]) == ("carrier", "miles")
    assert carrier["categories"]["DL"] == 0, "the encoder knows it"
    assert sum(miles["counts"]) == 50
    assert {one["output"] for one in told["outputs"]} == {"label", "probabilities"}
