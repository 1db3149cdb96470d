"""``slipway package``: a project's folder as the package that a build in the cluster would make of it."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from slipway_operator.builder import checkout, oci
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Package, write_package
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Limits

_REFERENCE = re.compile(
    r"^(?P<repository>[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+)(?::(?P<tag>\w[\w.-]{0,127}))?$",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks for.

    Attributes:
        folder: The project.
        output: File to write the package to.
        push: ``host/repository[:tag]`` to push it to.
        dirty: Take the files as they are on disk.
        insecure: The registry speaks plain HTTP.
        crane: The program that pushes.
    """

    folder: Path
    output: Path | None = None
    push: str | None = None
    dirty: bool = False
    insecure: bool = False
    crane: str = "crane"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came out.

    Attributes:
        digest: Of the artifact in a registry, as a deployment's status shows it.
        sha256: Of the zip file.
        commit: As the manifest has it.
        files: How many.
        size: Bytes of the zip file.
        untracked: Files that were left out as Git does not know them.
        image: ``repository@digest``, where it was pushed.
    """

    digest: str
    sha256: str
    commit: str
    files: int
    size: int
    untracked: tuple[str, ...] = ()
    image: str | None = None


def make(wanted: Wanted) -> Made:
    """Package a project, and write or push the package.

    Raises:
        StepFailed: What to change, in its message.
    """
    repository, tag = _target(wanted.push)
    limits = Limits.from_environment(os.environ)
    with checkout.opened(wanted.folder, dirty=wanted.dirty, but=wanted.output) as project, _scratch(wanted) as scratch:
        package = write_package(
            Path(scratch) / "package.zip", project.files, project.read, project.source, limits=limits
        )
        layout = Path(scratch) / "layout"
        digest = oci.write_layout(layout, package.artifact())
        if repository is not None:
            _push(wanted, layout, f"{repository}:{tag or f'package-{package.sha256[:20]}'}")
        made = Made(
            digest=digest,
            sha256=package.sha256,
            commit=package.manifest.source.commit,
            files=len(package.manifest.files),
            size=package.size,
            untracked=tuple(project.untracked),
            image=f"{repository}@{digest}" if repository is not None else None,
        )
        if wanted.output is not None:
            _keep(package, wanted.output)
    return made


def _target(reference: str | None) -> tuple[str | None, str | None]:
    if reference is None:
        return None, None
    found = _REFERENCE.match(reference)
    if found is None:
        raise StepFailed(
            "InvalidReference",
            f"{reference[:200]!a} is no place in a registry: use host/repository or host/repository:tag",
        )
    return found["repository"], found["tag"]


def _scratch(wanted: Wanted) -> tempfile.TemporaryDirectory[str]:
    """A folder beside the output, so that the package can be moved there in one step."""
    beside = wanted.output.absolute().parent if wanted.output is not None else None
    try:
        return tempfile.TemporaryDirectory(prefix=".slipway-", dir=beside)
    except OSError as error:
        raise StepFailed(
            "CannotWrite", f"nothing can be written to {os.fspath(beside or tempfile.gettempdir())!a}: {error.strerror}"
        ) from None


def _keep(package: Package, output: Path) -> None:
    try:
        package.path.replace(output)
    except OSError as error:
        raise StepFailed("CannotWrite", f"{os.fspath(output)!a} cannot be written: {error.strerror}") from None


def _push(wanted: Wanted, layout: Path, target: str) -> None:
    try:
        RegistryClient(insecure=wanted.insecure, program=wanted.crane).push_layout(layout, target)
    except FileNotFoundError:
        raise StepFailed(
            "CraneMissing",
            "pushing needs the program crane of go-containerregistry: install it, or write a file with -o",
        ) from None
