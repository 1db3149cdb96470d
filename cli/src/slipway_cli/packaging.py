"""A folder's package, on disk and in a registry: what `package` and `deploy` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from slipway_cli.artifacts import registry_client
from slipway_cli.problem import Problem

if TYPE_CHECKING:
    from slipway_operator.builder.package import Package

_TAG_DIGITS = 20


@dataclass(frozen=True, kw_only=True)
class Made:
    """A package and the artifact that holds it.

    Attributes:
        package: On disk, while `packaged` lasts.
        digest: Of the artifact's manifest.
        layout: The artifact as an OCI layout.
    """

    package: Package
    digest: str
    layout: Path

    def push(self, repository: str, *, tag: str | None = None, insecure: bool = False) -> None:
        """Push it; without a tag, under one that names the content."""
        chosen = tag or f"package-{self.package.sha256[:_TAG_DIGITS]}"
        registry_client(insecure=insecure).push_layout(self.layout, f"{repository}:{chosen}")


@contextmanager
def packaged(folder: Path, *, output: Path | None = None, dirty: bool = False) -> Iterator[Made]:
    """Package a folder; without ``output`` the zip file is gone after the block."""
    from slipway_operator.builder import oci
    from slipway_operator.builder.laptop import package_folder

    with TemporaryDirectory(prefix="slipway-") as scratch:
        target = output if output is not None else Path(scratch) / "package.zip"
        made = package_folder(folder, target, dirty=dirty)
        layout = Path(scratch) / "layout"
        yield Made(package=made, digest=oci.write_layout(layout, made.artifact()), layout=layout)


def repository_and_tag(text: str) -> tuple[str, str | None]:
    """Take ``registry/name[:tag]`` apart.

    Raises:
        Problem: It is no repository.
    """
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        name, tag = text, ""
    if "@" in text or "/" not in name or name.startswith("-"):
        raise Problem(f"InvalidReference: {text!r} is no repository: use registry/name[:tag]")
    return name, tag or None
