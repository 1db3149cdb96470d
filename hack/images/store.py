"""The cache of finished layers and images, keyed by all that decides them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway_operator.builder.layers import LayerDigests
from slipway_operator.builder.oci import canonical

KEPT_VARIANTS = 6
"""Finished layers of one name that stay, newest first: branches of work switch back and forth."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A finished layer in the cache."""

    name: str
    key: str
    path: Path
    digests: LayerDigests
    reused: bool


@dataclass(frozen=True)
class Store:
    """A folder of finished things: ``<kind>/<name>-<key>``, complete or absent."""

    folder: Path

    def layer(self, name: str, inputs: Any, build: Callable[[Path], LayerDigests]) -> Layer:
        """Return the layer for these inputs, building it where it is not here yet.

        Args:
            name: Of the layer.
            inputs: All that decides its bytes, as JSON.
            build: Writes the layer to the path that it is given.
        """
        key = hashlib.sha256(canonical(inputs)).hexdigest()[:20]
        place = self.folder / "layers" / f"{name}-{key}"
        reused = (place / "layer.json").exists()
        if not reused:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as scratch:
                fresh = Path(scratch) / "layer"
                fresh.mkdir()
                digests = build(fresh / "layer.tar.gz")
                (fresh / "layer.json").write_text(json.dumps(asdict(digests)))
                shutil.rmtree(place, ignore_errors=True)
                fresh.rename(place)
            self._forget_old(place)
        found = LayerDigests(**json.loads((place / "layer.json").read_text()))
        return Layer(name=name, key=key, path=place / "layer.tar.gz", digests=found, reused=reused)

    def tree(self, name: str, inputs: Any, fill: Callable[[Path], None]) -> Path:
        """Return a prepared folder for these inputs, filling it where it is not here yet; only read it."""
        key = hashlib.sha256(canonical(inputs)).hexdigest()[:20]
        place = self.folder / "trees" / f"{name}-{key}"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as scratch:
                fresh = Path(scratch) / "tree"
                fill(fresh)
                fresh.rename(place)
            self._forget_old(place)
        return place

    def sweep(self) -> None:
        """Remove what an interrupted build left; nobody else may be building."""
        for kind in ("layers", "layouts", "trees"):
            for path in (self.folder / kind).glob(".*"):
                shutil.rmtree(path)

    def _forget_old(self, newest: Path) -> None:
        name = newest.name.rpartition("-")[0]
        others = [path for path in newest.parent.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT_VARIANTS:]:
            shutil.rmtree(path)


def tree_fingerprint(root: Path, patterns: Iterable[str] = ("**/*",)) -> str:
    """Hash of names, kinds and bytes of source files; byte code and hidden files aside."""
    digest = hashlib.sha256()
    paths = {path for pattern in patterns for path in root.glob(pattern)}
    for path in sorted(paths):
        name = path.relative_to(root)
        if path.is_file() and "__pycache__" not in name.parts and path.suffix != ".pyc":
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
