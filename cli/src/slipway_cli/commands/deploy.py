"""``deploy``: from a folder on this machine to answered predictions, without Git in between."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.commands.status import settle
from slipway_cli.installation import settings
from slipway_cli.observe import read_log
from slipway_cli.options import HERE, SAME_REGISTRY, Flag, RegistryOptions, Where
from slipway_cli.packaging import packaged, repository_and_tag
from slipway_cli.problem import Code, Problem
from slipway_cli.session import FIELD_MANAGER, MODEL_DEPLOYMENTS, ApiError, Manifest, Session
from slipway_cli.views.words import source_words
from slipway_cli.waiting import seconds

_FILES = ("slipway.yaml", "modeldeployment.yaml", "slipway.yml", "modeldeployment.yml")
_SOURCE = ".spec.source."


def deploy(  # noqa: PLR0913 - one for each option of the command line
    folder: Path,
    /,
    *,
    filename: Annotated[Path | None, Parameter(name=["--filename", "-f"])] = None,
    name: str | None = None,
    push: str | None = None,
    dirty: Annotated[bool, Flag] = False,
    force: Annotated[bool, Flag] = False,
    no_wait: Annotated[bool, Flag] = False,
    timeout: str = "30m",
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> int:
    """Deploy a folder.

    Parameters
    ----------
    folder
        The project. In a Git repository the files of HEAD are taken.
    filename
        The ModelDeployment; without it, slipway.yaml or modeldeployment.yaml of the folder.
        Its source is replaced by the package.
    name
        Name of the ModelDeployment, instead of the file's.
    push
        Repository for the package (registry/name), as the cluster reaches it;
        without it, that of the deployment in the platform's registry.
    dirty
        Take edited files as they are.
    force
        Take over fields that somebody else manages, such as a source in Git that a GitOps tool applies.
    no_wait
        Only apply; do not wait for what becomes of it.
    timeout
        How long to wait, such as 90s, 10m or 1h30m.
    """
    limit = seconds(timeout, "--timeout")
    manifest = _manifest(folder, filename)
    session = Session.open(where)
    chosen = name or str((manifest.get("metadata") or {}).get("name") or "")
    if not chosen:
        raise Problem("the ModelDeployment has no name: write metadata.name, or say --name")
    inside = (manifest.get("metadata") or {}).get("namespace")
    if inside and not where.namespace:
        session.namespace = str(inside)
    present = session.find(session.path(MODEL_DEPLOYMENTS, chosen))
    if present is not None and not force:
        _refuse_foreign_source(chosen, present)
    insecure, reach, call = _repository(session, chosen, push, registry)
    with packaged(folder, dirty=dirty) as made:
        source = made.package.manifest.source
        screen.say(f"packaged {folder}: {len(made.package.manifest.files)} files, commit {source.commit}")
        made.push(reach, insecure=insecure)
        image = f"{call}@{made.digest}"
    screen.say(f"pushed {image}")
    applied = _apply(session, chosen, manifest, image, present, force=force)
    screen.say(f"applied ModelDeployment {session.namespace}/{chosen}, generation {applied['metadata']['generation']}")
    if no_wait:
        return Code.OK
    ended = settle(session, chosen, limit)
    screen.say(f"{chosen}: {ended.sentence}")
    live = (ended.resource.get("status") or {}).get("live") or {}
    if ended.code is Code.OK and live:
        screen.say(f"revision {live.get('revision')} answers, content {live.get('content')}")
    return ended.code


def _manifest(folder: Path, filename: Path | None) -> Manifest:
    import yaml

    if not folder.is_dir():
        raise Problem(f"{folder} is no folder: name the project's folder")
    path = filename or next((folder / file for file in _FILES if (folder / file).is_file()), None)
    if path is None:
        raise Problem(f"{folder} has no {' or '.join(_FILES[:2])}: write the ModelDeployment there, or name it with -f")
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Problem(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from None
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == "ModelDeployment"]
    if len(found) != 1:
        raise Problem(f"{path} holds {len(found)} ModelDeployments: it must be one")
    return found[0]


def _refuse_foreign_source(name: str, present: Manifest) -> None:
    """A source in Git that somebody else applies would come back at his next sync."""
    spec = present.get("spec") or {}
    if "package" in (spec.get("source") or {}):
        return
    managers = sorted(
        {
            str(field.get("manager"))
            for field in present["metadata"].get("managedFields") or ()
            if "f:source" in ((field.get("fieldsV1") or {}).get("f:spec") or {})
            and field.get("manager") != FIELD_MANAGER
        }
    )
    written = f" (written by {', '.join(managers)})" if managers else ""
    raise Problem(
        f"{name} takes its project from {source_words(spec)}{written}: "
        "push a commit there, or say --force to replace the source by this folder's package"
    )


def _repository(session: Session, name: str, push: str | None, options: RegistryOptions) -> tuple[bool, str, str]:
    """Whether plain HTTP is fine, the repository as this machine reaches it, and as the cluster calls it."""
    if push is not None:
        repository, tag = repository_and_tag(push)
        if tag:
            raise Problem("--push names a repository without a tag: a package goes by its digest", code=Code.USAGE)
        return options.insecure, repository, repository
    known = (settings(session) or {}).get("registry") or {}
    entries = read_log(session, name)
    if known.get("prefix"):
        call = f"{str(known['prefix']).rstrip('/')}/{session.namespace}/{name}"
    elif entries and entries[-1].get("repository"):
        call = str(entries[-1]["repository"])
    else:
        raise Problem("you may not read in which registry this platform keeps things: name a repository with --push")
    reach = f"{options.registry.rstrip('/')}/{session.namespace}/{name}" if options.registry else call
    return options.insecure or bool(known.get("insecure")), reach, call


def _apply(  # noqa: PLR0913 - all that an apply is about
    session: Session, name: str, manifest: Mapping[str, Any], image: str, present: Manifest | None, *, force: bool
) -> Manifest:
    path = session.path(MODEL_DEPLOYMENTS, name)
    meta = {k: v for k, v in (manifest.get("metadata") or {}).items() if k in {"labels", "annotations"}}
    wanted = {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {**meta, "name": name, "namespace": session.namespace},
        "spec": {**(manifest.get("spec") or {}), "source": {"package": {"image": image}}},
    }
    if present is not None and "package" not in ((present.get("spec") or {}).get("source") or {}):
        # Exactly one source is allowed, and an apply cannot take out what others set: so that first, at once.
        session.merge(path, {"spec": {"source": {"git": None, "svn": None, "package": {"image": image}}}})
    try:
        return session.apply(path, wanted, force=force)
    except ApiError as error:
        if error.status != 409:
            raise
        if error.conflicts and all(
            manager == FIELD_MANAGER and field.startswith(_SOURCE) for manager, field in error.conflicts
        ):
            # The source that the patch of an earlier `deploy --force` wrote: ours too, and not by an apply.
            return session.apply(path, wanted, force=True)
        raise Problem(f"somebody else manages some of these fields; --force takes them over: {error.message}") from None
