"""The three containers of a build: fetch what is needed, build what is source, push what came out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slipway_operator.builder import git, package, sdists, subversion, untrusted
from slipway_operator.builder.environment import Environment, rootfs
from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.images import Stack, client, environments_of, push_artifact, repository_of, short
from slipway_operator.builder.lockfiles import read_lock
from slipway_operator.builder.package import Package, Provenance
from slipway_operator.builder.progress import readable, say, step
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.sources import folder_in_repository
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import (
    BuildRequest,
    Built,
    GitSource,
    PackageSource,
    Resolved,
    ResolveRequest,
    SvnSource,
)

_HANDOVER_BYTES = 1 << 20


class Handover(BaseModel):
    """What ``fetch`` tells ``push`` over the heads of any code that runs in between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str
    package: str
    """SHA-256 of the package's zip file."""
    lock: str
    key: str
    environment: str | None
    """Reference of the environment's image, where the registry has it."""
    built: Literal["wheels", "sources"] = "wheels"


def resolve(request: ResolveRequest, place: Workplace) -> Resolved:
    """Find the commit that a source names now."""
    source = request.source
    if isinstance(source, GitSource):
        return Resolved(commit=git.resolve(source, place))
    if isinstance(source, SvnSource):
        return Resolved(commit=f"r{subversion.resolve(source, place)}")
    return Resolved(commit=source.image.rpartition("@")[2])


def fetch(request: BuildRequest, place: Workplace) -> None:
    """Package the source, and make or find its environment."""
    registry = client(request.registry, place)
    commit, project = _package(request, place, registry)
    _require(request, project)
    environment = Environment(place=place, interpreter=request.interpreter)
    with step("reading the lock file"):
        locked = read_lock(request.lock, project, place, python=environment.python)
    key = environment.key(locked.requirements)
    # Shared ones first; then what this project built from sources before.
    image, built = _existing(request, registry, key)
    sources: list[str] = []
    if image is None:
        _refuse_absent_base(request, registry)
        environment.create()
        with step(f"installing {len(locked.requirements.packages)} packages"):
            sources = environment.install(locked.requirements)
        if sources:
            with step(f"downloading the sources of {', '.join(sources)[:200]}"):
                sdists.download(sources, locked.requirements, environment)
        else:
            environment.finish()
    else:
        say(f"the environment {key[:10]} is in the registry already")
    handover = Handover(
        commit=commit,
        package=project.sha256,
        lock=f"sha256:{locked.sha256}",
        key=key,
        environment=image,
        built="sources" if sources else built,
    )
    (place.handover / "handover.json").write_text(handover.model_dump_json(), "utf-8")


def _existing(
    request: BuildRequest, registry: RegistryClient, key: str
) -> tuple[str | None, Literal["wheels", "sources"]]:
    own = f"{repository_of(request.registry, request.namespace, request.name)}:environment-{key[:40]}"
    for tag, built in ((f"{environments_of(request.registry)}:{key}", "wheels"), (own, "sources")):
        try:
            return f"{tag.rpartition(':')[0]}@{registry.digest(tag)}", "wheels" if built == "wheels" else "sources"
        except StepFailed as failed:
            if failed.reason != RegistryReason.NOT_FOUND:
                raise
    return None, "wheels"


def _refuse_absent_base(request: BuildRequest, registry: RegistryClient) -> None:
    """Notice a missing interpreter before minutes of installing."""
    if not registry.exists(request.interpreter.base):
        raise StepFailed(
            RegistryReason.NOT_FOUND,
            f"the platform's interpreter image {request.interpreter.base} is not in its registry: push it again",
        )


def _package(request: BuildRequest, place: Workplace, registry: RegistryClient) -> tuple[str, Package]:
    target = place.handover / "package.zip"
    source = request.source
    if isinstance(source, PackageSource):
        project = _pulled(source, place, registry, target)
        return source.image.rpartition("@")[2], project
    folder = folder_in_repository(source.path)
    if isinstance(source, SvnSource):
        return subversion.write(source, place, target)
    with git.fetched(source, place) as (repository, commit), repository.contents() as contents:
        with step(f"packaging {commit[:12]}"):
            project = package.write_package(
                target,
                repository.files(commit, folder),
                contents.read,
                Provenance(kind="git", commit=commit, path=folder),
                limits=place.limits,
            )
        shutil.rmtree(repository.folder, ignore_errors=True)
    _describe(project)
    return commit, project


def _describe(project: Package) -> None:
    say(f"package: {len(project.manifest.files)} files, {readable(project.size)}, sha256:{project.sha256}")


def _pulled(source: PackageSource, place: Workplace, registry: RegistryClient, target: Path) -> Package:
    repository, _, digest = source.image.rpartition("@")
    if not repository or not digest.startswith("sha256:"):
        raise StepFailed("InvalidSource", "a package is named by its digest: registry/repository@sha256:…")
    with step(f"pulling {source.image}"):
        layers = registry.manifest(source.image).get("layers") or []
        found = [layer for layer in layers if layer.get("mediaType") == package.LAYER_TYPE]
        if len(found) != 1 or len(layers) != 1:
            raise StepFailed(
                "PackageInvalid", f"{source.image} is no package of Slipway: push one with `slipway package --push`"
            )
        if int(found[0].get("size", 0)) > place.limits.project_bytes:
            raise StepFailed("RepositoryTooLarge", f"the package is larger than {readable(place.limits.project_bytes)}")
        target.unlink(missing_ok=True)
        registry.blob_to(f"{repository}@{found[0]['digest']}", target)
        project = package.read_package(target, limits=place.limits)
    _describe(project)
    return project


def _require(request: BuildRequest, project: Package) -> None:
    for path in request.required_files:
        if path not in project.manifest.by_path:
            raise StepFailed(
                "RequiredFileMissing",
                f"the project has no file {path[:200]!a}, which the spec names: commit it or correct the spec",
            )


def run(request: BuildRequest, place: Workplace) -> None:
    """Build what exists only as source. Runs code of others, so nothing here is trusted afterwards."""
    environment = Environment(place=place, interpreter=request.interpreter)
    if not sdists.pending(place):
        say("nothing to build from source")
        return
    sdists.build(environment)
    environment.finish()


def push(request: BuildRequest, place: Workplace) -> Built:
    """Push package, environment, project image and export image."""
    handover, project = _handed_over(place)
    registry = client(request.registry, place)
    repository = repository_of(request.registry, request.namespace, request.name)
    with place.scratch() as scratch, ThreadPoolExecutor(max_workers=2) as beside:
        stack = Stack(registry=registry, place=place, scratch=scratch, repository=repository)
        # Both only wait for the registry, while this thread packs layers.
        artifact = beside.submit(
            push_artifact,
            registry,
            project.artifact(),
            f"{repository}:package-{project.sha256[:20]}",
            scratch / "package",
        )
        tools = beside.submit(stack.tools, request.interpreter.tools)
        environment = handover.environment or _push_environment(request, place, stack, handover)
        with step("pushing the project's image"):
            name = short(environment.rpartition("@")[2], project.sha256)
            with _still_there(environment, registry, reused=handover.environment is not None):
                image = stack.project(environment, project, f"{repository}:project-{name}")
            export = stack.export(f"{repository}@{image}", tools.result(), f"{repository}:export-{name}")
        return Built(
            commit=handover.commit,
            package=artifact.result(),
            lock=handover.lock,
            environment=environment.rpartition("@")[2],
            image=image,
            export_image=export,
            reused=handover.environment is not None,
        )


@contextmanager
def _still_there(environment: str, registry: RegistryClient, *, reused: bool) -> Iterator[None]:
    """Notice an environment that was found and then cleaned up, as its last user went: it is made again."""
    gone = StepFailed(
        "EnvironmentMissing", "the environment was removed from the registry during the build: build again", retry=True
    )
    try:
        yield
    except StepFailed as failed:
        if reused and failed.reason == RegistryReason.NOT_FOUND and not registry.exists(environment):
            raise gone from None
        raise
    if reused and not registry.exists(environment):
        raise gone


def _push_environment(request: BuildRequest, place: Workplace, stack: Stack, handover: Handover) -> str:
    shared = handover.built == "wheels"
    target = (
        f"{environments_of(request.registry)}:{handover.key}"
        if shared
        else f"{stack.repository}:environment-{handover.key[:40]}"
    )
    try:
        tree = untrusted.folder(place.work, rootfs(place).relative_to(place.work).as_posix())
    except untrusted.NotThere:
        raise StepFailed("EnvironmentMissing", "the environment is gone from the Job's volume: build again") from None
    digest = stack.environment(request.interpreter.base, tree, target)
    return f"{target.rpartition(':')[0]}@{digest}"


def _handed_over(place: Workplace) -> tuple[Handover, Package]:
    try:
        text = (place.handover / "handover.json").read_bytes()[:_HANDOVER_BYTES]
        handover = Handover.model_validate_json(text)
    except (OSError, ValidationError):
        raise StepFailed("HandoverMissing", "the container fetch left no result: see its log", retry=True) from None
    project = package.read_package(place.handover / "package.zip", limits=place.limits)
    if project.sha256 != handover.package:
        raise StepFailed("PackageInvalid", "the package changed between two containers: build again", retry=True)
    return handover, project
