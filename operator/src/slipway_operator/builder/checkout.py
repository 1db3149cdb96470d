"""Projects on a laptop, for ``slipway package``: a Git checkout, or a plain folder.

Of a checkout the files of its commit are taken, by the code that a build in the cluster
uses, so both make the same bytes. What lies in the folder only counts where the user asks
for it, and the package says so then (``dirty-<commit>``).

Neighbours: `git` reads commits, `folder` reads disks, `package` takes what is found here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slipway_operator.builder import folder as disk
from slipway_operator.builder import names
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.git import Repository
from slipway_operator.builder.package import Found, Provenance
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.sources import SourceReason, last_words

# What a hook or another git sets to lead a git elsewhere; the folder alone decides here.
_ELSEWHERE = frozenset(
    {
        "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE",
    }
)  # fmt: skip
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Project:
    """What of a folder is to be packaged.

    Attributes:
        files: The files.
        read: Gives the bytes of one.
        source: What the package says of its origin.
        untracked: Paths of files that Git does not know and does not ignore, which are left out.
    """

    files: Sequence[Found]
    read: Callable[[Found], Iterable[bytes]]
    source: Provenance
    untracked: Sequence[str] = ()


@contextmanager
def opened(
    root: Path, *, dirty: bool = False, but: Path | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Project]:
    """Find the files of a project on this machine.

    Args:
        root: The project's folder.
        dirty: Take the files as they are on disk, whatever is committed.
        but: A file that is left out: the package itself.
        variables: Environment for git; None: our own.

    Raises:
        StepFailed: ``NoFolder``, ``UncommittedChanges``, ``NothingCommitted``, ``GitMissing``,
            ``GitRefused``, or what `Repository.files` and `folder.files` find.
    """
    if not root.is_dir():
        raise StepFailed("NoFolder", f"there is no folder {os.fspath(root)!a}: name the project's folder")
    checkout = _checkout(root, os.environ if variables is None else variables)
    if checkout is None:
        yield _plain(root, but)
    elif dirty:
        yield checkout.as_it_is(but)
    else:
        with checkout.as_committed(but) as project:
            yield project


def _plain(root: Path, but: Path | None) -> Project:
    found = disk.files(root, left_out=disk.LEFT_OUT)
    kept = [file for file in found if not disk.is_litter(file.path) and not _is(root, file.path, but)]
    return Project(files=kept, read=disk.reader(root), source=Provenance(kind="folder", commit="none"))


def _is(root: Path, path: str, other: Path | None) -> bool:
    return other is not None and (root / path).absolute() == other.absolute()


@dataclass(frozen=True, kw_only=True)
class _Checkout:
    """A folder in the work tree of a Git repository.

    Attributes:
        root: The folder.
        inside: Its path in the repository, ``.`` at the top.
        repository: The repository's objects.
        commit: What is checked out, None before the first commit.
    """

    root: Path
    inside: str
    repository: Repository
    commit: str | None = field(default=None)

    @contextmanager
    def as_committed(self, but: Path | None) -> Iterator[Project]:
        changed, untracked = self._status()
        if changed:
            raise StepFailed(
                "UncommittedChanges",
                f"{_some(changed)} changed since the last commit: commit, "
                "or package the files as they are on disk with --dirty",
            )
        try:
            files = self.repository.files(self.commit, self.inside) if self.commit else []
        except StepFailed as failed:
            if failed.reason != SourceReason.PATH_NOT_FOUND:
                raise
            files = []
        if not files or self.commit is None:
            raise StepFailed(
                "NothingCommitted",
                "Git has no file of this folder: add and commit its files, "
                "or package them as they are on disk with --dirty",
            )
        left_out = [path for path in untracked if not _is(self.root, path, but)]
        with self.repository.contents() as contents:
            yield Project(
                files=files,
                read=contents.read,
                source=Provenance(kind="git", commit=self.commit, path=self.inside),
                untracked=left_out,
            )

    def as_it_is(self, but: Path | None) -> Project:
        said = self._run("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
        files: list[Found] = []
        for raw in said.out.split(b"\x00"):
            files += self._on_disk(raw.rstrip(b"/"))
        return Project(
            files=[file for file in files if not _is(self.root, file.path, but)],
            read=disk.reader(self.root),
            source=Provenance(kind="git", commit=f"dirty-{self.commit or 'none'}", path=self.inside),
        )

    def _on_disk(self, raw: bytes) -> list[Found]:
        where = os.path.join(os.fsencode(self.root), raw)  # noqa: PTH118  # a name need not be text
        if not raw or not os.path.lexists(where):
            # Deleted, and not committed yet.
            return []
        if os.path.isdir(where) and not os.path.islink(where):  # noqa: PTH112, PTH114  # as above
            # A submodule or a repository in the repository: Git lists it as one entry.
            prefix = names.decoded(raw)
            inner = disk.files(self.root / prefix, left_out=disk.LEFT_OUT)
            return [
                Found(path=f"{prefix}/{file.path}", kind=file.kind, size=file.size)
                for file in inner
                if not disk.is_litter(file.path)
            ]
        return [disk.found(where, raw)]

    def _status(self) -> tuple[list[str], list[str]]:
        said = self._run("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", ".")
        changed: list[str] = []
        untracked: list[str] = []
        top = "" if self.inside == "." else f"{self.inside}/"
        for record in said.out.split(b"\x00"):
            if record:
                path = record[3:].decode("utf-8", "backslashreplace").removeprefix(top)
                (untracked if record.startswith(b"??") else changed).append(path)
        return changed, untracked

    def _run(self, *arguments: str) -> Said:
        said = _git(self.root, self.repository.variables, *arguments)
        if said.code != 0:
            raise _refused(said)
        return said


def _checkout(root: Path, variables: Mapping[str, str]) -> _Checkout | None:
    """The checkout that a folder lies in, None outside Git."""
    clean = {name: value for name, value in variables.items() if name not in _ELSEWHERE} | {
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        # A commit means its own files here as it does in the cluster.
        "GIT_NO_REPLACE_OBJECTS": "1",
    }
    try:
        said = _git(root, clean, "rev-parse", "--absolute-git-dir", "--is-inside-work-tree", "--show-prefix")
    except FileNotFoundError:
        if any((folder / ".git").exists() for folder in (root.absolute(), *root.absolute().parents)):
            raise StepFailed(
                "GitMissing", "the folder is a Git checkout, and there is no git to read it: install git"
            ) from None
        return None
    if said.code != 0:
        if "not a git repository" in said.errors.lower():
            return None
        raise _refused(said)
    lines = said.out.decode("utf-8", "surrogateescape").split("\n")
    if lines[1] != "true":
        raise StepFailed("GitRefused", "the folder is a repository without a work tree: clone it and name the clone")
    repository = Repository(folder=Path(lines[0]), variables=clean)
    inside = lines[2].rstrip("/") or "."
    return _Checkout(root=root, inside=inside, repository=repository, commit=repository.commit_of("HEAD"))


def _git(root: Path, variables: Mapping[str, str], *arguments: str) -> Said:
    return Program(
        command=["git", "-c", "core.fsmonitor=false", *arguments], variables=variables, folder=root, seconds=300
    ).run()


def _refused(said: Said) -> StepFailed:
    if "dubious ownership" in said.errors.lower():
        return StepFailed(
            "GitRefused",
            "the checkout belongs to another user, so Git does not read it: "
            "allow it with `git config --global --add safe.directory FOLDER`",
        )
    return StepFailed("GitRefused", f"git could not read the checkout: {last_words(said.errors)}")


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(ascii(path[:80]) for path in paths[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"
