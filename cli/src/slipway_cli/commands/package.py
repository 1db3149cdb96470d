"""``package``: a project as the bytes that production makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.artifacts import registry_client
from slipway_cli.options import Flag
from slipway_cli.packaging import Made, packaged, repository_and_tag


def package(  # noqa: PLR0913 - one for each option of the command line
    folder: Path,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    push: str | None = None,
    insecure: Annotated[bool, Flag] = False,
    dirty: Annotated[bool, Flag] = False,
    json_: Annotated[bool, Parameter(name="--json"), Flag] = False,
) -> None:
    """Package a project.

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
    place = repository_and_tag(push) if push is not None else None
    if place is not None:
        # Said before the work, not after it.
        registry_client(insecure=insecure)
    with packaged(folder, output=output, dirty=dirty) as made:
        image = None
        if place is not None:
            made.push(place[0], tag=place[1], insecure=insecure)
            image = f"{place[0]}@{made.digest}"
        _show(made, {"output": str(output) if output else None, "image": image}, as_json=json_)


def _show(made: Made, where: Mapping[str, str | None], *, as_json: bool) -> None:
    from slipway_operator.builder.progress import readable

    package_, source = made.package, made.package.manifest.source
    facts = {
        "digest": made.digest,
        "sha256": package_.sha256,
        "commit": source.commit,
        "path": source.path,
        "files": len(package_.manifest.files),
        "bytes": package_.size,
        "locks": package_.manifest.locks,
        **where,
    }
    if as_json:
        screen.data(facts, "json")
        return
    lines = [
        f"package {made.digest}",
        f"zip file sha256:{package_.sha256}",
        f"{facts['files']} files, {readable(package_.size)}, commit {source.commit}, path {source.path}",
        *(f"lock {name} sha256:{digest}" for name, digest in sorted(package_.manifest.locks.items())),
    ]
    if not package_.manifest.locks:
        lines.append("no lock file at its root: add one with `uv lock` before you deploy it")
    if where["output"] is not None:
        lines.append(f"written to {where['output']}")
    if where["image"] is not None:
        lines.append(f"pushed as {where['image']}")
    screen.say("\n".join(lines))
