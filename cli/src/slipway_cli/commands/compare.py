"""``diff``: two revisions side by side, from the log and from what it names in the registry."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.artifacts import Artifacts, entry_of
from slipway_cli.options import HERE, SAME_REGISTRY, Data, RegistryOptions, Revision, Where
from slipway_cli.problem import Code, Problem
from slipway_cli.session import Manifest, Session
from slipway_cli.views.difference import SECTIONS, Side, compare, lines, metrics_of, versions_of_uv_lock
from slipway_cli.views.overview import short_content
from slipway_operator.builder.errors import StepFailed

_IN_REGISTRY = {"code", "data", "packages", "features", "schema"}


def diff(  # noqa: PLR0913 - one for each option of the command line
    name: str,
    before: Revision = "previous",
    after: Revision = "live",
    /,
    *,
    only: Annotated[str | None, Parameter(help=f"Only these sections, with commas: {', '.join(SECTIONS)}.")] = None,
    output: Data = None,
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> None:
    """Compare two revisions.

    Parameters
    ----------
    name
        The deployment.
    output
        json or yaml for programs.
    """
    sections = _sections(only)
    session = Session.open(where)
    entries = [entry_of(session, name, wanted) for wanted in (before, after)]
    problems: dict[str, None] = {}
    sides = [_side(session, name, entry, sections, registry, problems) for entry in entries]
    found = {section: changes for section, changes in compare(*sides).items() if section in sections}
    if output is not None:
        screen.data(
            {
                "before": entries[0]["number"],
                "after": entries[1]["number"],
                "sections": {
                    section: None if changes is None else [asdict(change) for change in changes]
                    for section, changes in found.items()
                },
                "problems": list(problems),
            },
            output,
        )
        return
    one, other = (f"revision {e['number']} (content {short_content(e)})" for e in entries)
    screen.say(f"{one} → {other}")
    screen.say("\n".join(lines(found, colour=screen.has_colour())))
    for problem in problems:
        screen.tell(f"not all could be compared: {problem}")


def _sections(only: str | None) -> list[str]:
    wanted = [part.strip() for part in only.split(",")] if only else list(SECTIONS)
    unknown = [part for part in wanted if part not in SECTIONS]
    if unknown:
        raise Problem(f"--only {unknown[0]!r} is no section: there are {', '.join(SECTIONS)}", code=Code.USAGE)
    return wanted


def _side(  # noqa: PLR0913, PLR0917 - what one revision needs, used twice
    session: Session,
    name: str,
    entry: Manifest,
    sections: list[str],
    registry: RegistryOptions,
    problems: dict[str, None],
) -> Side:
    spec, metrics = entry.get("spec") or {}, metrics_of(entry)
    files: dict[str, tuple[int, str]] | None = None
    packages: dict[str, str] | None = None
    signature: Manifest | None = None
    if not _IN_REGISTRY & set(sections):
        return Side(spec=spec, metrics=metrics)
    try:
        artifacts = Artifacts.of(session, name, entry, registry)
        if {"features", "schema"} & set(sections):
            signature = artifacts.model_file("signature.json")
        if {"code", "data", "packages"} & set(sections):
            files, packages = _package(artifacts, entry)
    except (Problem, StepFailed) as problem:
        # The log alone still says a lot: a registry that is away takes its sections with it, not the command.
        problems[str(problem.message)] = None
    return Side(spec=spec, files=files, packages=packages, signature=signature, metrics=metrics)


def _package(artifacts: Artifacts, entry: Manifest) -> tuple[dict[str, tuple[int, str]], dict[str, str] | None]:
    from slipway_operator.builder import package, requirements

    environment = (entry.get("spec") or {}).get("environment") or {}
    with artifacts.package() as found:
        files = {file.path: (file.size, file.sha256) for file in found.manifest.files}
        if environment.get("isolation") == "Common":
            # The platform's list: the spec names it, and the section spec shows a change of it.
            chosen = environment.get("packageList") or {}
            return files, {f"the platform's list {chosen.get('name')}": str(chosen.get("version"))}
        lock = environment.get("lockFile") or "uv.lock"
        content = package.text_of(found, lock)
    if content is None:
        return files, None
    text = content.decode("utf-8")
    if lock.endswith("uv.lock"):
        return files, versions_of_uv_lock(tomllib.loads(text))
    locked = (
        requirements.from_pylock(tomllib.loads(text), lock)
        if lock.endswith(".toml")
        else requirements.parse(text, lock)
    )
    return files, {each.name: each.version or each.url for each in locked.packages}
