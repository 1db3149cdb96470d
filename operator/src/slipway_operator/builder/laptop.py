"""The package of a folder on somebody's machine: the bytes that a build in the cluster makes.

In a clone of a Git repository whose files are as committed, the commit's objects are read,
as the cluster does. What is edited is packaged only when asked for, under a commit that
says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from slipway_operator.builder import folder, names
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.git import Repository
from slipway_operator.builder.package import Found, Package, Provenance, write_package
from slipway_operator.builder.programs import Program
from slipway_operator.builder.workplace import Limits

_SECONDS = 120
_SHOWN = 5


def package_folder(root: Path, target: Path, *, dirty: bool = False, limits: Limits | None = None) -> Package:
    """Package a project's folder.

    Args:
        root: The project; in a Git repository it may be below its root.
        target: The zip file to write.
        dirty: Take the tracked files as they lie in the folder, edited or not.
        limits: What is too large.

    Raises:
        StepFailed: ``TreeDirty``, or what a build in the cluster would refuse.
    """
    bounds = limits or Limits()
    if not root.is_dir():
        raise StepFailed("PathNotFound", f"{root} is no folder: name the project's folder")
    clone = _clone(root.resolve())
    if clone is None:
        found = folder.files(root, left_out=folder.LEFT_OUT)
        own = target.resolve()
        found = [file for file in found if (root / file.path).resolve() != own]
        return write_package(
            target, found, folder.reader(root), Provenance(kind="folder", commit="none"), limits=bounds
        )
    return clone.package(target, dirty=dirty, limits=bounds)


class _Clone:
    """A folder in the work tree of a Git repository."""

    def __init__(self, root: Path, top: Path, repository: Repository) -> None:
        self._root = root
        self._repository = repository
        self._inside = root.relative_to(top).as_posix()

    def package(self, target: Path, *, dirty: bool, limits: Limits) -> Package:
        commit = self._repository.commit_of("HEAD")
        if commit is None:
            raise StepFailed("TreeDirty", "the repository has no commit yet: commit the project's files")
        edited = self._edited()
        if not edited and not dirty:
            source = Provenance(kind="git", commit=commit, path=self._inside)
            with self._repository.contents() as contents:
                found = self._repository.files(commit, self._inside)
                return write_package(target, found, contents.read, source, limits=limits)
        if not dirty:
            shown = ", ".join(ascii(name[:80]) for name in edited[:_SHOWN])
            more = f" and {len(edited) - _SHOWN} more" if len(edited) > _SHOWN else ""
            raise StepFailed(
                "TreeDirty",
                f"these files are not as committed: {shown}{more}. Commit them, or package them as they are: --dirty",
            )
        source = Provenance(kind="git", commit=f"dirty-{commit}", path=self._inside)
        return write_package(target, self._tracked(), folder.reader(self._root), source, limits=limits)

    def _edited(self) -> list[str]:
        # Untracked files are no part of a commit, so they do not make a tree dirty.
        out = self._git("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames", "--", ".")
        return [names.decoded(record[3:]) for record in out.split(b"\x00") if record]

    def _tracked(self) -> list[Found]:
        listed = {record for record in self._git("ls-files", "-z", "--cached", "--", ".").split(b"\x00") if record}
        root = os.fsencode(self._root) + b"/"
        # A tracked file that is deleted in the tree is deleted.
        return [folder.found(root + path, path) for path in sorted(listed) if os.path.lexists(root + path)]

    def _git(self, *arguments: str) -> bytes:
        said = Program(
            command=["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments],
            variables=self._repository.variables,
            folder=self._root,
            seconds=_SECONDS,
        ).run()
        if said.code != 0:
            raise StepFailed("SourceRefused", f"git {arguments[0]} failed: {said.errors.strip()[:300]}")
        return said.out


def _clone(root: Path) -> _Clone | None:
    variables = _variables(os.environ)
    try:
        said = Program(
            command=["git", "rev-parse", "--show-toplevel", "--absolute-git-dir"],
            variables=variables,
            folder=root,
            seconds=_SECONDS,
        ).run()
    except FileNotFoundError:
        if any((parent / ".git").exists() for parent in (root, *root.parents)):
            raise StepFailed("GitMissing", "the folder is a Git repository: install git") from None
        return None
    if said.code != 0:
        if "dubious ownership" in said.errors:
            raise StepFailed("SourceRefused", said.errors.strip()[:400])
        return None
    top, store = os.fsdecode(said.out).splitlines()
    inside = Program(
        command=["git", "check-ignore", "--quiet", "--", "."], variables=variables, folder=root, seconds=_SECONDS
    ).run()
    if inside.code == 0:
        # An ignored folder inside somebody's repository is a project of its own.
        return None
    return _Clone(root, Path(top).resolve(), Repository(folder=Path(store), variables=variables))


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Our environment for git, without what would point it at another repository."""
    return {
        **{name: value for name, value in environment.items() if not name.startswith("GIT_")},
        "LC_ALL": "C.UTF-8",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }
