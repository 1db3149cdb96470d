# ruff: noqa: E501 - a table reads line by line
# mypy: disable-error-code="import-untyped,misc"
"""The export, run as its container runs it, on models made here."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import cloudpickle
import joblib
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lab.projects import SAMPLE, linear_model
from slipway_operator.exporter import loading
from slipway_operator.exporter.failure import Failure


def matrix(rows: int = 60, columns: int = 3):
    return np.random.default_rng(0).normal(size=(rows, columns)).round(2)


def logistic():
    features = matrix()
    return LogisticRegression().fit(features, (features.sum(axis=1) > 0).astype(int))


def write_csv(station, features, header: str = "a,b,c"):
    np.savetxt(station.project / "sample.csv", features, delimiter=",", header=header, comments="", fmt="%.2f")


pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's and skl2onnx's own deprecations


@pytest.fixture
def numbers(station):
    """A project with a committed model of three numbers."""
    joblib.dump(logistic(), station.project / "model.joblib")
    write_csv(station, matrix(30))
    return station


def flights(rows: int = 400) -> tuple[pd.DataFrame, np.ndarray]:
    """Make a frame of all kinds of columns, with missing values in each that can have them."""
    make = np.random.default_rng(1)
    carrier = np.array(["UA", "AA", "Ünïcode ✈", None], dtype=object)[make.integers(0, 4, rows)]
    frame = pd.DataFrame({
        "carrier": carrier,
        "zip": make.choice(["10001", "02115", "94016"], rows),
        "hour": make.integers(0, 24, rows),
        "gate": make.integers(1, 5, rows),
        "wind speed": np.where(make.random(rows) < 0.1, np.nan, make.normal(10, 3, rows).round(2)),
        "weekend": make.random(rows) < 0.3,
        "unused": make.choice(["x", "y"], rows),
    })  # fmt: skip
    frame["carrier"] = frame["carrier"].where(frame["carrier"].notna(), np.nan)
    late = ((frame["hour"] > 15) ^ (frame["carrier"] == "UA")).astype(int).to_numpy()
    return frame, late


def frame_pipeline(classifier):
    strings = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )
    return make_pipeline(
        ColumnTransformer(
            [
                ("strings", strings, ["carrier", "zip"]),
                ("gates", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["gate"]),
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["hour", "wind speed"]),
                ("rest", "passthrough", ["weekend"]),
            ]
        ),
        classifier,
    )


@pytest.fixture
def frames(station):
    """A project whose model takes a frame of strings, numbers and booleans."""
    frame, late = flights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joblib.dump(frame_pipeline(LogisticRegression()).fit(frame, late), station.project / "model.joblib")
    frame.head(50).to_csv(station.project / "sample.csv", index=False)
    return station


def test_an_export_leaves_model_signature_examples_and_certificate(numbers):
    numbers.export_in_container()

    signature = numbers.result("signature")
    assert [(one["name"], one["datatype"], one["shape"]) for one in signature["inputs"]] == [("input", "FP32", [-1, 3])]
    assert [(one["name"], one["datatype"], one["shape"]) for one in signature["outputs"]] == [
        ("label", "INT64", [-1]),
        ("probabilities", "FP32", [-1, 2]),
    ]
    assert (signature["columns"], signature["classes"], signature["task"]) == (
        ["a", "b", "c"],
        [0, 1],
        "classification",
    )
    certificate = numbers.result("certificate")
    assert (certificate["rows"], certificate["labelFlips"]) == (30, 0)
    assert certificate["maxAbsoluteDifference"] <= 1e-5
    assert set(certificate["versions"]) >= {"python", "scikit-learn", "numpy", "skl2onnx", "onnx", "onnxruntime"}


def as_arrays(tensors):
    kinds: dict[str, Any] = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "BOOL": "bool", "BYTES": object}
    return {
        one["name"]: np.array(
            [np.nan if value is None else value for value in one["data"]], dtype=kinds[one["datatype"]]
        ).reshape(one["shape"])
        for one in tensors
    }


def test_recorded_examples_are_what_the_written_model_answers(frames):
    frames.export()

    examples, signature = frames.result("examples"), frames.result("signature")
    session = onnxruntime.InferenceSession((frames.work / "model" / "model.onnx").read_bytes())
    tensors = {one["name"]: one["tensor"] for one in signature["outputs"]}
    names = {one["name"]: one["tensor"] for one in signature["inputs"]}
    feed = {names[name]: array for name, array in as_arrays(examples["inputs"]).items()}
    got = session.run([tensors[one["name"]] for one in examples["outputs"]], feed)
    for output, answer in zip(as_arrays(examples["outputs"]).values(), got, strict=True):
        np.testing.assert_allclose(output, answer, atol=1e-5)
    assert len(examples["inputs"][0]["data"]) == 20


def test_a_frame_model_takes_a_tensor_for_each_column_that_counts(frames):
    frames.export()

    kinds = {one["name"]: (one["datatype"], one["kind"]) for one in frames.result("signature")["inputs"]}
    assert kinds == {
        "carrier": ("BYTES", "string"),
        "zip": ("BYTES", "string"),
        "hour": ("FP32", "number"),
        "gate": ("INT64", "integer"),
        "wind speed": ("FP32", "number"),
        "weekend": ("BOOL", "boolean"),
    }
    # Missing and unseen strings were compared too: two columns, two values.
    assert frames.result("certificate")["compared"]["missingAndUnseenStrings"]["rows"] == 4


def test_missing_strings_without_an_imputer_are_a_category_of_their_own(station):
    frame, late = flights()
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = make_pipeline(ColumnTransformer([("s", encoder, ["carrier"])]), LogisticRegression()).fit(frame, late)
    joblib.dump(model, station.project / "model.joblib")
    frame.head(40).to_csv(station.project / "sample.csv", index=False)
    station.export()

    answers = {
        value: onnxruntime.InferenceSession((station.work / "model" / "model.onnx").read_bytes()).run(
            ["probabilities"], {"carrier": np.array([[value]], dtype=object)}
        )[0]
        for value in ("", "UA", "never seen")
    } if station.status == 0 else pytest.fail(station.output)  # fmt: skip
    missing = frame[frame["carrier"].isna()].head(1)
    expected = model.predict_proba(missing)
    np.testing.assert_allclose(answers[""], expected, atol=1e-5)
    assert not np.allclose(answers[""], answers["never seen"])


def test_trees_behind_columns_keep_every_threshold(station):
    frame, late = flights()
    model = make_pipeline(
        ColumnTransformer([("numbers", "passthrough", ["wind speed", "hour"])]),
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
    ).fit(frame, late)
    joblib.dump(model, station.project / "model.joblib")
    frame.to_csv(station.project / "sample.csv", index=False)
    station.export()

    certificate = station.result("certificate")
    assert certificate["numbers"] == "float64"
    assert certificate["compared"]["aroundThresholds"]["rows"] > 20
    assert certificate["atThresholds"]["maxAbsoluteDifference"] <= 1e-5


@pytest.mark.parametrize(("suffix", "save"), [
    pytest.param("joblib", joblib.dump, id="joblib"),
    pytest.param("pkl", lambda model, path: path.write_bytes(pickle.dumps(model)), id="pickle"),
    pytest.param("cloudpickle", lambda model, path: path.write_bytes(cloudpickle.dumps(model)), id="cloudpickle"),
    pytest.param("skops", skops.io.dump, id="skops"),
])  # fmt: skip
def test_every_format_is_loaded(station, suffix, save):
    save(logistic(), station.project / f"m.{suffix}")
    write_csv(station, matrix(10))
    station.export(modelPath=f"m.{suffix}")

    assert station.result("certificate")["estimator"] == "LogisticRegression"


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_examples_in_other_formats(numbers, suffix):
    if suffix == "npy":
        np.save(numbers.project / "sample.npy", matrix(10))
    else:
        pd.DataFrame(matrix(10), columns=list("abc")).to_parquet(numbers.project / "sample.parquet")
    numbers.export(example=f"sample.{suffix}")

    assert numbers.result("certificate")["rows"] == 10


def test_a_trained_model_is_taken_from_the_training(numbers):
    (numbers.work / "trained").mkdir()
    (numbers.project / "model.joblib").rename(numbers.work / "trained" / "model.joblib")
    numbers.export(trained="sha256:" + "0" * 64, modelPath="models/model.joblib")

    assert numbers.status == 0, numbers.output


def test_the_same_model_gives_the_same_bytes(frames):
    frames.export()
    here = {path.name: path.read_bytes() for path in (frames.work / "model").iterdir()}
    frames.export_in_container()
    there = {path.name: path.read_bytes() for path in (frames.work / "model").iterdir()}

    assert frames.status == 0, frames.output
    assert here == there


def test_a_committed_onnx_model_is_checked_and_described(numbers):
    numbers.export()
    (numbers.work / "model" / "model.onnx").rename(numbers.project / "ready.onnx")
    numbers.export(modelPath="ready.onnx")

    signature = numbers.result("signature")
    assert signature["inputs"][0]["shape"] == [-1, 3]
    assert [one["name"] for one in signature["outputs"]] == ["label", "probabilities"]
    assert len(numbers.result("examples")["outputs"]) == 2


def test_an_onnx_model_that_was_trained_elsewhere(numbers):
    (numbers.project / "ready.onnx").write_bytes(linear_model())
    (numbers.project / "four.csv").write_text(SAMPLE)
    numbers.export(modelPath="ready.onnx", example="four.csv")

    signature = numbers.result("signature")
    assert [(one["name"], one["shape"]) for one in signature["inputs"]] == [("input", [-1, 4])]
    assert len(signature["columns"]) == 4


def zip_codes() -> bytes:
    """A model that someone made by other means: a number for each zip code, which is text."""
    of_codes = onnx.helper.make_node(
        "LabelEncoder", ["zip"], ["district"], domain="ai.onnx.ml",
        keys_strings=["10001", "02134"], values_floats=[1.0, 2.0], default_float=-1.0,
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [of_codes],
        "zip",
        [onnx.helper.make_tensor_value_info("zip", onnx.TensorProto.STRING, [None, 1])],
        [onnx.helper.make_tensor_value_info("district", onnx.TensorProto.FLOAT, [None, 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_onnx_model_of_text_gets_it_as_it_is_written(station, suffix):
    """`02134` is no number: as one, it would be recorded, watched for drift and answered as another text."""
    (station.project / "ready.onnx").write_bytes(zip_codes())
    frame = pd.DataFrame({"zip": ["10001", "02134", None]})
    {"csv": frame[:2].to_csv, "parquet": frame.to_parquet}[suffix](station.project / f"e.{suffix}", index=False)
    station.export(modelPath="ready.onnx", example=f"e.{suffix}")

    examples = station.result("examples")
    assert examples["inputs"][0]["data"][:2] == ["10001", "02134"]
    assert examples["outputs"][0]["data"][:2] == [1.0, 2.0]
    assert {"csv": [], "parquet": [""]}[suffix] == examples["inputs"][0]["data"][2:]


@pytest.mark.parametrize(("name", "content", "reason", "says"), [
    pytest.param("e.csv", b"a,b,c,d\n", "ExampleUnreadable", "e.csv has no row", id="header-only"),
    pytest.param("e.csv", b"a,b,c,d\n1,2,x,4\n", "ExampleColumnsMismatch", "could not convert string to float: 'x'", id="text"),
    pytest.param("e.npy", np.arange(4.0), "ExampleColumnsMismatch", "rows by columns", id="one-dimension"),
    pytest.param("e.npy", np.float64(1), "ExampleUnreadable", "e.npy cannot be read", id="no-dimension"),
    pytest.param("e.npy", np.empty((0, 4)), "ExampleUnreadable", "e.npy has no row", id="no-row"),
    pytest.param("e.txt", b"1", "ExampleUnreadable", "is neither .csv nor .parquet nor .npy", id="format"),
    pytest.param("e.parquet", b"PAR", "ExampleUnreadable", "e.parquet cannot be read", id="no-parquet"),
])  # fmt: skip
def test_an_example_that_no_onnx_model_can_take_says_why(station, name, content, reason, says):
    (station.project / "ready.onnx").write_bytes(linear_model())
    if isinstance(content, bytes):
        (station.project / name).write_bytes(content)
    else:
        np.save(station.project / name, content)
    station.export(modelPath="ready.onnx", example=name)

    assert (station.message["reason"], says in station.message["message"]) == (reason, True), station.message


def test_an_onnx_model_with_data_outside_the_file_is_refused(numbers):
    numbers.export()
    proto = onnx.load(numbers.work / "model" / "model.onnx")
    tensor = proto.graph.initializer.add(name="outside", data_type=1, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    (numbers.project / "ready.onnx").write_bytes(proto.SerializeToString())
    numbers.export(modelPath="ready.onnx")

    assert numbers.message["reason"] == "ConversionFailed"
    assert "outside the file" in numbers.message["message"]


def pickled_code(code: str) -> bytes:
    class Evil:
        def __reduce__(self):
            return (exec, (code,))

    return pickle.dumps(Evil())


@pytest.mark.parametrize(("code", "reason", "says"), [
    pytest.param("import os; os._exit(0)", "ModelLoadFailed", "ended itself (exit status 0)", id="exits-well"),
    pytest.param("import sys; sys.exit(3)", "ModelLoadFailed", "SystemExit", id="exits"),
    pytest.param("import os; os.kill(os.getpid(), 11)", "ModelLoadFailed", "SIGSEGV", id="crashes"),
    pytest.param("import os; os.kill(os.getpid(), 9)", "OutOfMemory", "memory", id="is-killed"),
    pytest.param("raise MemoryError", "OutOfMemory", "Memory", id="memory-error"),
    pytest.param("import no_such_package", "ModelLoadFailed", "Add no_such_package to the project", id="absent-package"),
    pytest.param("import PIL", "ModelLoadFailed", "Add pillow to the project", id="absent-package-of-another-name"),
    pytest.param("import sklearn.no_such_module", "ModelVersionMismatch", "another version", id="absent-module"),
    pytest.param("1 / 0", "ModelLoadFailed", "ZeroDivisionError", id="raises"),
    pytest.param("1", "ModelTypeUnsupported", "NoneType", id="no-model"),
])  # fmt: skip
def test_a_pickle_that_misbehaves_becomes_a_reason(station, code, reason, says):
    (station.project / "model.pkl").write_bytes(pickled_code(code))
    write_csv(station, matrix(5))
    station.export_in_container(modelPath="model.pkl")

    assert station.status == 1
    assert (station.message["reason"], station.message["retry"]) == (reason, False)
    assert says in station.message["message"]
    assert not (station.work / "model").exists()


def test_a_pickle_that_hangs_is_ended_at_the_time_limit(station):
    (station.project / "model.pkl").write_bytes(pickled_code("import time; time.sleep(60)"))
    write_csv(station, matrix(5))
    station.export_in_container(modelPath="model.pkl", timeoutSeconds=4)

    assert station.message["reason"] == "ModelLoadFailed"
    assert "still loading the model after 4 s" in station.message["message"]


@pytest.mark.parametrize(("thing", "says"), [
    pytest.param({"model": 1, "scaler": 2}, "dict (model, scaler)", id="dict"),
    pytest.param([1, 2], "builtins.list", id="list"),
    pytest.param(LogisticRegression(), "not fitted", id="not-fitted"),
    pytest.param(LogisticRegression, "type", id="class"),
])  # fmt: skip
def test_what_is_no_fitted_estimator_is_named(numbers, thing, says):
    joblib.dump(thing, numbers.project / "model.joblib")
    numbers.export()

    assert numbers.message["reason"] == "ModelTypeUnsupported"
    assert says in numbers.message["message"]


def test_a_model_of_another_scikit_learn_names_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(logistic()))
    monkeypatch.undo()
    with pytest.raises(Failure) as refused:
        loading.load_model(tmp_path / "model.pkl")

    assert refused.value.reason == "ModelVersionMismatch"
    assert "1.0.2" in refused.value.message
    assert "lock scikit-learn==1.0.2" in refused.value.message


def test_a_model_that_another_scikit_learn_cannot_even_read_names_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr("sklearn.base.__version__", "1.0.2")
    content = pickle.dumps(logistic()).replace(b"LogisticRegression", b"LogisticRegressioN")
    monkeypatch.undo()
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(Failure) as refused:
        loading.load_model(tmp_path / "model.pkl")

    assert refused.value.reason == "ModelVersionMismatch"
    assert "lock scikit-learn==1.0.2" in refused.value.message


@pytest.mark.parametrize(("name", "content", "reason", "says"), [
    pytest.param("other.csv", "", "ExampleMissing", "sample.csv is not in the project", id="absent"),
    pytest.param("sample.csv", "", "ExampleUnreadable", "has no row", id="empty"),
    pytest.param("sample.csv", "a,b,c\n", "ExampleUnreadable", "has no row", id="header-only"),
    pytest.param("sample.csv", "a,b\n1,2\n", "ExampleColumnsMismatch", "has 2 columns and the model takes 3", id="few-columns"),
    pytest.param("sample.csv", "a,b,c,late\n1,2,3,1\n", "ExampleColumnsMismatch", "without the label", id="with-label"),
    pytest.param("sample.csv", "a,b,c\n1,2\n", "ExampleUnreadable", "row 1", id="uneven"),
    pytest.param("sample.csv", "a,b,c\n1,x,3\n", "ExampleUnreadable", "refuses", id="text-for-a-number"),
    pytest.param("sample.csv", b"\xff\xfe\x00", "ExampleUnreadable", "sample.csv", id="no-text"),
])  # fmt: skip
def test_an_example_that_does_not_fit_says_why(numbers, name, content, reason, says):
    (numbers.project / "sample.csv").unlink()
    (numbers.project / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    numbers.export()

    assert numbers.message["reason"] == reason
    assert says in numbers.message["message"]


def test_a_frame_model_names_the_columns_that_the_example_lacks(frames):
    pd.read_csv(frames.project / "sample.csv").drop(columns=["wind speed"]).to_csv(
        frames.project / "sample.csv", index=False
    )
    frames.export()

    assert frames.message["reason"] == "ExampleColumnsMismatch"
    assert "lacks wind speed" in frames.message["message"]


def test_a_model_that_is_not_there_says_what_to_do(numbers):
    numbers.export(modelPath="absent.joblib")

    assert numbers.message["reason"] == "ModelFileMissing"
    assert "spec.model.path" in numbers.message["message"]


def test_a_model_path_out_of_the_project_is_refused(numbers):
    (numbers.project / "link.joblib").symlink_to("/etc/hostname")
    numbers.export(modelPath="link.joblib")

    assert numbers.message["reason"] == "ModelFileUnsafe"


def test_an_onnx_file_that_no_runtime_would_load_is_refused(numbers, monkeypatch):
    monkeypatch.setattr("slipway_operator.exporter.committed.ONNX_LIMIT", 100)
    (numbers.project / "ready.onnx").write_bytes(bytes(101))
    numbers.export(modelPath="ready.onnx")

    assert numbers.message["reason"] == "ModelFileUnsafe"
    assert "ready.onnx has 101 bytes, more than the 100 that an ONNX model may have" in numbers.message["message"]


def test_what_is_not_equal_within_the_limit_names_the_place(station):
    features = matrix()
    joblib.dump(LinearRegression().fit(features, features.sum(axis=1) * 1e9), station.project / "model.joblib")
    write_csv(station, features)
    # The one-time rounding of a float64 wire alone is larger than this limit.
    station.export(maxAbsoluteDifference=1e-12)

    assert station.message["reason"] == "ParityFailed"
    assert "limit 1e-12" in station.message["message"]
    assert "output prediction" in station.message["message"]


def test_a_module_of_the_project_does_not_stand_in_for_one_of_the_exporter(numbers):
    for name in ("export", "train", "worker", "failure", "rows", "slipway_exporter"):
        (numbers.project / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    numbers.export_in_container()

    assert numbers.status == 0, numbers.output


def test_a_model_of_a_class_in_the_project_is_loaded_from_there(station):
    text = "from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression):\n    pass\n"
    (station.project / "own.py").write_text(text)
    save = "import own, joblib, numpy as np; m = own.Mine().fit([[0, 0, 0], [1, 1, 1]], [0, 1]); joblib.dump(m, 'model.joblib')"
    subprocess.run([sys.executable, "-c", save], cwd=station.project, check=True)
    write_csv(station, matrix(5))
    station.export_in_container()

    # Loaded, and then refused: nobody registered a converter for a class of the project.
    assert station.message["reason"] == "ConversionUnsupported"
    assert "Mine cannot be converted" in station.message["message"]
