"""The exported model on its way to the registry: as an image that pods mount, and as a ModelPack artifact.

The exporter ran in the project's environment, with the project's code; what it says of
itself is checked here as far as bytes can tell: digests, limits, kinds of files.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from slipway_operator.builder import images, oci, training, untrusted
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.layers import write_layer
from slipway_operator.builder.progress import readable, say, step
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.untrusted import NotThere, Taken
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.conditions import clipped
from slipway_operator.domain.requests import Exported, ExportRequest

FILES: Mapping[str, str] = {
    "model.onnx": "application/vnd.cncf.model.weight.v1.raw",
    "signature.json": "application/vnd.cncf.model.weight.config.v1.raw",
    "examples.json": "application/vnd.cncf.model.weight.config.v1.raw",
    "certificate.json": "application/vnd.cncf.model.doc.v1.raw",
    "reference.json": "application/vnd.cncf.model.weight.config.v1.raw",
}
"""The files of an exported model, with their ModelPack media types."""

ONNX = "model.onnx"
_MODEL_FILE = re.compile(r"model\.[a-z0-9]{1,16}")
_MODEL_TYPE = FILES[ONNX]
_WHY_LIMIT = 160
_NOT_OF_EVERY_EXPORT = "reference.json"
"""A project's export image may be older than this builder."""
REQUIRED = tuple(name for name in FILES if name != _NOT_OF_EVERY_EXPORT)
"""What every model image has, also those of contents from before."""

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_FILE_PATH = "org.cncf.model.filepath"
_JSON_BYTES = 32 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the exporter's proof says, in the terms of the answer."""

    rows: int
    difference: float
    flips: int
    model: str
    served: str
    """Digest of the file that answers: ``model.onnx``, or the model itself."""
    why: str = ""
    """Why it is not ONNX, where it is not."""
    function: str | None = None
    """The project's function that answers, where one does."""


def push_model(request: ExportRequest, place: Workplace) -> Exported:
    """Push what an export left.

    Raises:
        StepFailed: ``ExportResultMissing``, ``CertificateInvalid``, ``ParityFailed``,
            ``ModelFileTooLarge``, or the registry's.
    """
    repository = images.repository_of(request.registry, request.namespace, request.name)
    registry = images.client(request.registry, place)
    with place.scratch() as scratch:
        tree = scratch / "model"
        tree.mkdir()
        taken = _taken(request, place, tree)
        served = next(iter(taken))
        _read(taken["signature.json"])
        _read(taken["examples.json"])
        if _NOT_OF_EVERY_EXPORT in taken:
            _read(taken[_NOT_OF_EVERY_EXPORT])
        certificate = read_certificate(_read(taken["certificate.json"]))
        _judge(request, certificate, taken[served])
        model = _original(request, registry, repository, certificate)
        say(
            f"{certificate.rows} rows compared, largest difference {certificate.difference:.3g}, "
            f"{certificate.flips} label flips"
        )
        name = images.short(*(file.sha256 for file in taken.values()))
        with step(f"pushing the model ({readable(taken[served].size)})"), ThreadPoolExecutor(1) as beside:
            pack = beside.submit(
                images.push_artifact,
                registry,
                model_pack(request.name, taken),
                f"{repository}:modelpack-{name}",
                scratch / "pack",
            )
            image = images.push_artifact(
                registry, model_image(tree, scratch / "layer.tar.gz"), f"{repository}:model-{name}", scratch / "image"
            )
            artifact = pack.result()
    return Exported(
        image=image,
        artifact=artifact,
        onnx=taken[served].digest,
        signature=taken["signature.json"].digest,
        model=model,
        rows=certificate.rows,
        max_absolute_difference=certificate.difference,
        label_flips=certificate.flips,
        **_natively(served, certificate),
    )


def _natively(served: str, certificate: Certificate) -> dict[str, Any]:
    if served == ONNX:
        return {}
    return {"engine": "worker", "file": served, "why": clipped(certificate.why, _WHY_LIMIT)}


def is_model_file(name: str) -> bool:
    """Whether a file of a model image is what answers."""
    return _MODEL_FILE.fullmatch(name) is not None


def served_name(model_path: str) -> str:
    """The file of a model that answers by itself, as the exporter names it."""
    found = f"model{PurePosixPath(model_path).suffix.lower()}"
    return found if is_model_file(found) and found != ONNX else "model.pkl"


def _taken(request: ExportRequest, place: Workplace, tree: Path) -> dict[str, Taken]:
    """Our own copies of what the export left; first the file that answers."""
    names = list(FILES)
    if request.on_failure is not None and not (place.work / "model" / ONNX).is_file():
        names[0] = served_name(request.model_path)
    found = {name: _take(place, name, tree) for name in names}
    return {name: file for name, file in found.items() if file is not None}


def model_image(tree: Path, layer: Path) -> oci.Artifact:
    """An image that holds a folder's files at its root, fit for an image volume."""
    digests = write_layer(tree, "", layer)
    config = {
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digests.diff_id]},
        "history": [{"created_by": "slipway exporter"}],
    }
    return oci.Artifact(
        layers=[oci.Blob(path=layer, media_type=_LAYER_TYPE)], config=oci.canonical(config), config_type=_CONFIG_TYPE
    )


def model_pack(name: str, files: Mapping[str, Taken]) -> oci.Artifact:
    """The same files as a CNCF ModelPack artifact (https://github.com/modelpack/model-spec)."""
    config = {
        "descriptor": {"name": name},
        "config": {"format": next(iter(files)).rpartition(".")[2]},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in files.values()]},
    }
    return oci.Artifact(
        layers=[
            oci.Blob(path=file.path, media_type=FILES.get(path, _MODEL_TYPE), annotations={_FILE_PATH: path})
            for path, file in files.items()
        ],
        artifact_type="application/vnd.cncf.model.manifest.v1+json",
        config=oci.canonical(config),
        config_type="application/vnd.cncf.model.config.v1+json",
    )


def _take(place: Workplace, name: str, tree: Path) -> Taken | None:
    most = place.limits.model_bytes if is_model_file(name) else _JSON_BYTES
    try:
        return untrusted.take(place.work, f"model/{name}", tree / name, most=most)
    except NotThere:
        if name == _NOT_OF_EVERY_EXPORT:
            return None
        raise StepFailed("ExportResultMissing", f"the export left no file {name}: see its log") from None
    except StepFailed as failed:
        raise StepFailed("ModelFileTooLarge", failed.message) from None


def _read(file: Taken) -> Any:
    try:
        return json.loads(file.path.read_bytes())
    except (ValueError, RecursionError):
        raise StepFailed("CertificateInvalid", f"{file.path.name} of the export is not JSON: export again") from None


def read_certificate(found: Any) -> Certificate:
    """Read a certificate.

    Raises:
        StepFailed: ``CertificateInvalid``.
    """
    try:
        certificate = Certificate(
            rows=_whole(found["rows"]),
            difference=float(found["maxAbsoluteDifference"]),
            flips=_whole(found["labelFlips"]),
            model=str(found["digests"]["model"]),
            # Of a model that answers by itself there is one digest.
            served=str(found["digests"].get("onnx", found["digests"]["model"])),
            why=str((found.get("why") or {}).get("message", "")),
            function=None if found.get("function") is None else str(found["function"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StepFailed(
            "CertificateInvalid", "the export's certificate lacks what was compared: export again"
        ) from None
    if not math.isfinite(certificate.difference) or certificate.difference < 0:
        raise StepFailed("CertificateInvalid", "the export's certificate gives no finite difference: export again")
    if not all(_is_digest(text) for text in (certificate.model, certificate.served)):
        raise StepFailed("CertificateInvalid", "the export's certificate names no digests: export again")
    return certificate


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(value)
    return value


def _is_digest(text: str) -> bool:
    kind, _, digits = text.partition(":")
    return kind == "sha256" and len(digits) == 64 and set(digits) <= set("0123456789abcdef")


def _judge(request: ExportRequest, certificate: Certificate, served: Taken) -> None:
    if certificate.served != served.digest:
        name = served.path.name
        raise StepFailed("CertificateInvalid", f"the export's certificate is of another {name}: export again")
    if certificate.function != request.function:
        # An export image from before there was such a field knows nothing of it.
        raise StepFailed(
            "CertificateInvalid", f"the export did not ask {request.function or 'the model itself'}: export again"
        )
    if certificate.rows < 1:
        raise StepFailed("ParityFailed", "no row was compared: give spec.model.example some rows")
    if certificate.difference > request.max_absolute_difference or certificate.flips > request.max_label_flips:
        raise StepFailed(
            "ParityFailed",
            f"over {certificate.rows} rows the exported model differs by up to {certificate.difference:.3g} "
            f"({request.max_absolute_difference:.3g} allowed) and in {certificate.flips} labels "
            f"({request.max_label_flips} allowed): use another estimator or, where that is right, wider limits in "
            "spec.export.parity",
        )


def _original(request: ExportRequest, registry: RegistryClient, repository: str, certificate: Certificate) -> str:
    """Digest of the original model file; of a trained one the registry knows it, whatever the exporter says."""
    if request.trained is None:
        return certificate.model
    manifest = registry.manifest(f"{repository}@{request.trained}")
    digest = str(training.model_layer(manifest, request.trained)["digest"])
    if digest != certificate.model:
        raise StepFailed("CertificateInvalid", "the export's certificate is of another model file: export again")
    return digest
