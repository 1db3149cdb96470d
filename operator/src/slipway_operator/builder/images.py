"""The images of a project: interpreter + dependencies + code, and with the exporter on top.

Only layers that a registry has not are sent: those of the base are mounted from its
repository, and the exporter's is mounted from the platform's tools image.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway_operator.builder import oci
from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.layers import write_layer
from slipway_operator.builder.package import Package, unpack
from slipway_operator.builder.progress import readable, say, step
from slipway_operator.builder.registry import ImageConfig, RegistryClient
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Registry

USER = 65532
TAG_DIGITS = 20

_IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)


def client(registry: Registry, place: Workplace) -> RegistryClient:
    """Calls to the platform's registry with the mounted credentials."""
    folder = place.secrets / "registry"
    return RegistryClient(
        insecure=registry.insecure, docker_config=folder if (folder / "config.json").is_file() else None
    )


def repository_of(registry: Registry, namespace: str, name: str) -> str:
    """The repository of one ModelDeployment."""
    return f"{registry.prefix.rstrip('/')}/{namespace}/{name}"


def environments_of(registry: Registry) -> str:
    """The repository that all share: environments of hash-checked wheels."""
    return f"{registry.prefix.rstrip('/')}/environments"


def short(*parts: str) -> str:
    """A tag's worth of a digest of what something depends on."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:TAG_DIGITS]


def push_artifact(registry: RegistryClient, artifact: oci.Artifact, target: str, scratch: Path) -> str:
    """Push an artifact under a tag, by way of a new folder; returns its digest, which is computed here."""
    digest = oci.write_layout(scratch, artifact)
    registry.push_layout(scratch, target)
    return digest


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Builds the images of one project.

    Attributes:
        registry: Where to.
        place: Our folders.
        scratch: A folder of our own for what is pushed.
        repository: Of the project.
    """

    registry: RegistryClient
    place: Workplace
    scratch: Path
    repository: str

    def environment(self, base: str, tree: Path, target: str) -> str:
        """Push interpreter + dependencies; returns the digest.

        Args:
            base: The interpreter's image.
            tree: The virtual environment's files.
            target: Reference with a tag.
        """
        layer = self.scratch / "environment.tar.gz"
        with step("packing the environment"):
            digests = write_layer(tree, self.place.environment.lstrip("/"), layer)
        say(f"environment: {readable(digests.unpacked)}, packed {readable(digests.size)}")
        with step("pushing the environment"):
            # Not crane's append: that unpacks and hashes again what was hashed a moment ago.
            manifest, config = self.registry.manifest(base), self.registry.config(base)
            layers = _layers(manifest, base)
            self.registry.copy(base, f"{target.rpartition(':')[0]}:base-{short(base)}")
            config["rootfs"]["diff_ids"].append(digests.diff_id)
            if config.get("history"):
                config["history"].append({"created_by": "slipway environment"})
            added = {"mediaType": layers[-1]["mediaType"], "digest": digests.digest, "size": digests.size}
            layout = self.scratch / "environment-image"
            digest = oci.write_sparse_layout(
                layout, manifest | {"layers": [*layers, added]}, oci.canonical(config), {digests.digest: layer}
            )
            self.registry.push_layout(layout, target)
        layer.unlink()
        return digest

    def project(self, environment: str, project: Package, target: str) -> str:
        """Push environment + code; returns the digest."""
        tree, layer = self.scratch / "code", self.scratch / "code.tar.gz"
        unpack(project, tree)
        write_layer(tree, self.place.project.lstrip("/"), layer, uid=USER, gid=USER)
        code = self.place.project
        config = ImageConfig(
            user=f"{USER}:{USER}",
            working_directory=code,
            environment={
                "PATH": f"{self.place.environment}/bin:/usr/bin",
                "PYTHONPATH": f"{code}/src:{code}",
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "VIRTUAL_ENV": self.place.environment,
            },
        )
        digest = self.registry.append(environment, [layer], target, config=config)
        shutil.rmtree(tree, ignore_errors=True)
        layer.unlink()
        return digest

    def tools(self, image: str) -> Tools:
        """Bring the blobs of the platform's tools image into the project's repository, by mounting them."""
        manifest, config = self.registry.manifest(image), self.registry.config(image)
        layers = _layers(manifest, image)
        self.registry.copy(image, f"{self.repository}:tools-{short(image)}")
        return Tools(layer=layers[-1], diff_id=str(config["rootfs"]["diff_ids"][-1]))

    def export(self, project: str, tools: Tools, target: str) -> str:
        """Push project image + exporter: a manifest and a config, no layer. Returns the digest.

        Args:
            project: Reference of the project image in the same repository.
            tools: What `tools` gave.
            target: Reference with a tag.
        """
        manifest, config = self.registry.manifest(project), self.registry.config(project)
        layers = _layers(manifest, project)
        if any(layer["digest"] == tools.layer["digest"] for layer in layers):
            raise StepFailed(RegistryReason.REFUSED, f"{project} holds the exporter already")
        config["rootfs"]["diff_ids"].append(tools.diff_id)
        if config.get("history"):
            config["history"].append({"created_by": "slipway exporter"})
        layout = self.scratch / "export-image"
        # Sparse: blobs that the repository has are not in the layout, so they cannot be sent again.
        digest = oci.write_sparse_layout(layout, manifest | {"layers": [*layers, tools.layer]}, oci.canonical(config))
        self.registry.push_layout(layout, target)
        return digest


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The exporter's layer, which the project's repository holds."""

    layer: Mapping[str, Any]
    diff_id: str


def _layers(manifest: Mapping[str, Any], image: str) -> list[dict[str, Any]]:
    config = manifest.get("config") or {}
    layers = manifest.get("layers") or []
    if config.get("mediaType") not in _IMAGE_CONFIGS or not layers:
        raise StepFailed(RegistryReason.REFUSED, f"{image} is no image of one platform: name one by its digest")
    return list(layers)
