"""What a spec asks for, in the terms of the platform: source, lock, interpreter, and the part that decides.

The deciding part of a spec is what makes a content; times, sizes and Secrets are not in
it, so that a change of them makes nothing anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from slipway_operator.api import ModelDeploymentSpec
from slipway_operator.domain.digests import sha256_of, short_of
from slipway_operator.domain.errors import Blocked
from slipway_operator.domain.reasons import Reason
from slipway_operator.domain.requests import (
    GitSource,
    Interpreter,
    Lock,
    PackageList,
    PackageSource,
    ProjectLock,
    Source,
    SvnSource,
)
from slipway_operator.domain.settings import PublishedList, Settings
from slipway_operator.plan.observed import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the platform offers for a spec."""

    interpreter: Interpreter
    lock: Lock
    package_list: PublishedList | None = None


def parse_spec(resource: Manifest) -> ModelDeploymentSpec:
    """The spec of a ModelDeployment.

    Raises:
        Blocked: the spec is not one that this operator understands.
    """
    try:
        return ModelDeploymentSpec.model_validate(resource.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise Blocked(Reason.INVALID_SPEC, f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def source_of(spec: ModelDeploymentSpec, *, commit: str | None = None) -> Source:
    """The source as a Job is asked for it, at an exact commit where that is known."""
    chosen = spec.source
    if chosen.git is not None:
        return GitSource(url=chosen.git.url, ref=chosen.git.ref, commit=commit, path=chosen.git.path)
    if chosen.svn is not None:
        revision = commit.removeprefix("r") if commit is not None else chosen.svn.revision
        return SvnSource(url=chosen.svn.url, revision=revision, path=chosen.svn.path)
    if chosen.package is not None:
        return PackageSource(image=chosen.package.image)
    raise Blocked(Reason.INVALID_SPEC, "spec.source: set exactly one of git, svn and package")


def source_secret(spec: ModelDeploymentSpec) -> str | None:
    """Name of the Secret that opens the source."""
    chosen = spec.source.git or spec.source.svn
    return chosen.secret_name if chosen is not None else None


def ref_of_source(spec: ModelDeploymentSpec) -> str:
    """The ref, revision or digest that the spec names, for people."""
    chosen = spec.source
    if chosen.git is not None:
        return chosen.git.ref
    if chosen.svn is not None:
        return chosen.svn.revision
    return chosen.package.image.rpartition("@")[2] if chosen.package is not None else ""


def follow_seconds_text(spec: ModelDeploymentSpec) -> str | None:
    """The interval of ``follow``, where the source is followed."""
    git = spec.source.git
    return git.follow.interval if git is not None and git.follow is not None else None


def platform_for(spec: ModelDeploymentSpec, settings: Settings) -> Platform:
    """Interpreter and lock for a spec.

    Raises:
        Blocked: the platform does not offer what the spec names.
    """
    wanted = spec.environment
    if wanted.package_list is None:
        interpreter = _interpreter(wanted.python, settings)
        return Platform(interpreter=interpreter, lock=ProjectLock(lock_file=wanted.effective_lock_file))
    named = wanted.package_list
    published = next(
        (p for p in settings.package_lists if (p.name, p.version) == (named.name, named.version)),
        None,
    )
    if published is None:
        offered = ", ".join(f"{p.name} {p.version}" for p in settings.package_lists) or "none"
        raise Blocked(
            Reason.PACKAGE_LIST_NOT_FOUND,
            f"spec.environment.packageList: the platform publishes no list {named.name} {named.version}; "
            f"it publishes: {offered}",
        )
    if wanted.python is not None and wanted.python != published.python:
        raise Blocked(
            Reason.INTERPRETER_NOT_OFFERED,
            f"spec.environment.python: package list {named.name} {named.version} is for Python {published.python}, "
            f"not {wanted.python}; leave python out or choose another list",
        )
    return Platform(
        interpreter=_interpreter(published.python, settings),
        lock=PackageList(name=published.name, version=published.version),
        package_list=published,
    )


def deciding_part(spec: ModelDeploymentSpec) -> dict[str, Any]:
    """The part of a spec that decides on a content.

    Without defaults: a field that a later release adds does not make old entries differ.
    """
    source = spec.source.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    for kind in source.values():
        for field in ("secretName", "follow"):
            kind.pop(field, None)
    part: dict[str, Any] = {
        "source": source,
        "environment": spec.environment.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
        ),
        "model": spec.model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
        "export": spec.export.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }
    part["export"].pop("timeout", None)
    train = part["model"].get("train")
    if train is not None:
        for field in ("timeout", "resources"):
            train.pop(field, None)
    return part


def source_key(namespace: str, name: str, spec: ModelDeploymentSpec) -> str:
    """Names the source as the spec has it, of one owner: a commit that was found for it counts as long as it stands."""
    return short_of([namespace, name, deciding_part(spec)["source"]])


def list_digest(platform: Platform) -> str | None:
    """Digest of the package list's text, as it may be published anew under its old name."""
    return sha256_of(platform.package_list.requirements) if platform.package_list is not None else None


def _interpreter(python: str | None, settings: Settings) -> Interpreter:
    if python is None:
        return settings.interpreters[0]
    for interpreter in settings.interpreters:
        if interpreter.python == python:
            return interpreter
    offered = ", ".join(i.python for i in settings.interpreters)
    raise Blocked(
        Reason.INTERPRETER_NOT_OFFERED,
        f"spec.environment.python: the platform offers {offered}, not {python}",
    )
