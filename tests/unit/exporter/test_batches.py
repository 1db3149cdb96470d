# mypy: disable-error-code="import-untyped"
"""Requests that run together are answered as each would be alone, within what a model's own export allows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from tests.unit.exporter.test_export import flights, frame_pipeline
from threadpoolctl import threadpool_limits

from slipway_runtime.dataplane import DataPlane, PackedWork, PlaneLimits
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model, ModelOptions, load_model
from slipway_runtime.protocol.packing import Packed

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's and skl2onnx's own deprecations

ROWS = 400
FEATURES = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
CLASSES = (FEATURES.sum(axis=1) > 0).astype(int)


def matrix(estimator):
    def made():
        targets = CLASSES if hasattr(estimator, "predict_proba") else FEATURES[:, 0] * FEATURES[:, 1]
        with threadpool_limits(1):  # OpenMP's threads wait for each other for minutes where cores are taken
            estimator.fit(FEATURES, targets)
        return estimator, FEATURES[:50], "a,b,c,d"

    return made


def strings():
    frame, late = flights()
    return frame_pipeline(RandomForestClassifier(30, random_state=0)).fit(frame, late), frame.head(50), None


MODELS = [
    pytest.param(matrix(RandomForestClassifier(50, random_state=0)), id="forest"),
    pytest.param(matrix(RandomForestRegressor(50, random_state=0)), id="forest-of-numbers"),
    pytest.param(matrix(HistGradientBoostingClassifier(max_iter=20, random_state=0)), id="gradient-boosting"),
    pytest.param(strings, id="strings"),
]


@pytest.fixture
def exported(station, request):
    """A model as the export leaves it: what is served, its feeds row by row, and the difference it may have."""
    model, sample, header = request.param()
    joblib.dump(model, station.project / "model.joblib")
    path = station.project / "sample.csv"
    if header is None:
        sample.to_csv(path, index=False)
    else:
        np.savetxt(path, sample, delimiter=",", header=header, comments="", fmt="%.6f")
    assert station.export(example="sample.csv").status == 0, station.output
    folder = station.work / "model"
    digest = "sha256:" + hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    served = load_model(ModelOptions(folder, "toy", "v", digest), Metrics("toy", "v"))
    tolerance = station.result("examples")["tolerance"]
    return served, tolerance


def feeds_of(model: Model, seed: int, rows: int):
    pick = np.random.default_rng(seed)
    if model.packer.matrix is not None:
        return {model.packer.matrix.tensor: pick.normal(size=(rows, 4)).astype(np.float32)}
    frame, _ = flights()
    some = frame.drop(columns="unused").sample(rows, replace=True, random_state=seed)
    body = json.dumps({"rows": json.loads(some.to_json(orient="records"))}).encode()
    feeds, _ = model.aligner.align(model.rows.read(body))
    return feeds


class Sums:
    """Takes an outcome apart for the requests of a batch, as an adapter does."""

    def settle(self, works, outcome):
        assert not isinstance(outcome, Exception), outcome
        start = 0
        for work in works:
            work.caller([output[start : start + work.rows] for output in outcome])
            start += work.rows


async def together(model: Model, sent, packed, cap: int):
    """Give the answers to requests of one turn."""
    matrix = model.packer.matrix
    plane = DataPlane(model.plane._engine, Metrics("m", "v"), limits=PlaneLimits(batch_rows=cap), matrix=matrix)
    waiting = []
    for feeds, as_bytes in zip(sent, packed, strict=False):
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        rows = len(next(iter(feeds.values())))
        if matrix is not None and as_bytes:
            bytes_ = Packed(feeds[matrix.tensor].tobytes(), rows, None)
            plane.enqueue(PackedWork(bytes_, matrix.shape[1:], Sums(), future.set_result, math.inf))
        else:
            plane.submit(feeds, rows, future.set_result)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
    plane.close()
    return answers


@pytest.mark.parametrize("exported", MODELS, indirect=True)
def test_batched_answers_are_those_of_each_request_alone(exported):
    """However requests are batched, mixed and capped; labels and strings are the same ones."""
    model, tolerance = exported
    assert tolerance <= 1e-4, "the export states how far an answer may be from the model's own"

    @given(
        st.lists(st.integers(1, 80), min_size=1, max_size=12),
        st.lists(st.booleans(), min_size=12, max_size=12),
        st.integers(1, 70),
        st.integers(0, 1000),
    )
    @settings(max_examples=15, deadline=None)
    def check(sizes, packed, cap, seed):
        sent = [feeds_of(model, seed + place, rows) for place, rows in enumerate(sizes)]
        for feeds, outputs in zip(sent, asyncio.run(together(model, sent, packed, cap)), strict=True):
            for alone, one in zip(model.plane._engine.run(feeds), outputs, strict=True):
                if alone.dtype.kind == "f":
                    np.testing.assert_allclose(one, alone, atol=tolerance, rtol=0)
                else:
                    np.testing.assert_array_equal(one, alone)

    check()
