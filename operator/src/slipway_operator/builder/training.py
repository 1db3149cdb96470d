"""The trained model on its way: from the training's volume to the registry, and to the export's."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from slipway_operator.builder import images, names, oci, untrusted
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.progress import readable, say, step
from slipway_operator.builder.untrusted import NotThere, Taken
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import ExportRequest, Trained, TrainRequest

ARTIFACT_TYPE = "application/vnd.slipway.trained.v1"
MODEL_TYPE = "application/vnd.slipway.trained.model.v1"
METRICS_TYPE = "application/vnd.slipway.trained.metrics.v1+json"
LOG_TYPE = "text/plain"

_TITLE = "org.opencontainers.image.title"
_FACTS_BYTES = 64 << 10
_METRICS_BYTES = 1 << 20
_LOG_BYTES = 64 << 20
_METRICS_SHOWN = 10
_METRIC_NAME_BYTES = 40


def push_trained(request: TrainRequest, place: Workplace) -> Trained:
    """Push what a training left as one artifact.

    Raises:
        StepFailed: ``ModelFileMissing``, ``ModelFileTooLarge``, ``MetricsInvalid``, or the registry's.
    """
    repository = images.repository_of(request.registry, request.namespace, request.name)
    registry = images.client(request.registry, place)
    name = model_name(request.model_path)
    with place.scratch() as scratch:
        model = _model(place, name, scratch / "model")
        seconds = _seconds(place, scratch / "train.json")
        layers = [oci.Blob(path=model.path, media_type=MODEL_TYPE, annotations={_TITLE: name})]
        metrics: dict[str, float] = {}
        if request.metrics_path is not None:
            taken, metrics = _metrics(place, scratch / "metrics.json")
            layers.append(oci.Blob(path=taken.path, media_type=METRICS_TYPE, annotations={_TITLE: "metrics.json"}))
        try:
            log = untrusted.take(place.work, "train.log", scratch / "train.log", most=_LOG_BYTES)
            layers.append(oci.Blob(path=log.path, media_type=LOG_TYPE, annotations={_TITLE: "train.log"}))
        except NotThere:
            say("there is no train.log")
        artifact = oci.Artifact(
            layers=layers,
            artifact_type=ARTIFACT_TYPE,
            config=oci.canonical({"model": name, "seconds": seconds}),
            config_type="application/vnd.slipway.trained.config.v1+json",
        )
        with step(f"pushing {name} ({readable(model.size)})"):
            tag = f"{repository}:trained-{images.short(model.sha256)}"
            digest = images.push_artifact(registry, artifact, tag, scratch / "layout")
    return Trained(artifact=digest, model=model.digest, seconds=seconds, metrics=metrics)


def fetch_trained(request: ExportRequest, place: Workplace) -> None:
    """Put a trained model where the export looks for it.

    Raises:
        StepFailed: ``ModelFileMissing``, ``ModelFileTooLarge``, or the registry's.
    """
    if request.trained is None:
        say("the model is in the project")
        return
    repository = images.repository_of(request.registry, request.namespace, request.name)
    registry = images.client(request.registry, place)
    layer = model_layer(registry.manifest(f"{repository}@{request.trained}"), request.trained)
    if int(layer.get("size", 0)) > place.limits.model_bytes:
        raise _too_large(place)
    folder = place.work / "trained"
    folder.mkdir(exist_ok=True)
    target = folder / model_name(request.model_path)
    target.unlink(missing_ok=True)
    with step(f"pulling the model of {request.trained}"):
        registry.blob_to(f"{repository}@{layer['digest']}", target)


def model_layer(manifest: dict[str, Any], reference: str) -> dict[str, Any]:
    """The model's descriptor in the manifest of an artifact that `push_trained` made.

    Raises:
        StepFailed: ``ModelFileMissing``.
    """
    for layer in manifest.get("layers") or []:
        if layer.get("mediaType") == MODEL_TYPE:
            return dict(layer)
    raise StepFailed("ModelFileMissing", f"{reference} holds no trained model: train again")


def model_name(path: str) -> str:
    """A model file's name, under which it travels."""
    return PurePosixPath(names.checked(path)).name


def _model(place: Workplace, name: str, target: Path) -> Taken:
    try:
        return untrusted.take(place.work, f"trained/{name}", target, most=place.limits.model_bytes)
    except NotThere:
        raise StepFailed(
            "ModelFileMissing",
            f"the training left no file {name[:100]!a}: let it write the model to spec.model.path",
        ) from None
    except StepFailed:
        raise _too_large(place) from None


def _too_large(place: Workplace) -> StepFailed:
    return StepFailed(
        "ModelFileTooLarge",
        f"the model file is larger than {readable(place.limits.model_bytes)}: train a smaller model",
    )


def _seconds(place: Workplace, target: Path) -> float:
    try:
        facts = json.loads(untrusted.take(place.work, "train.json", target, most=_FACTS_BYTES).path.read_bytes())
        seconds = float(facts["seconds"])
    except (NotThere, ValueError, KeyError, TypeError, RecursionError):
        raise StepFailed("TrainingResultMissing", "the training left no readable train.json: see its log") from None
    return seconds if math.isfinite(seconds) and seconds >= 0 else 0.0


def _metrics(place: Workplace, target: Path) -> tuple[Taken, dict[str, float]]:
    try:
        taken = untrusted.take(place.work, "trained/metrics.json", target, most=_METRICS_BYTES)
        found = json.loads(taken.path.read_bytes())
    except NotThere:
        raise _invalid("the training wrote no metrics file") from None
    except StepFailed:
        raise _invalid(f"the metrics file is larger than {readable(_METRICS_BYTES)}") from None
    except (ValueError, RecursionError):
        raise _invalid("the metrics file is not JSON") from None
    if not isinstance(found, dict):
        raise _invalid("the metrics file is not one JSON object")
    numbers: dict[str, float] = {}
    for name, value in found.items():
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e308
        if fits and name.isprintable() and len(name.encode()) <= _METRIC_NAME_BYTES:
            numbers[name] = float(value)
        if len(numbers) == _METRICS_SHOWN:
            break
    return taken, numbers


def _invalid(what: str) -> StepFailed:
    return StepFailed(
        "MetricsInvalid",
        f'{what}: write one JSON object of numbers, such as {{"roc_auc": 0.71}}, to spec.model.train.metrics',
    )
