"""A model image's files for a serving pod whose node cannot mount images."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.export import FILES, ONNX, REQUIRED, is_model_file
from slipway_operator.builder.progress import readable, step
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Workplace

_CHUNK = 1 << 20


def pull_model(image: str, target: Path, place: Workplace, *, insecure: bool = False) -> None:
    """Unpack the files of a model image into a folder.

    Only the files that `export.push_model` puts there are taken, whatever else a layer holds.

    Args:
        image: Reference by digest.
        target: An existing or new folder.
        place: Where the registry's credentials are.
        insecure: Plain HTTP is fine.

    Raises:
        StepFailed: ``ModelImageInvalid``, or the registry's.
    """
    repository, at, digest = image.rpartition("@")
    if not at or not digest.startswith("sha256:"):
        raise StepFailed("ModelImageInvalid", "a model image is named by its digest: registry/repository@sha256:…")
    credentials = place.secrets / "registry"
    registry = RegistryClient(
        insecure=insecure, docker_config=credentials if (credentials / "config.json").is_file() else None
    )
    target.mkdir(parents=True, exist_ok=True)
    with step(f"pulling {image}"), place.private_folder() as private:
        for number, layer in enumerate(registry.manifest(image).get("layers") or []):
            if int(layer.get("size", 0)) > place.limits.model_bytes:
                raise StepFailed("ModelImageInvalid", f"a layer is larger than {readable(place.limits.model_bytes)}")
            blob = private / str(number)
            registry.blob_to(f"{repository}@{layer['digest']}", blob)
            _unpack(blob, target, place)
    found = {path.name for path in target.iterdir()}
    missing = [name for name in REQUIRED if name != ONNX and name not in found]
    if not any(is_model_file(name) for name in found):
        missing.insert(0, ONNX)
    if missing:
        raise StepFailed("ModelImageInvalid", f"{image} has no {', '.join(missing)}: export the model again")


def _unpack(blob: Path, target: Path, place: Workplace) -> None:
    try:
        with tarfile.open(blob, "r:*") as layer:
            for member in layer:
                name = member.name.removeprefix("./")
                if not (name in FILES or is_model_file(name)) or not member.isreg():
                    continue
                if member.size > place.limits.model_bytes:
                    raise StepFailed("ModelImageInvalid", f"{name} is larger than {readable(place.limits.model_bytes)}")
                content = layer.extractfile(member)
                if content is None:
                    continue
                partial = target / f".{name}.partial"
                partial.unlink(missing_ok=True)
                with partial.open("xb") as out:
                    shutil.copyfileobj(content, out, _CHUNK)
                partial.chmod(0o444)
                os.replace(partial, target / name)  # noqa: PTH105  # never a half-written model under its name
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StepFailed(
            RegistryReason.REFUSED,
            f"a layer of the model image cannot be unpacked ({type(error).__name__})",
            retry=True,
        ) from None
