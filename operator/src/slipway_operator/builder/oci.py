"""OCI image layouts on disk, for what `registry.RegistryClient.push_layout` pushes.

Artifacts (packages, ModelPack, training results) have media types of their own, and images
from nothing a platform, neither of which ``crane append`` writes; a layout is three small
JSON files and the blobs.
Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway_operator.builder.layers import LayerDigests

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One layer of an artifact: a file (moved nowhere, hard-linked where possible) and what it is."""

    path: Path
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A manifest to write: media types as its own specification has them."""

    layers: Sequence[Blob]
    artifact_type: str | None = None
    config: bytes = EMPTY
    config_type: str = EMPTY_TYPE
    annotations: Mapping[str, str] = field(default_factory=dict)


def write_layout(folder: Path, artifact: Artifact) -> str:
    """Write a layout with one manifest into an empty or new folder; returns the manifest's digest.

    Deterministic: equal content gives an equal digest.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE}
    if artifact.artifact_type is not None:
        manifest["artifactType"] = artifact.artifact_type
    manifest["config"] = _put(blobs, artifact.config, artifact.config_type)
    manifest["layers"] = [_link(blobs, layer) for layer in artifact.layers]
    if artifact.annotations:
        manifest["annotations"] = dict(sorted(artifact.annotations.items()))
    descriptor = _put(blobs, canonical(manifest), MANIFEST_TYPE)
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [descriptor]}
    (folder / "index.json").write_bytes(canonical(index))
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
    return str(descriptor["digest"])


def write_image(
    folder: Path, layers: Sequence[tuple[Path, LayerDigests]], settings: Mapping[str, Any] | None = None
) -> str:
    """Write a layout with an image made of these layers alone, lowest first; returns its digest.

    Args:
        folder: Empty or new.
        layers: Files of `layers.write_layer` with what it returned.
        settings: The ``config`` object of the image's config (``Entrypoint``, ``Env``, ``User``, …).
    """
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(settings or {}),
        "rootfs": {"type": "layers", "diff_ids": [digests.diff_id for _, digests in layers]},
    }
    blobs = [Blob(path=path, media_type=LAYER_TYPE) for path, _ in layers]
    return write_layout(folder, Artifact(layers=blobs, config=canonical(config), config_type=CONFIG_TYPE))


def write_sparse_layout(
    folder: Path, manifest: Mapping[str, Any], config: bytes, new: Mapping[str, Path] | None = None
) -> str:
    """Write a layout of an image of which the target repository holds most layers already.

    Those are named and not there: a push asks the registry for each before it would read one.

    Args:
        folder: Empty or new.
        manifest: All of it but the config's descriptor, of which only the media type counts.
        config: The image's config.
        new: Files of the layers that the repository may lack, by digest.

    Returns:
        The manifest's digest.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, path in (new or {}).items():
        _place(path, blobs / digest.removeprefix("sha256:"))
    config_type = str(manifest["config"]["mediaType"])
    descriptor = _put(
        blobs,
        canonical({**manifest, "config": _put(blobs, config, config_type)}),
        str(manifest.get("mediaType", MANIFEST_TYPE)),
    )
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [descriptor]}
    (folder / "index.json").write_bytes(canonical(index))
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
    return str(descriptor["digest"])


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _descriptor(digest: str, size: int, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _put(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return _descriptor(f"sha256:{name}", len(content), media_type)


def _link(blobs: Path, layer: Blob) -> dict[str, Any]:
    digest = file_digest(layer.path)
    target = blobs / digest.removeprefix("sha256:")
    _place(layer.path, target)
    descriptor = _descriptor(digest, target.stat().st_size, layer.media_type)
    if layer.annotations:
        descriptor["annotations"] = dict(sorted(layer.annotations.items()))
    return descriptor


def _place(path: Path, target: Path) -> None:
    """Give a file a second name, or a copy where that cannot be."""
    if target.exists():
        return
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        # Another file system; the copy reads what the digest was taken of.
        with path.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
