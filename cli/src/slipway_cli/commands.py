"""The commands, as typed functions; each prints what it did for a person or, with ``--json``, for a program."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import cyclopts

from slipway_operator.builder import oci
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.laptop import package_folder
from slipway_operator.builder.package import Package
from slipway_operator.builder.progress import readable
from slipway_operator.builder.registry import RegistryClient

app = cyclopts.App(
    name="slipway",
    help="Take a data-science project to production on Kubernetes.",
    version=lambda: version("slipway-cli"),
)


@app.command
def package(  # noqa: PLR0913  # one for each option of the command line
    folder: Path,
    *,
    output: Annotated[Path | None, cyclopts.Parameter(name=["--output", "-o"])] = None,
    push: str | None = None,
    insecure: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    dirty: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json_: Annotated[bool, cyclopts.Parameter(name="--json", negative="")] = False,
) -> None:
    """Package a project with the bytes that a build in the cluster makes of the same commit.

    Example: slipway package examples/flight-delay -o flight-delay.zip

    Example: slipway package . --push registry.example.com/airline/flight-delay

    Parameters
    ----------
    folder:
        The project. In a Git repository the files of HEAD are packaged, elsewhere all files but caches.
    output:
        Where to write the zip file; without it, only the digest is computed (or the package pushed).
    push:
        Push it to this repository (registry/name[:tag]); prints the reference for spec.source.package.image.
    insecure:
        The registry speaks plain HTTP.
    dirty:
        Package edited files as they are; the package then says so.
    json_:
        Print JSON.
    """
    if push is not None and shutil.which("crane") is None:
        raise StepFailed("CraneMissing", "--push needs the program crane on the PATH: install go-containerregistry")
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        target = output if output is not None else Path(scratch) / "package.zip"
        made = package_folder(folder, target, dirty=dirty)
        layout = Path(scratch) / "layout"
        digest = oci.write_layout(layout, made.artifact())
        image = None
        if push is not None:
            name, tag = _place(push, made)
            RegistryClient(insecure=insecure).push_layout(layout, f"{name}:{tag}")
            image = f"{name}@{digest}"
        _show(made, digest, {"output": str(output) if output else None, "image": image}, as_json=json_)


def _place(repository: str, made: Package) -> tuple[str, str]:
    """Repository and tag to push to; without a tag, one that names the content."""
    name, colon, tag = repository.rpartition(":")
    if not colon or "/" in tag:
        name, tag = repository, f"package-{made.sha256[:20]}"
    if "@" in repository or "/" not in name or name.startswith("-"):
        raise StepFailed("InvalidReference", f"{repository!r} is no repository: use registry/name[:tag]")
    return name, tag


def _show(made: Package, digest: str, where: Mapping[str, str | None], *, as_json: bool) -> None:
    source = made.manifest.source
    facts = {
        "digest": digest,
        "sha256": made.sha256,
        "commit": source.commit,
        "path": source.path,
        "files": len(made.manifest.files),
        "bytes": made.size,
        "locks": made.manifest.locks,
        **where,
    }
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    lines = [
        f"package {digest}",
        f"zip file sha256:{made.sha256}",
        f"{facts['files']} files, {readable(made.size)}, commit {source.commit}, path {source.path}",
        *(f"lock {name} sha256:{digest}" for name, digest in sorted(made.manifest.locks.items())),
    ]
    if not made.manifest.locks:
        lines.append("no lock file at its root: add one with `uv lock` before you deploy it")
    if where["output"] is not None:
        lines.append(f"written to {where['output']}")
    if where["image"] is not None:
        lines.append(f"pushed as {where['image']}")
    sys.stdout.write("\n".join(lines) + "\n")
