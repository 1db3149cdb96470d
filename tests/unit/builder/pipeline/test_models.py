"""Trained and exported models on their way through a real registry."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slipway_operator.builder import answers, export, training, untrusted
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.pull import pull_model
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Limits, Workplace
from slipway_operator.domain.requests import ExportRequest, Registry, TrainRequest

CLIENT = RegistryClient(insecure=True)
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def train(registry: str) -> TrainRequest:
    return TrainRequest(
        namespace="team",
        name="flights",
        registry=Registry(prefix=registry, insecure=True),
        command=("python", "-m", "train"),
        timeout_seconds=60,
        model_path="out/model.joblib",
        metrics_path="metrics.json",
    )


@pytest.fixture
def exporting(registry: str) -> ExportRequest:
    return ExportRequest(
        namespace="team",
        name="flights",
        registry=Registry(prefix=registry, insecure=True),
        model_path="out/model.joblib",
        example="data/sample.csv",
        max_absolute_difference=1e-5,
        max_label_flips=0,
    )


def trained(place: Workplace, *, metrics: str = '{"auc": 0.7}') -> None:
    folder = place.work / "trained"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(b"model")
    (folder / "metrics.json").write_text(metrics)
    (place.work / "train.log").write_text("epoch 1\n")
    (place.work / "train.json").write_text('{"seconds": 1.5, "exitCode": 0, "model": "model.joblib"}')


def test_a_trained_model_goes_to_the_registry_and_comes_back(train, exporting, place, tmp_path):
    trained(place)

    answer = training.push_trained(train, place)

    assert answer.model == "sha256:" + hashlib.sha256(b"model").hexdigest()
    assert (answer.seconds, answer.metrics) == (1.5, {"auc": 0.7})
    reference = f"{train.registry.prefix}/team/flights@{answer.artifact}"
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in CLIENT.manifest(reference)["layers"]]
    assert titles == ["model.joblib", "metrics.json", "train.log"]
    other = tmp_path / "other"
    other.mkdir()
    training.fetch_trained(exporting.model_copy(update={"trained": answer.artifact}), replace(place, work=other))
    assert (other / "trained" / "model.joblib").read_bytes() == b"model"


def test_the_first_ten_numbers_are_shown_and_text_is_not(train, place):
    found = {f"m{number:02}": number / 7 for number in range(14)}
    trained(place, metrics=json.dumps({"name": "x", "good": True, **found}))

    answer = training.push_trained(train, place)

    assert list(answer.metrics) == [f"m{number:02}" for number in range(10)]
    assert len(answers.text_of(answer)) < 1024


def _to_secret(place: Workplace) -> Path:
    secret = place.secrets / "registry"
    secret.mkdir()
    (secret / "model.joblib").write_text("hunter2")
    return secret


def _folder_is_link(place: Workplace) -> None:
    (place.work / "trained").rename(place.work / "moved")
    (place.work / "trained").symlink_to(_to_secret(place))


def _model_is_link(place: Workplace) -> None:
    (place.work / "trained" / "model.joblib").unlink()
    (place.work / "trained" / "model.joblib").symlink_to(_to_secret(place) / "model.joblib")


def _model_is_pipe(place: Workplace) -> None:
    (place.work / "trained" / "model.joblib").unlink()
    os.mkfifo(place.work / "trained" / "model.joblib")


def _model_is_folder(place: Workplace) -> None:
    (place.work / "trained" / "model.joblib").unlink()
    (place.work / "trained" / "model.joblib").mkdir()


def _no_model(place: Workplace) -> None:
    (place.work / "trained" / "model.joblib").unlink()


def _metrics_are_text(place: Workplace) -> None:
    (place.work / "trained" / "metrics.json").write_text("auc: 1")


def _metrics_are_a_list(place: Workplace) -> None:
    (place.work / "trained" / "metrics.json").write_text("[1]")


def _metrics_are_deep(place: Workplace) -> None:
    (place.work / "trained" / "metrics.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_folder_is_link, "ModelFileMissing"),
        (_model_is_link, "ModelFileMissing"),
        (_model_is_pipe, "ModelFileMissing"),
        (_model_is_folder, "ModelFileMissing"),
        (_no_model, "ModelFileMissing"),
        (_metrics_are_text, "MetricsInvalid"),
        (_metrics_are_a_list, "MetricsInvalid"),
        (_metrics_are_deep, "MetricsInvalid"),
    ],
)
def test_what_a_training_left_is_not_trusted(train, place, change: Callable[[Workplace], None], reason: str):
    trained(place)
    change(place)

    with pytest.raises(StepFailed) as failed:
        training.push_trained(train, place)

    assert failed.value.reason == reason


def test_a_model_over_the_limit_is_refused(train, place):
    trained(place)

    with pytest.raises(StepFailed, match="ModelFileTooLarge"):
        training.push_trained(train, replace(place, limits=Limits(model_bytes=4)))


def exported(place: Workplace, **changes: Any) -> None:
    folder = place.work / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "signature.json").write_text('{"inputs": []}')
    (folder / "examples.json").write_text("{}")
    (folder / "reference.json").write_text("{}")
    certificate = {
        "rows": 200,
        "maxAbsoluteDifference": 2e-7,
        "labelFlips": 0,
        "digests": {"model": DIGEST, "onnx": "sha256:" + hashlib.sha256(b"onnx").hexdigest()},
        **changes,
    }
    (folder / "certificate.json").write_text(json.dumps(certificate))


def test_an_exported_model_becomes_an_image_and_an_artifact(exporting, place, tmp_path):
    exported(place)

    answer = export.push_model(exporting, place)

    repository = f"{exporting.registry.prefix}/team/flights"
    assert (answer.rows, answer.label_flips, answer.model) == (200, 0, DIGEST)
    config = CLIENT.config(f"{repository}@{answer.image}")
    assert (config["os"], len(config["rootfs"]["diff_ids"])) == ("linux", 1)
    pack = CLIENT.manifest(f"{repository}@{answer.artifact}")
    assert pack["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert {layer["annotations"]["org.cncf.model.filepath"] for layer in pack["layers"]} == set(export.FILES)
    target = tmp_path / "model"
    pull_model(f"{repository}@{answer.image}", target, place, insecure=True)
    assert (target / "model.onnx").read_bytes() == b"onnx"
    assert sorted(path.name for path in target.iterdir()) == sorted(export.FILES)
    assert len(answers.text_of(answer)) < 1024


def test_two_pushes_of_one_model_give_one_digest(exporting, place):
    exported(place)
    first = export.push_model(exporting, place)
    os.utime(place.work / "model" / "model.onnx", (0, 0))

    assert export.push_model(exporting, place) == first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"maxAbsoluteDifference": 1e-3}, "ParityFailed"),
        ({"labelFlips": 1}, "ParityFailed"),
        ({"rows": 0}, "ParityFailed"),
        ({"maxAbsoluteDifference": float("nan")}, "CertificateInvalid"),
        ({"maxAbsoluteDifference": -1}, "CertificateInvalid"),
        ({"labelFlips": "0"}, "CertificateInvalid"),
        ({"labelFlips": -1}, "CertificateInvalid"),
        ({"rows": True}, "CertificateInvalid"),
        ({"digests": {"model": DIGEST, "onnx": DIGEST}}, "CertificateInvalid"),
        ({"digests": {}}, "CertificateInvalid"),
    ],
)
def test_the_limits_are_checked_again_outside_the_projects_environment(exporting, place, changes, reason):
    exported(place, **changes)

    with pytest.raises(StepFailed) as failed:
        export.push_model(exporting, place)

    assert failed.value.reason == reason


def test_the_digest_of_a_trained_model_is_the_registrys_word(train, exporting, place):
    trained(place)
    answer = training.push_trained(train, place)
    exported(place)

    with pytest.raises(StepFailed, match="CertificateInvalid"):
        export.push_model(exporting.model_copy(update={"trained": answer.artifact}), place)


def test_a_missing_file_of_an_export(exporting, place):
    exported(place)
    (place.work / "model" / "examples.json").unlink()

    with pytest.raises(StepFailed, match="ExportResultMissing"):
        export.push_model(exporting, place)


def test_an_older_export_left_no_reference(exporting, place):
    exported(place)
    (place.work / "model" / "reference.json").unlink()

    answer = export.push_model(exporting, place)

    pack = CLIENT.manifest(f"{exporting.registry.prefix}/team/flights@{answer.artifact}")
    files = {layer["annotations"]["org.cncf.model.filepath"] for layer in pack["layers"]}
    assert files == set(export.FILES) - {"reference.json"}
    pull_model(f"{exporting.registry.prefix}/team/flights@{answer.image}", place.work / "pulled", place, insecure=True)
    assert {path.name for path in (place.work / "pulled").iterdir()} == files, "a pod of an older content starts"


def native(place: Workplace, **changes: object) -> None:
    """What the exporter leaves of a model that answers by itself."""
    model = "sha256:" + hashlib.sha256(b"onnx").hexdigest()
    why = {"reason": "ConversionUnsupported", "message": "no converter for Größe " * 40}
    exported(place, **{"engine": "worker", "digests": {"model": model}, "why": why, **changes})
    (place.work / "model" / "model.onnx").rename(place.work / "model" / "model.joblib")


def test_a_model_that_answers_by_itself_becomes_an_image_where_that_was_asked_for(exporting, place, tmp_path):
    native(place)

    answer = export.push_model(exporting.model_copy(update={"on_failure": "ServeNative"}), place)

    assert (answer.engine, answer.file, answer.onnx) == ("worker", "model.joblib", answer.model)
    assert str(answer.why).startswith("no converter for Größe")
    assert len(answers.text_of(answer)) < 1024
    target = tmp_path / "model"
    image = f"{exporting.registry.prefix}/team/flights@{answer.image}"
    pull_model(image, target, place, insecure=True)
    assert {path.name for path in target.iterdir()} == {*export.FILES, "model.joblib"} - {"model.onnx"}


def test_a_model_that_answers_by_itself_is_refused_where_nobody_asked_for_it(exporting, place):
    native(place)

    with pytest.raises(StepFailed, match="ExportResultMissing"):
        export.push_model(exporting, place)


def test_the_model_that_answers_by_itself_is_the_one_of_the_certificate(exporting, place):
    native(place, digests={"model": DIGEST})

    with pytest.raises(StepFailed, match="CertificateInvalid"):
        export.push_model(exporting.model_copy(update={"on_failure": "ServeNative"}), place)


@pytest.mark.parametrize(("asked", "answered"), [("flights:predict", None), (None, "flights:predict")])
def test_what_answers_is_the_function_that_was_asked_for(exporting, place, asked, answered):
    native(place, **({} if answered is None else {"function": answered}))
    request = exporting.model_copy(update={"on_failure": "ServeNative", "function": asked})

    with pytest.raises(StepFailed, match="CertificateInvalid"):
        export.push_model(request, place)


def test_a_function_that_answers_is_pushed_as_a_model_that_does(exporting, place):
    native(place, function="flights:predict")
    request = exporting.model_copy(update={"on_failure": "ServeNative", "function": "flights:predict"})

    assert export.push_model(request, place).engine == "worker"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_no_path_leads_out_of_a_volume(tmp_path, name):
    (tmp_path / "work").mkdir()
    (tmp_path / "x").write_text("outside")

    with pytest.raises(untrusted.NotThere):
        untrusted.take(tmp_path / "work", name, tmp_path / "copy", most=10)


def test_an_image_that_holds_no_model(place, train, tmp_path):
    trained(place)
    answer = training.push_trained(train, place)

    with pytest.raises(StepFailed, match=r"RegistryRefused|ModelImageInvalid"):
        pull_model(f"{train.registry.prefix}/team/flights@{answer.artifact}", tmp_path / "model", place, insecure=True)
