"""What a log entry names in the registry: brought here by the builder's own code, each byte checked.

crane checks every manifest and blob against its digest; what an entry says of the content
(model, signature, package) is checked once more, as the entry is what people trust.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from slipway_cli.installation import settings
from slipway_cli.observe import read_log
from slipway_cli.options import RegistryOptions, Where
from slipway_cli.problem import Problem
from slipway_cli.session import Manifest, Session
from slipway_cli.views.overview import short_content

if TYPE_CHECKING:
    from slipway_operator.builder.package import Package
    from slipway_operator.builder.registry import RegistryClient

_FILE = "org.cncf.model.filepath"
_TITLE = "org.opencontainers.image.title"
_PACKAGE_LAYER = "application/vnd.slipway.package.v1+zip"


def entry_of(session: Session, name: str, wanted: str = "live") -> Manifest:
    """A log entry by its number, ``live`` or ``previous`` (the newest with another content than the live one).

    Raises:
        Problem: There is none.
    """
    entries = read_log(session, name)
    if not entries:
        session.deployment(name)
        raise Problem(f"nothing of {name} was live so far: its log is empty")
    if wanted == "live":
        return entries[-1]
    if wanted == "previous":
        others = [entry for entry in entries if entry["content"] != entries[-1]["content"]]
        if not others:
            raise Problem(f"{name} had no other content than the live one so far")
        return others[-1]
    found = next((entry for entry in entries if str(entry["number"]) == wanted.lstrip("r#")), None)
    if found is None:
        numbers = ", ".join(str(entry["number"]) for entry in entries)
        raise Problem(f"{name} has no revision {wanted}: say live, previous or one of {numbers}")
    return found


class Picked(NamedTuple):
    """A revision, and where what is taken from it goes."""

    session: Session
    entry: Manifest
    artifacts: Artifacts
    folder: Path


def pick(name: str, revision: str, *, to: Path | None, registry: RegistryOptions, where: Where) -> Picked:
    """Find a revision of a deployment; without a folder of the person's own (``to``) it is ``<name>-<number>``.

    Raises:
        Problem: There is none, or nobody says which registry it is in.
    """
    session = Session.open(where)
    entry = entry_of(session, name, revision)
    folder = to if to is not None else Path(f"{name}-{entry['number']}")
    return Picked(session, entry, Artifacts.of(session, name, entry, registry), folder)


class Artifacts:
    """The artifacts of one deployment's contents."""

    def __init__(self, client: RegistryClient, entry: Manifest, repository: str) -> None:
        self._client = client
        self._entry = entry
        self._repository = repository
        self._manifests: dict[str, Mapping[str, Any]] = {}

    @classmethod
    def of(cls, session: Session, name: str, entry: Manifest, options: RegistryOptions) -> Artifacts:
        """Those of an entry's content.

        Raises:
            Problem: crane is not there, or nobody says which registry.
        """
        platform = None if options.insecure and (options.registry or entry.get("repository")) else settings(session)
        known = (platform or {}).get("registry") or {}
        repository = str(entry.get("repository") or f"{known.get('prefix') or ''}/{session.namespace}/{name}")
        prefix, *own = repository.rsplit("/", 2)
        prefix = (options.registry or prefix).rstrip("/")
        if not prefix:
            raise Problem("the log does not say in which registry the content is: name its prefix with --registry")
        client = registry_client(insecure=options.insecure or bool(known.get("insecure")))
        return cls(client, entry, "/".join([prefix, *own]))

    @property
    def digests(self) -> Mapping[str, str]:
        """The digests of the entry's content."""
        found: Mapping[str, str] = self._entry.get("digests") or {}
        return found

    @property
    def content(self) -> str:
        """Short digest of the content."""
        return short_content(self._entry)

    def reference(self, digest: str) -> str:
        """An artifact's full name."""
        return f"{self._repository}@{digest}"

    @property
    def model_name(self) -> str:
        """Name of the file that answers: ``model.onnx``, or that of a model that answers by itself."""
        return self.digests.get("file") or "model.onnx"

    def model_file(self, file: str) -> dict[str, Any]:
        """``signature.json``, ``examples.json`` or ``certificate.json`` of the exported model, parsed."""
        layer = self._model_layer(file)
        content = self._client.blob(self.reference(layer["digest"]))
        self._check(file, layer["digest"])
        parsed = json.loads(content)
        if not isinstance(parsed, dict):
            raise Problem(f"{file} of {self._repository} is no JSON object")
        return parsed

    def save_model_files(self, files: Sequence[str], folder: Path) -> list[tuple[Path, str]]:
        """Write files of the exported model to a folder; returns paths and digests."""
        saved = []
        for file in files:
            layer = self._model_layer(file)
            self._check(file, layer["digest"])
            saved.append(self._save(layer["digest"], folder / file))
        return saved

    def save_training(self, folder: Path) -> list[tuple[Path, str]]:
        """Write what the training left (the model file, metrics, log) to a folder."""
        layers = self._training_layers()
        return [self._save(layer["digest"], folder / name) for name, layer in layers.items()]

    def training_file(self, file: str) -> bytes | None:
        """``metrics.json`` or ``train.log`` of the training, None where there is none."""
        layer = self._training_layers().get(file)
        return None if layer is None else self._client.blob(self.reference(layer["digest"]))

    def save_package(self, target: Path) -> str:
        """Write the package to a file; returns the digest of its bytes."""
        layers = [layer for layer in self._layers(self._named("package")) if layer.get("mediaType") == _PACKAGE_LAYER]
        if len(layers) != 1:
            raise Problem(f"{self.reference(self._named('package'))} is no package of Slipway")
        return self._save(layers[0]["digest"], target)[1]

    @contextmanager
    def package(self) -> Iterator[Package]:
        """The package, checked to its last byte, while the block runs."""
        from slipway_operator.builder.package import read_package
        from slipway_operator.builder.workplace import Limits

        with TemporaryDirectory(prefix="slipway-") as scratch:
            path = Path(scratch) / "package.zip"
            self.save_package(path)
            yield read_package(path, limits=Limits())

    def _named(self, digest: str) -> str:
        found = self.digests.get(digest)
        if not found:
            raise Problem(f"revision {self._entry['number']} names no {digest}")
        return found

    def _layers(self, digest: str) -> Sequence[Mapping[str, Any]]:
        if digest not in self._manifests:
            self._manifests[digest] = self._client.manifest(self.reference(digest))
        layers: Sequence[Mapping[str, Any]] = self._manifests[digest].get("layers") or ()
        return layers

    def _model_layer(self, file: str) -> Mapping[str, Any]:
        for layer in self._layers(self._named("artifact")):
            if (layer.get("annotations") or {}).get(_FILE) == file:
                return layer
        raise Problem(f"{self.reference(self._named('artifact'))} holds no {file}")

    def _training_layers(self) -> dict[str, Mapping[str, Any]]:
        trained = self.digests.get("trained")
        if not trained:
            return {}
        named = {str((layer.get("annotations") or {}).get(_TITLE, "")): layer for layer in self._layers(trained)}
        # A name from outside that becomes a file's here: one part, and none of our own making.
        return {name: layer for name, layer in named.items() if name and name == Path(name).name}

    def _check(self, file: str, digest: str) -> None:
        promised = {self.model_name: self.digests.get("onnx"), "signature.json": self.digests.get("signature")}.get(
            file
        )
        if promised is not None and promised != digest:
            raise Problem(
                f"{file} in the registry is {digest}, and the log says {promised}: somebody changed one of them"
            )

    def _save(self, digest: str, target: Path) -> tuple[Path, str]:
        from slipway_operator.builder.oci import file_digest

        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            self._client.blob_to(self.reference(digest), partial)
            found = file_digest(partial)
            if found != digest:
                raise Problem(
                    f"{target.name} came as {found} instead of {digest}: the registry or the way to it is broken"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target, digest


def registry_client(*, insecure: bool) -> RegistryClient:
    """The builder's registry client, with this person's Docker credentials.

    Raises:
        Problem: crane is not installed.
    """
    from slipway_operator.builder.registry import RegistryClient

    if shutil.which("crane") is None:
        raise Problem(
            "CraneMissing: the registry is reached by the program crane, which is not on the PATH: "
            "install go-containerregistry"
        )
    return RegistryClient(insecure=insecure)
