# mypy: disable-error-code="import-untyped,misc"
"""A model that cannot be ONNX: refused unless it may be served natively, and then proven by its own answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from lab.ports import free_port
from slipway_operator.exporter.model_answers import replying

PROJECT = textwrap.dedent(
    '''
    """A model of a project's own."""

    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.preprocessing import FunctionTransformer

    def squares(rows):
        return np.hstack([np.asarray(rows, dtype=float), np.asarray(rows, dtype=float) ** 2])

    class Nearest(ClassifierMixin, BaseEstimator):
        def fit(self, rows, labels):
            self.classes_ = np.unique(labels)
            self.centres_ = np.array([np.asarray(rows)[labels == one].mean(axis=0) for one in self.classes_])
            return self

        def predict_proba(self, rows):
            distance = ((np.asarray(rows)[:, None, :] - self.centres_) ** 2).sum(axis=2)
            close = np.exp(-distance)
            return close / close.sum(axis=1, keepdims=True)

        def predict(self, rows):
            return self.classes_[self.predict_proba(rows).argmax(axis=1)]

    class Frames:
        """No estimator at all: takes a frame, and knows what a missing string looks like."""

        def predict(self, rows):
            shops = ["nowhere" if shop != shop else shop for shop in rows["shop"]]
            return [f"{shop}:{0 if amount != amount else amount:.1f}" for shop, amount in zip(shops, rows["amount"])]
    '''
)
MAKE = textwrap.dedent(
    """
    import joblib, numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    import shop

    rows = np.random.default_rng(0).normal(size=(60, 3)).round(2)
    labels = np.where(rows.sum(axis=1) > 0, "yes", "no")
    model = {make}
    joblib.dump(model, "model.joblib")
    """
)
NEAREST = "shop.Nearest().fit(rows, labels)"
FUNCTION = "make_pipeline(FunctionTransformer(shop.squares), LogisticRegression()).fit(rows, labels)"


_trained: dict[str, Path] = {}


def written(station, make: str, sample: str | None = None):
    """A project with code of its own and a model that was trained with it."""
    (station.project / "shop.py").write_text(PROJECT)
    (station.project / "train.py").write_text(MAKE.format(make=make))
    rows = np.random.default_rng(1).normal(size=(12, 3)).round(2)
    lines = "\n".join(",".join(map(str, row)) for row in rows)
    (station.project / "sample.csv").write_text(sample or f"a,b,c\n{lines}\n")
    if (trained := _trained.get(make)) is not None:  # by the same code, for a test before this one
        shutil.copytree(trained, station.work / "trained")
        return station
    station.train(sys.executable, "train.py")
    if station.status == 0:
        _trained[make] = station.work / "trained"
    return station


@pytest.mark.parametrize("make", [NEAREST, FUNCTION], ids=["custom-class", "function-transformer"])
def test_it_is_refused_by_default(station, make):
    written(station, make).export_in_container(trained="sha256:0")

    assert station.message["reason"] == "ConversionUnsupported"


@pytest.mark.parametrize("make", [NEAREST, FUNCTION], ids=["custom-class", "function-transformer"])
def test_it_is_served_natively_where_that_is_asked_for(station, make):
    written(station, make).export_in_container(trained="sha256:0", onFailure="ServeNative")

    certificate, signature, examples = (station.result(name) for name in ("certificate", "signature", "examples"))
    assert (certificate["engine"], certificate["file"], certificate["rows"]) == ("worker", "model.joblib", 12)
    assert certificate["why"]["reason"] == "ConversionUnsupported"
    assert certificate["labelFlips"] == 0
    assert {o["name"]: (o["method"], o["datatype"], o["shape"]) for o in signature["outputs"]} == {
        "label": ("predict", "BYTES", [-1]),
        "probabilities": ("predict_proba", "FP64", [-1, 2]),
    }
    assert signature["classes"] == ["no", "yes"]
    assert set(examples["outputs"][0]["data"]) <= {"no", "yes"}
    left = {path.name for path in (station.work / "model").iterdir()}
    assert left == {"model.joblib", "signature.json", "examples.json", "reference.json", "certificate.json"}
    assert (station.work / "model/model.joblib").read_bytes() == (station.work / "trained/model.joblib").read_bytes()


def test_a_model_that_takes_a_frame_sees_missing_values_as_it_did(station):
    sample = "shop,amount\nParis,1.5\n,2.0\nRome,\n"
    written(station, "shop.Frames()", sample).export_in_container(trained="sha256:0", onFailure="ServeNative")

    (answer,) = station.result("examples")["outputs"]
    assert answer["data"] == ["Paris:1.5", "nowhere:2.0", "Rome:0.0"]
    assert station.result("signature")["takes"] == "frame"


@pytest.mark.parametrize(
    ("make", "reason"), [("{'a': 1}", "ModelTypeUnsupported"), ("shop.Nearest", "ModelTypeUnsupported")]
)
def test_what_answers_nothing_is_refused_all_the_same(station, make, reason):
    written(station, make).export_in_container(trained="sha256:0", onFailure="ServeNative")

    assert station.message["reason"] == reason


def test_a_model_that_can_be_onnx_is_onnx(station):
    written(station, "LogisticRegression().fit(rows, labels)")
    station.export_in_container(trained="sha256:0", onFailure="ServeNative")

    assert "engine" not in station.result("certificate")
    assert (station.work / "model/model.onnx").is_file()
    assert not (station.work / "model/model.joblib").exists()


def test_a_model_that_refuses_its_example_is_not_served(station):
    written(station, NEAREST, "a,b\n1,2\n").export_in_container(trained="sha256:0", onFailure="ServeNative")

    assert station.message["reason"] in {"ExampleUnreadable", "ExampleColumnsMismatch"}


ANSWERS = textwrap.dedent(
    '''
    """Answers of the project's own."""

    import numpy as np

    def judged(rows, model):
        chances = model.predict_proba(np.column_stack([rows["a"], rows["b"], rows["c"]]))[:, 1]
        return {"verdict": ["sure" if abs(one - 0.5) > 0.4 else "unsure" for one in chances], "chance": chances}

    def named(rows):
        shops = ["nowhere" if shop is None or shop != shop else shop for shop in rows["shop"]]
        return [f"{shop}:{0 if amount != amount else amount:g}" for shop, amount in zip(shops, rows["amount"])]

    def half(rows):
        return [1.0] * (len(rows["a"]) // 2)

    def another_one_each_time(rows):
        return np.random.default_rng().normal(size=len(rows["a"]))

    asked = []

    def whole_at_first(rows):
        asked.append(rows)
        return np.arange(len(rows["a"])) + (0.5 if len(asked) > 1 else 0)

    def fails(rows):
        raise KeyError("distance")

    nothing = "no function"
    '''
)
LOGISTIC = "LogisticRegression().fit(rows, labels)"


def asked_by(station, function: str, sample: str | None = None, **request):
    """Export a project whose own function answers."""
    written(station, LOGISTIC, sample)
    (station.project / "answers.py").write_text(ANSWERS)
    return station.export_in_container(trained="sha256:0", onFailure="ServeNative", function=function, **request)


def test_a_function_of_the_project_answers_by_names_of_its_own(station):
    asked_by(station, "answers:judged")

    signature, certificate, examples = (station.result(name) for name in ("signature", "certificate", "examples"))
    assert signature["function"] == certificate["function"] == certificate["estimator"] == "answers:judged"
    assert [(one["name"], one["datatype"], one["shape"]) for one in signature["outputs"]] == [
        ("verdict", "BYTES", [-1]),
        ("chance", "FP64", [-1]),
    ]
    assert [one["name"] for one in signature["inputs"]] == ["a", "b", "c"]
    assert (certificate["engine"], certificate["maxAbsoluteDifference"]) == ("worker", 0.0)
    assert "answers:judged answers" in certificate["why"]["message"]
    assert set(examples["outputs"][0]["data"]) <= {"sure", "unsure"}


def test_a_function_is_asked_with_lists_where_the_project_has_no_pandas(station):
    (station.project / "sitecustomize.py").write_text("import sys\nsys.modules['pandas'] = None\n")
    asked_by(station, "answers:judged")

    assert [one["shape"] for one in station.result("signature")["inputs"]] == [[-1, 3]]
    assert station.result("signature")["columns"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("function", "reason", "said"),
    [
        ("answrs:judged", "FunctionMissing", "there is no module 'answrs' in the project or its lock file"),
        ("answers:nothing", "FunctionMissing", "answers:nothing is no function"),
        ("answers:fails", "FunctionFailed", "answers:fails refuses the example: KeyError: 'distance'"),
        ("answers:half", "ModelTypeUnsupported", "Give one answer a row"),
        ("answers:another_one_each_time", "ParityFailed", "answers the example otherwise when it is asked again"),
        ("answers:whole_at_first", "ParityFailed", "an answer does not fit INT64, which it is in the example"),
    ],
)
def test_a_function_that_cannot_answer_is_refused(station, function, reason, said):
    asked_by(station, function)

    assert station.message["reason"] == reason
    assert said in station.message["message"]


def answered(answer, datatype):
    """What goes over the wire for an answer, as values of its datatype."""
    spec = {"name": "price", "datatype": datatype, "shape": [-1]}
    replies = replying(lambda _: {"price": answer}, {"outputs": [spec]})
    _, (raw,) = replies({"inputs": []}, memoryview(b""))
    return np.frombuffer(raw, np.dtype({"INT64": "<i8", "UINT8": "u1", "BOOL": "?", "FP32": "<f4"}[datatype])).tolist()


@pytest.mark.parametrize(
    ("answer", "datatype"),
    [
        pytest.param(np.array([99.5, 2.99]), "INT64", id="fractions"),
        pytest.param(np.array([1.0, np.nan]), "INT64", id="missing"),
        pytest.param(np.array([1e300]), "INT64", id="too-large"),
        pytest.param(np.array([1, 2.5], dtype=object), "INT64", id="objects"),
        pytest.param(pd.Series([1.0, 99.5]), "INT64", id="series"),
        pytest.param(np.array([2**64 - 1], dtype="uint64"), "INT64", id="unsigned"),
        pytest.param(np.array([300]), "UINT8", id="narrow"),
        pytest.param(np.array([0.5]), "BOOL", id="truth"),
    ],
)
def test_an_answer_that_does_not_fit_its_datatype_is_none(answer, datatype):
    """The example's answers were whole numbers; one that is not must not be cut to one on its way."""
    with pytest.raises(ValueError, match=f"does not fit {datatype}"):
        answered(answer, datatype)


@pytest.mark.parametrize(
    ("answer", "datatype", "expected"),
    [
        pytest.param(np.array([99.0, -2.0]), "INT64", [99, -2], id="whole-floats"),
        pytest.param(np.array([1, 2.0], dtype=object), "INT64", [1, 2], id="objects"),
        pytest.param(np.array([True, False]), "INT64", [1, 0], id="truths"),
        pytest.param(np.array([1, 0]), "BOOL", [True, False], id="ones"),
        pytest.param(np.array([0.1, 2.0]), "FP32", [float(np.float32(0.1)), 2.0], id="less-precise"),
    ],
)
def test_an_answer_that_fits_goes_as_it_is(answer, datatype, expected):
    assert answered(answer, datatype) == expected


def test_an_onnx_file_has_no_function(station):
    (station.project / "model.onnx").write_bytes(b"any")
    (station.project / "sample.csv").write_text("a\n1\n")
    station.export_in_container(modelPath="model.onnx", onFailure="ServeNative", function="answers:judged")

    assert station.message["reason"] == "ModelTypeUnsupported"
    assert "Leave spec.export.function out" in station.message["message"]


@contextlib.contextmanager
def pod(station):
    """Run the two containers that a serving pod has, on what the export left; gives the runtime's address."""
    model = station.work / "model"
    shared = station.root / "shared"
    shared.mkdir()
    port = free_port("127.0.0.1")
    told = {
        "socket": str(shared / "worker.sock"),
        "model": str(model / "model.joblib"),
        "signature": str(model / "signature.json"),
    }
    environment = {**os.environ, "PYTHONPATH": str(station.project), "SLIPWAY_WORKER": json.dumps(told)}
    digest = "sha256:" + hashlib.sha256((model / "model.joblib").read_bytes()).hexdigest()
    runtime = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(model), "--name", "shop", "--version", "c0"]
    runtime += ["--model-digest", digest, "--port", str(port), "--worker-socket", told["socket"]]
    runtime += ["--worker-model", "model.joblib", "--drain-seconds", "0"]
    with contextlib.ExitStack() as stack:
        for command, env in ((station.command("serve"), environment), (runtime, dict(os.environ))):
            process = stack.enter_context(subprocess.Popen(command, env=env))
            stack.callback(process.terminate)
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/v2/health/ready", trust_env=False).status_code == 200:
                    break
            time.sleep(0.02)
        else:
            pytest.fail("the runtime did not get ready: the rows were not answered as recorded")
        yield address


def ask(address: str, *rows: dict[str, object]) -> list[dict[str, Any]]:
    answer = httpx.post(f"{address}/predict", json={"rows": rows}, trust_env=False)
    return answer.raise_for_status().json()["predictions"]


def test_what_the_export_left_is_answered_as_recorded_by_a_server_and_a_runtime(station):
    written(station, FUNCTION).export_in_container(trained="sha256:0", onFailure="ServeNative")
    assert station.status == 0, station.output

    with pod(station) as address:
        high, low = ask(address, {"a": 3, "b": 3, "c": 3}, {"a": -3, "b": -3, "c": -3})

    assert (high["label"], low["label"]) == ("yes", "no")
    assert high["probabilities"]["yes"] > 0.5


def test_a_function_of_the_project_is_asked_by_a_server_and_a_runtime(station):
    """It comes with the signature, so that nothing else has to name it."""
    asked_by(station, "answers:named", "shop,amount\nParis,1.5\n,2.0\nRome,\n")
    assert station.status == 0, station.output

    with pod(station) as address:
        answers = ask(address, {"shop": "Oslo", "amount": 3}, {"shop": None, "amount": None})

    assert [one["prediction"] for one in answers] == ["Oslo:3", "nowhere:0"]


def test_one_row_with_a_missing_value_is_answered_as_in_the_example(station):
    sample = "shop,amount\nParis,1.5\n,2.0\nRome,\n"
    written(station, "shop.Frames()", sample).export_in_container(trained="sha256:0", onFailure="ServeNative")

    with pod(station) as address:
        (alone,) = ask(address, {"shop": None, "amount": None})

    assert alone["prediction"] == "nowhere:0.0"
