"""From layers to images in a registry, and the files that tell others their digests."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import recipe
from images.store import Layer
from slipway_operator.builder import oci
from slipway_operator.builder.registry import RegistryClient

LARGE = 150_000_000
"""Compressed bytes above which an image needs a reason."""

ENVIRONMENT = (
    "PATH=/opt/env/bin:/usr/bin",
    "HOME=/tmp",
    "LANG=C.UTF-8",
    "PYTHONDONTWRITEBYTECODE=1",  # the root file system is read-only
    "PYTHONUNBUFFERED=1",  # a log line is seen when it is written
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where images go: ``host[:port]/prefix``."""

    prefix: str
    insecure: bool


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image that is laid out on disk."""

    image: recipe.Image
    digest: str
    layers: tuple[Layer, ...]
    layout: Path

    @property
    def size(self) -> int:
        """Compressed bytes."""
        return sum(layer.digests.size for layer in self.layers)


def lay_out(image: recipe.Image, layers: Sequence[Layer], version: str, folder: Path) -> Made:
    """Write the image's OCI layout into the cache, unless it is there."""
    settings = _settings(image, version)
    names = [layer.digests.digest for layer in layers]
    key = hashlib.sha256(oci.canonical([settings, names])).hexdigest()[:20]
    layout = folder / f"{image.name}-{key}"
    done = layout / "digest"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{image.name}-{'?' * 20}"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix=".image-", dir=folder) as scratch:
            fresh = Path(scratch) / "layout"
            digest = oci.write_image(fresh, [(layer.path, layer.digests) for layer in layers], settings)
            (fresh / "digest").write_text(digest)
            fresh.rename(layout)
    return Made(image=image, digest=done.read_text(), layers=tuple(layers), layout=layout)


def push(made: Sequence[Made], target: Target, crane: Path, version: str) -> list[str]:
    """Push what the registry does not have; returns the names of the images that were pushed."""
    client = RegistryClient(insecure=target.insecure, program=str(crane))

    def send(one: Made) -> bool:
        repository = f"{target.prefix}/{one.image.name}"
        if client.exists(f"{repository}@{one.digest}"):
            return False
        pushed = client.push_layout(one.layout, f"{repository}:{version}")
        if pushed != one.digest:
            raise RuntimeError(f"{repository} became {pushed} in the registry instead of {one.digest}")
        return True

    # The base first: its layers are then in the registry's storage when the others come.
    results = [send(made[0])]
    with ThreadPoolExecutor(2) as pool:
        results += pool.map(send, made[1:])
    return [one.image.name for one, sent in zip(made, results, strict=True) if sent]


def write_facts(made: Sequence[Made], target: Target, folder: Path) -> None:
    """Write ``images.json`` for scripts and ``images-values.yaml`` for Helm."""
    references = {_camel(one.image.name): f"{target.prefix}/{one.image.name}@{one.digest}" for one in made}
    registry = {"prefix": target.prefix, "insecure": target.insecure}
    values: Mapping[str, Any] = {
        "images": {name: references[name] for name in ("operator", "builder", "builderCompiler", "runtime")},
        "interpreters": [{"python": recipe.PYTHON, "base": references["base"], "tools": references["tools"]}],
        "registry": registry,
    }
    folder.mkdir(exist_ok=True)
    _replace(folder / "images.json", json.dumps({"registry": registry, "images": references}, indent=2) + "\n")
    # JSON is YAML; written so, no quoting can go wrong.
    _replace(folder / "images-values.yaml", json.dumps(values, indent=2) + "\n")


def table(made: Sequence[Made], pushed: Sequence[str]) -> str:
    """What a person wants to know: names, digests, sizes, and what was new."""
    rows = [("image", "digest", "compressed", "unpacked", "layers reused", "")]
    for one in made:
        unpacked = sum(layer.digests.unpacked for layer in one.layers)
        reused = sum(layer.reused for layer in one.layers)
        rows.append(
            (
                one.image.name,
                one.digest[:19],
                f"{one.size / 1e6:.1f} MB",
                f"{unpacked / 1e6:.1f} MB",
                f"{reused} of {len(one.layers)}",
                "pushed" if one.image.name in pushed else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{one.image.name} is over 150 MB: {one.image.why_large or 'NO REASON GIVEN'}" for one in large(made)]
    return "\n".join(lines)


def large(made: Sequence[Made]) -> list[Made]:
    """Images that need a reason for their size."""
    return [one for one in made if one.size > LARGE]


def _settings(image: recipe.Image, version: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "Env": list(ENVIRONMENT),
        "User": f"{recipe.USER}:{recipe.USER}",
        "WorkingDir": "/",
        "Labels": {
            "org.opencontainers.image.title": f"slipway-{image.name}",
            "org.opencontainers.image.description": image.description,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.version": version,
        },
    }
    if image.entrypoint:
        settings["Entrypoint"] = list(image.entrypoint)
    return settings


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(part.capitalize() for part in rest)


def _replace(path: Path, content: str) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(content)
    fresh.replace(path)
