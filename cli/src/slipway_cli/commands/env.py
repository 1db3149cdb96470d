"""``env``: the environment that a content was trained and exported in, on this machine, from the same lock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from slipway_cli import screen
from slipway_cli.artifacts import Artifacts, pick
from slipway_cli.options import HERE, SAME_REGISTRY, Flag, RegistryOptions, Revision, Where
from slipway_cli.problem import Problem
from slipway_cli.session import Manifest, Session

if TYPE_CHECKING:
    from slipway_operator.builder.lockfiles import Locked
    from slipway_operator.builder.programs import Said
    from slipway_operator.builder.workplace import Workplace

_SECONDS = 1800


def env(  # noqa: PLR0913 - one for each option of the command line
    name: str,
    /,
    *,
    revision: Revision = "live",
    to: Path | None = None,
    python: str | None = None,
    code: Annotated[bool, Flag] = False,
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> None:
    """Make the environment of a revision.

    Packages come from the index in UV_DEFAULT_INDEX or, without it, from those that the lock file names;
    each file is checked against the lock's hash, so that it is what production installed.

    Parameters
    ----------
    name
        The deployment.
    to
        Folder; without it, <name>-<revision>. The environment is .venv in it.
    python
        Another interpreter than production's, such as 3.12 or a path.
    code
        Write the project's files to the folder too, as they were packaged.
    """
    if shutil.which("uv") is None:
        raise Problem("the program uv is not on the PATH: install it (https://docs.astral.sh/uv)")
    session, entry, artifacts, folder = pick(name, revision, to=to, registry=registry, where=where)
    produced = str((artifacts.model_file("signature.json").get("producer") or {}).get("python") or "")
    wanted = python or ".".join(produced.split(".")[:2]) or str(_environment(entry).get("python") or "3.11")
    with _place(session, name) as place:
        interpreter = Path(_uv(place, "python", "find", wanted).out.decode().strip())
        locked = _locked(artifacts, entry, place, interpreter, folder if code else None)
        venv = folder / ".venv"
        folder.mkdir(parents=True, exist_ok=True)
        _uv(place, "venv", "--quiet", "--allow-existing", "--python", os.fspath(interpreter), os.fspath(venv))
        _install(place, locked, venv)
        here = _uv(place, "python", "find", "--show-version", os.fspath(venv)).out.decode().strip()
    screen.say(f"{venv}: {len(locked.requirements.packages)} packages of {locked.shown}, Python {here}")
    screen.say(f"as revision {entry['number']} of {name} (content {artifacts.content}), trained with Python {produced}")
    if produced and here != produced:
        screen.say(f"production has Python {produced}: the packages are the same, the interpreter's patch is not")
    screen.say(f"activate it: source {venv}/bin/activate")


def _environment(entry: Manifest) -> Manifest:
    found: Manifest = (entry.get("spec") or {}).get("environment") or {}
    return found


@contextmanager
def _place(session: Session, name: str) -> Iterator[Workplace]:
    """The builder's folders on this machine, with the package list that the platform handed to the deployment."""
    from slipway_operator.builder.workplace import Workplace

    with TemporaryDirectory(prefix="slipway-") as scratch:
        root = Path(scratch)
        for folder in ("work", "settings"):
            (root / folder).mkdir()
        given = session.find(session.path("v1/configmaps", f"{name}-build"))
        packages = ((given or {}).get("data") or {}).get("package-list.txt")
        if packages is not None:
            (root / "settings" / "package-list.txt").write_text(packages, "utf-8")
        yield Workplace(
            work=root / "work",
            handover=root / "work",
            settings=root / "settings",
            secrets=root / "secrets",
            variables=dict(os.environ),
        )


def _locked(
    artifacts: Artifacts, entry: Manifest, place: Workplace, interpreter: Path, unpack_to: Path | None
) -> Locked:
    """What the lock file of the package says, read as the build read it."""
    from slipway_operator.builder import package
    from slipway_operator.builder.lockfiles import read_lock
    from slipway_operator.domain.requests import PackageList, ProjectLock

    environment = _environment(entry)
    chosen = environment.get("packageList") or {}
    lock = (
        PackageList(name=str(chosen.get("name")), version=str(chosen.get("version")))
        if environment.get("isolation") == "Common"
        else ProjectLock(lock_file=environment.get("lockFile") or "uv.lock")
    )
    with artifacts.package() as found:
        locked = read_lock(lock, found, place, python=interpreter)
        if unpack_to is not None:
            if unpack_to.exists() and any(unpack_to.iterdir()):
                raise Problem(f"{unpack_to} is not empty: name a new folder with --to, or leave --code out")
            if unpack_to.exists():
                unpack_to.rmdir()
            package.unpack(found, unpack_to)
    promised = str(artifacts.digests.get("lock", "")).removeprefix("sha256:")
    if promised and locked.sha256 != promised:
        raise Problem(
            f"{locked.shown} has changed since revision {entry['number']} was built "
            f"(sha256:{locked.sha256[:12]}…, then sha256:{promised[:12]}…): the same environment cannot be made from it"
        )
    return locked


def _install(place: Workplace, locked: Locked, venv: Path) -> None:
    from slipway_operator.builder.environment import index_access

    listed = place.work / "requirements.txt"
    listed.write_text(locked.requirements.text(), "utf-8")
    with index_access(place, locked.requirements) as (options, variables):
        arguments = ["pip", "sync", "--require-hashes", *options, "--python", os.fspath(venv), os.fspath(listed)]
        _uv(place, *arguments, variables=variables)


def _uv(place: Workplace, *arguments: str, variables: dict[str, str] | None = None) -> Said:
    from slipway_operator.builder.programs import Program
    from slipway_operator.builder.sources import last_words

    said = Program(
        command=["uv", "--no-progress", *arguments],
        variables={**place.variables, **(variables or {})},
        seconds=_SECONDS,
    ).run()
    if said.code != 0:
        raise Problem(f"uv {' '.join(arguments[:2])} failed: {last_words(said.errors)}")
    return said
