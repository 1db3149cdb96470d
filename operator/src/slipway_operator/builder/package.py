"""The package: a project's files at one commit as one immutable, reproducible zip file.

Its first entry, ``manifest.json``, names the commit and the digest and size of every file;
the files follow below ``project/``, sorted by the bytes of their paths. Nothing of the
machine that made it gets in: no time, no owner, no URL, no tool that leaves the bytes as
they are. So ``slipway package`` on a laptop and a build in the cluster agree on the digest.

Neighbours: `git`, `subversion` and `folder` find the files; `names` decides which are fine.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from slipway_operator.builder import names, zips
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.oci import Artifact, Blob, canonical, file_digest
from slipway_operator.builder.progress import readable
from slipway_operator.builder.workplace import Limits

ARTIFACT_TYPE = "application/vnd.slipway.package.v1"
"""Type of the OCI artifact."""

LAYER_TYPE = "application/vnd.slipway.package.v1+zip"
"""Media type of its one layer, the zip file."""

MANIFEST = "manifest.json"
FOLDER = "project/"

LOCK_NAMES = ("uv.lock", "pylock.toml", "requirements.txt")
"""Lock files that are looked for at a project's root."""

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,  # an entry is encrypted, or (NotImplementedError) compressed in a way that nobody knows
    ValidationError,
    UnicodeDecodeError,
    EOFError,
    OSError,
)
"""What reading a zip file from elsewhere fails with when it is no package."""
_MANIFEST_BYTES = 64 << 20
_CHUNK = 1 << 20
_LFS_BYTES = 1024
_LFS_HEAD = b"version https://git-lfs.github.com/spec/v1\n"

Kind = Literal["file", "executable", "link"]
_MODES: dict[Kind, int] = {
    "file": zips.FILE_MODE,
    "executable": zips.EXECUTABLE_MODE,
    "link": zips.LINK_MODE,
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of a project where it was found, before it is packaged.

    Attributes:
        path: Relative to the project, with ``/``.
        kind: Link: its content is its target's text.
        size: Bytes, as the source says.
        handle: What the source reads it by, such as a Git object's name.
    """

    path: str
    kind: Kind
    size: int
    handle: str = ""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class PackagedFile(_Model):
    """A file of a package."""

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    kind: Kind = "file"


class Provenance(_Model):
    """Where a project's files are from. No URL: one commit has many, and some hold passwords."""

    kind: Literal["git", "svn", "folder"]
    commit: str
    """Git commit, ``r<revision>``, ``dirty-<commit>`` of an edited tree, ``none`` of a plain folder."""
    path: str = "."
    """The project's folder in the repository."""


class Manifest(_Model):
    """``manifest.json`` of a package."""

    format: Literal["slipway.package.v1"] = "slipway.package.v1"
    source: Provenance
    locks: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the lock files at the project's root, by name."""
    files: tuple[PackagedFile, ...]

    def text(self) -> bytes:
        """The one text of this manifest; people can read it."""
        value = self.model_dump(by_alias=True, mode="json")
        return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"

    @property
    def by_path(self) -> dict[str, PackagedFile]:
        """The files by their paths."""
        return {file.path: file for file in self.files}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package on disk.

    Attributes:
        path: The zip file.
        sha256: Digest of its bytes, hex.
        manifest: What is in it.
    """

    path: Path
    sha256: str
    manifest: Manifest

    @property
    def size(self) -> int:
        """Bytes of the zip file."""
        return self.path.stat().st_size

    def artifact(self) -> Artifact:
        """The OCI artifact that holds it; deterministic as the package is."""
        layer = Blob(
            path=self.path,
            media_type=LAYER_TYPE,
            annotations={"org.opencontainers.image.title": "package.zip"},
        )
        source = self.manifest.source
        return Artifact(
            layers=[layer],
            artifact_type=ARTIFACT_TYPE,
            config=canonical({"format": self.manifest.format, "source": source.model_dump(by_alias=True)}),
            config_type="application/vnd.slipway.package.config.v1+json",
            annotations={"org.opencontainers.image.revision": source.commit},
        )


def write_package(
    target: Path,
    files: Sequence[Found],
    read: Callable[[Found], Iterable[bytes]],
    source: Provenance,
    *,
    limits: Limits,
) -> Package:
    """Write the package of a project's files.

    Args:
        target: The zip file to write, replaced when it exists.
        files: What was found, in any order.
        read: Gives the bytes of one of them; called in the order of paths.
        source: Where they are from.
        limits: What is too large.

    Raises:
        StepFailed: A name, link or size that a project may not have, or an LFS pointer.
    """
    ordered = sorted(files, key=lambda file: file.path.encode("utf-8", "surrogateescape"))
    refuse_unfit(ordered, limits)
    body_path = target.with_name(f".{target.name}.body")
    packaged: list[PackagedFile] = []
    links: dict[str, str] = {}
    try:
        with zips.ZipBody(body_path) as body:
            for found in ordered:
                tally = _Tally(found)
                body.add(FOLDER + found.path, _MODES[found.kind], tally.count(read(found)))
                packaged.append(tally.packaged())
                if found.kind == "link":
                    links[found.path] = names.decoded(tally.head)
            names.refuse_escapes(links)
            manifest = Manifest(source=source, locks=_locks(packaged), files=tuple(packaged))
            body.finish(target, MANIFEST, manifest.text())
    finally:
        body_path.unlink(missing_ok=True)
    return Package(path=target, sha256=file_digest(target).removeprefix("sha256:"), manifest=manifest)


def refuse_unfit(files: Sequence[Found], limits: Limits) -> None:
    """Refuse names and sizes before any content is read.

    Raises:
        StepFailed: ``UnsafePath``, ``FileNameNotUtf8``, ``FileNamesCollide``,
            ``RepositoryTooLarge`` or ``SourceEmpty``.
    """
    if not files:
        raise StepFailed("SourceEmpty", "the project holds no file: check the source's path and commit its files")
    total = sum(file.size for file in files)
    most_files = min(limits.project_files, zips.MOST_FILES)
    most_bytes = min(limits.project_bytes, zips.MOST_BYTES)
    if len(files) > most_files:
        raise StepFailed(
            "RepositoryTooLarge",
            f"the project has {len(files)} files, more than {most_files}: point the source's path at a smaller folder",
        )
    if total > most_bytes:
        largest = max(files, key=lambda file: file.size)
        raise StepFailed(
            "RepositoryTooLarge",
            f"the project has {readable(total)}, more than {readable(most_bytes)} "
            f"({largest.path[:120]!a} alone {readable(largest.size)}): keep data elsewhere or commit less of it",
        )
    for file in files:
        names.checked(file.path)
    names.refuse_collisions(file.path for file in files)


class _Tally:
    """Counts and hashes a file's bytes on their way into the zip file."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._digest = hashlib.sha256()
        self._size = 0
        self.head = b""

    def count(self, content: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in content:
            if len(self.head) < names.LONGEST_PATH:
                self.head += chunk[: names.LONGEST_PATH - len(self.head)]
            self._digest.update(chunk)
            self._size += len(chunk)
            if self._size > self._found.size:
                # The limits were checked against the promised size.
                break
            yield chunk

    def packaged(self) -> PackagedFile:
        found = self._found
        if self._size != found.size:
            raise StepFailed(
                "SourceChanged", f"{found.path[:200]!a} changed while it was read: package again", retry=True
            )
        if self.head.startswith(_LFS_HEAD) and b"\noid sha256:" in self.head and self._size < _LFS_BYTES:
            raise StepFailed(
                "LfsPointer",
                f"{found.path[:200]!a} is a Git LFS pointer, not the file: commit the file itself "
                "(git lfs migrate export), or publish a copy of the folder outside Git with `slipway package --push`",
            )
        return PackagedFile(path=found.path, size=self._size, sha256=self._digest.hexdigest(), kind=found.kind)


def _locks(files: Sequence[PackagedFile]) -> dict[str, str]:
    return {file.path: file.sha256 for file in files if file.path in LOCK_NAMES}


def read_package(path: Path, *, limits: Limits) -> Package:
    """Open a package that came from elsewhere, and check every byte of it.

    Raises:
        StepFailed: ``PackageInvalid``, or what `refuse_unfit` finds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _verified(archive, limits)
    except _UNREADABLE as error:
        fault = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StepFailed(
            "PackageInvalid", f"not a package of Slipway ({fault}): make it with `slipway package`"
        ) from None
    return Package(path=path, sha256=file_digest(path).removeprefix("sha256:"), manifest=manifest)


def _verified(archive: zipfile.ZipFile, limits: Limits) -> Manifest:
    entries = archive.infolist()
    if not entries or entries[0].filename != MANIFEST or entries[0].file_size > _MANIFEST_BYTES:
        raise zipfile.BadZipFile("its first entry is not manifest.json")
    manifest = Manifest.model_validate_json(archive.read(entries[0]))
    refuse_unfit([Found(path=file.path, kind=file.kind, size=file.size) for file in manifest.files], limits)
    if [entry.filename for entry in entries[1:]] != [FOLDER + file.path for file in manifest.files]:
        raise zipfile.BadZipFile("its entries are not those of its manifest")
    links: dict[str, str] = {}
    for entry, file in zip(entries[1:], manifest.files, strict=True):
        if entry.file_size != file.size or entry.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"{file.path[:100]!a} has another size than its manifest says")
        if entry.external_attr >> 16 != _MODES[file.kind]:
            raise zipfile.BadZipFile(f"{file.path[:100]!a} is of another kind than its manifest says")
        digest = hashlib.sha256()
        head = b""
        with archive.open(entry) as content:
            while chunk := content.read(_CHUNK):
                head = head or chunk
                digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            raise zipfile.BadZipFile(f"{file.path[:100]!a} is not what its manifest says")
        if file.kind == "link":
            links[file.path] = names.decoded(head)
    names.refuse_escapes(links)
    return manifest


def unpack(package: Package, folder: Path, *, only: Callable[[PackagedFile], bool] = lambda _: True) -> None:
    """Write a package's files below a new folder, the links last so that nothing is written through one.

    Args:
        package: A package that `write_package` made or `read_package` checked.
        folder: Must not exist yet, and only this process writes below it.
        only: Chooses among the files.
    """
    folder.mkdir(parents=True)
    with zipfile.ZipFile(package.path) as archive:
        chosen = [file for file in package.manifest.files if only(file)]
        for file in sorted(chosen, key=lambda file: file.kind == "link"):
            target = folder / names.checked(file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.kind == "link":
                target.symlink_to(names.decoded(archive.read(FOLDER + file.path)))
                continue
            with archive.open(FOLDER + file.path) as content, target.open("xb") as out:
                shutil.copyfileobj(content, out, _CHUNK)
            target.chmod(stat.S_IMODE(_MODES[file.kind]))


def text_of(package: Package, path: str, *, most: int = 64 << 20) -> bytes | None:
    """Bytes of one file of a package, None where there is none.

    Raises:
        StepFailed: It is larger than ``most``.
    """
    file = package.manifest.by_path.get(path)
    if file is None:
        return None
    if file.size > most:
        raise StepFailed("FileTooLarge", f"{path[:200]!a} is larger than {readable(most)}")
    with zipfile.ZipFile(package.path) as archive:
        return archive.read(FOLDER + path)
