"""Projects in Git: an exact commit's files, straight from its objects.

Nothing is checked out. Files are read as the blobs that the commit names, so no hook,
filter, attribute, line-end conversion or file system takes part, and a laptop's clone
gives the same bytes as a fetch in the cluster.

Neighbours: `credentials` opens private repositories; `package` takes what is found here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway_operator.builder import names
from slipway_operator.builder.credentials import git_access
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Found, Kind
from slipway_operator.builder.programs import Program, Said, end
from slipway_operator.builder.progress import readable, step
from slipway_operator.builder.sources import (
    Address,
    Fault,
    SourceReason,
    address,
    folder_in_repository,
    named,
    size_below,
)
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import GitSource

SCHEMES = frozenset({"https", "http", "ssh", "git"})

_COMMIT = re.compile(r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")
_SHORT = re.compile(r"^[0-9a-f]{4,63}$")
_REF = re.compile(r"^[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*$")
_FETCHED = "refs/slipway/fetched"
_RESOLVE_SECONDS = 60
_CHUNK = 1 << 20

_OPTIONS = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "protocol.version=2",
    "-c", "http.lowSpeedLimit=1000",
    "-c", "http.lowSpeedTime=60",
    "-c", "submodule.recurse=false",
)  # fmt: skip


def _fault(pattern: str, reason: SourceReason, advice: str, *, retry: bool = False) -> Fault:
    return Fault(pattern=re.compile(pattern), reason=reason, advice=advice, retry=retry)


FAULTS: tuple[Fault, ...] = (
    _fault(
        r"could not resolve host|name or service not known|no address associated|temporary failure in name|"
        r"unable to look up|nodename nor servname|couldn't resolve|could not resolve proxy",
        SourceReason.HOST_UNKNOWN,
        "no such host; correct the source's url, or let the cluster's DNS know the name",
    ),
    _fault(
        r"host key verification failed|no [a-z0-9-]+ host key is known|remote host identification has changed",
        SourceReason.HOST_KEY_MISSING,
        "the server's host key is not among the Secret's; put the line of `ssh-keyscan HOST`, "
        "compared with what its operator publishes, into the Secret's key known_hosts",
    ),
    _fault(
        r"does not match target host|no alternative certificate subject name|host(?:name)? mismatch",
        SourceReason.NOT_TRUSTED,
        "its certificate is for another host; use the name that it has in the source's url",
    ),
    _fault(
        r"server certificate verification failed|certificate verify failed|ssl certificate problem|"
        r"self-signed certificate|self signed certificate|unable to get local issuer",
        SourceReason.NOT_TRUSTED,
        "its certificate is signed by nobody we trust; put its authority into the Secret's key ca.crt "
        "or into the platform's caBundle",
    ),
    _fault(
        r"authentication failed|permission denied \(|could not read username|could not read password|"
        r"error: 403|error: 401|access denied(?! or repository)|permission to .* denied|terminal prompts disabled|"
        r"not authorized|load key|error in libcrypto",
        SourceReason.ACCESS_DENIED,
        "it lets nobody in without the right credentials; name a Secret in the source's secretName "
        "whose user may read the repository",
    ),
    _fault(
        r"couldn't find remote ref|remote ref does not exist|not our ref|no such remote ref|"
        r"unadvertised object|bad object|not a valid object name|did not match any",
        SourceReason.REF_NOT_FOUND,
        "it has no such branch, tag or commit; push it, or correct the source's ref",
    ),
    _fault(
        r"repository .* not found|repository not found|does not appear to be a git repository|not found: did you run|"
        r"access denied or repository not exported|no such file or directory|error: 404|not exported|"
        r"project .* (could not be|not) found|not valid: is this a git repository",
        SourceReason.REPOSITORY_NOT_FOUND,
        "no such repository, or it is private and no Secret is named; correct the source's url or name a secretName",
    ),
    _fault(
        r"early eof|connection refused|connection timed out|operation timed out|connection reset|unexpected disconnect|"
        r"hung up unexpectedly|network is unreachable|no route to host|error: 5\d\d|error: 429|failed to connect|"
        r"operation too slow|transfer closed|rpc failed|connection closed by|timed out|empty reply",
        SourceReason.UNAVAILABLE,
        "it does not answer; it is tried again by itself",
        retry=True,
    ),
    _fault(
        r"no space left on device|disk quota exceeded",
        SourceReason.TOO_LARGE,
        "it does not fit on the Job's volume; commit less, or raise jobs.workVolumeLimit of the platform",
    ),
    _fault(
        r"transport '.*' not allowed",
        SourceReason.INVALID,
        "it leads to a protocol that is not allowed; use https://, ssh:// or git:// of the repository itself",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Objects of a repository on this machine.

    Attributes:
        folder: Its git directory.
        variables: Environment of the git that reads it.
    """

    folder: Path
    variables: Mapping[str, str]

    def command(self, *arguments: str) -> list[str]:
        """A git command line on this repository."""
        return ["git", *_OPTIONS, f"--git-dir={self.folder}", *arguments]

    def run(self, *arguments: str, seconds: float = 120) -> Said:
        """Run git without a network."""
        return Program(command=self.command(*arguments), variables=self.variables, seconds=seconds).run()

    def commit_of(self, name: str) -> str | None:
        """Full name of the commit that a name stands for here."""
        said = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return said.out.decode().strip() if said.code == 0 else None

    def files(self, commit: str, path: str) -> list[Found]:
        """The files of a folder at a commit.

        Raises:
            StepFailed: ``PathNotFound``, ``FileNameNotUtf8`` or ``SubmodulesUnsupported``.
        """
        tree = f"{commit}^{{tree}}" if path == "." else f"{commit}:{path}"
        said = self.run("ls-tree", "-r", "-z", "-l", "--full-tree", tree)
        if said.code != 0:
            raise StepFailed(
                SourceReason.PATH_NOT_FOUND,
                f"commit {commit[:12]} has no folder {path[:200]!a}: correct the source's path",
            )
        return [_found(record) for record in said.out.split(b"\x00") if record]

    @contextmanager
    def contents(self) -> Iterator[_Contents]:
        """One git process that hands out the bytes of many objects."""
        with subprocess.Popen(
            self.command("cat-file", "--batch"),
            env=dict(self.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                yield _Contents(process)
            finally:
                end(process)


class _Contents:
    """Reads blobs one after the other from ``git cat-file --batch``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        self._ask, self._answer = process.stdin, process.stdout

    def read(self, found: Found) -> Iterator[bytes]:
        """Bytes of one file."""
        self._ask.write(f"{found.handle}\n".encode())
        self._ask.flush()
        words = self._answer.readline().split()
        if len(words) != 3 or words[1] != b"blob":
            raise StepFailed(SourceReason.REFUSED, f"{found.path[:200]!a} is missing among the commit's objects")
        left = int(words[2])
        while left:
            chunk = self._answer.read(min(left, _CHUNK))
            if not chunk:
                raise StepFailed(SourceReason.REFUSED, "git ended while it handed out a file")
            left -= len(chunk)
            yield chunk
        self._answer.read(1)


_KINDS: dict[bytes, Kind] = {b"100644": "file", b"100664": "file", b"100755": "executable", b"120000": "link"}


def _found(record: bytes) -> Found:
    facts, _, raw = record.partition(b"\t")
    mode, _, handle, size = facts.split()
    path = names.decoded(raw)
    if mode == b"160000":
        raise StepFailed(
            "SubmodulesUnsupported",
            f"{path[:200]!a} is a Git submodule: commit its files themselves (git subtree), "
            "or publish a copy of the folder outside Git with `slipway package --push`",
        )
    kind = _KINDS.get(mode)
    if kind is None:
        raise StepFailed("UnsafePath", f"{path[:200]!a} is neither a file nor a link: remove it")
    return Found(path=path, kind=kind, size=int(size), handle=handle.decode())


def check_ref(ref: str) -> str:
    """A ref that git cannot take for anything else, unchanged.

    Raises:
        StepFailed: ``RefNotFound``, as no repository can have it.
    """
    if not _REF.match(ref) or ".." in ref or "@{" in ref or "//" in ref or ref.endswith(("/", ".lock", ".")):
        raise StepFailed(
            SourceReason.REF_NOT_FOUND, f"{ref[:100]!a} is no branch, tag or commit: correct the source's ref"
        )
    return ref


def resolve(source: GitSource, place: Workplace) -> str:
    """The commit that a source's ref names now, without fetching it.

    Raises:
        StepFailed: With one of `SourceReason`.
    """
    where, ref = address(source.url, SCHEMES), check_ref(source.ref)
    if _COMMIT.match(ref):
        return ref
    with place.private_folder() as private, git_access(where, place, private) as variables:
        # In the order in which they count. Where a tag is an object of its own, ^{} is the commit that it stands for.
        wanted = [f"{name}{of}" for name in (f"refs/tags/{ref}", f"refs/heads/{ref}", ref) for of in ("^{}", "")]
        said = Program(
            command=["git", *_OPTIONS, "ls-remote", "--end-of-options", where.url, *wanted],
            variables=variables,
            seconds=_RESOLVE_SECONDS,
            folder=private,
        ).run()
        if said.code != 0:
            raise named(FAULTS, said, where.url)
        lines = (line.partition("\t") for line in said.out.decode("utf-8", "replace").splitlines())
        tips = {name: commit for commit, _, name in lines}
        for name in wanted:
            if name in tips:
                return tips[name]
        if _SHORT.match(ref):
            repository = _empty(private / "short.git", variables)
            return _search(repository, where, ref, place)
    raise _no_ref(where, ref)


def _no_ref(where: Address, ref: str) -> StepFailed:
    return StepFailed(
        SourceReason.REF_NOT_FOUND,
        f"{where.url} has no branch, tag or commit {ref[:100]!a}: push it, or correct the source's ref",
    )


@contextmanager
def fetched(source: GitSource, place: Workplace) -> Iterator[tuple[Repository, str]]:
    """A source's repository with the objects of one commit, and that commit's name.

    Only that commit is asked for; where a server does not hand out commits by name, or the
    name is short, all branches and tags are.

    Raises:
        StepFailed: With one of `SourceReason`.
    """
    where = address(source.url, SCHEMES)
    ref = check_ref(source.commit or source.ref)
    folder_in_repository(source.path)
    with place.private_folder() as private, git_access(where, place, private) as variables:
        store = place.work / ".source.git"
        repository = _empty(store, variables, long=len(ref) == 64 and bool(_COMMIT.match(ref)))
        with step(f"fetching {ref} of {where.url}"):
            commit = _fetch(repository, where, ref, place)
        yield repository, commit


def _fetch(repository: Repository, where: Address, ref: str, place: Workplace) -> str:
    said = _ask(repository, where, place, f"+{ref}:{_FETCHED}", "--depth=1")
    if said.code != 0 and "mismatched algorithms" in said.errors.lower():
        _remove(repository.folder)
        repository = _empty(repository.folder, repository.variables, long=True)
        said = _ask(repository, where, place, f"+{ref}:{_FETCHED}", "--depth=1")
    if said.code == 0:
        commit = repository.commit_of(_FETCHED)
        if commit is None:
            raise StepFailed(
                SourceReason.REF_NOT_FOUND, f"{ref[:100]!a} of {where.url} is no commit: correct the source's ref"
            )
        return commit
    failed = named(FAULTS, said, where.url)
    if failed.reason == SourceReason.REF_NOT_FOUND and (_COMMIT.match(ref) or _SHORT.match(ref)):
        return _search(repository, where, ref, place)
    if failed.reason == SourceReason.REF_NOT_FOUND:
        raise _no_ref(where, ref)
    # Dumb HTTP servers know nothing of depth.
    if "dumb http transport" in said.errors.lower():
        return _search(repository, where, ref, place)
    raise failed


def _search(repository: Repository, where: Address, ref: str, place: Workplace) -> str:
    """Fetch all branches and tags, and look a name up among their commits."""
    said = _ask(repository, where, place, "+refs/heads/*:refs/heads/*", "--tags", "+refs/tags/*:refs/tags/*")
    if said.code != 0:
        raise named(FAULTS, said, where.url)
    commit = repository.commit_of(ref)
    if commit is None:
        raise _no_ref(where, ref)
    return commit


def _ask(repository: Repository, where: Address, place: Workplace, refspec: str, *more: str) -> Said:
    most = place.limits.project_bytes

    def refuse_too_large() -> None:
        if size_below(repository.folder) > most:
            raise StepFailed(
                SourceReason.TOO_LARGE,
                f"{where.url} has more than {readable(most)} at this commit: commit less data, "
                "or publish the project with `slipway package --push`",
            )

    options = [option for option in more if option.startswith("--")]
    refspecs = [refspec, *(option for option in more if not option.startswith("--"))]
    if "--tags" not in options:
        options.append("--no-tags")
    return Program(
        command=repository.command(
            "fetch", "--quiet", "--no-recurse-submodules", "--no-write-fetch-head", *options, "--", where.url, *refspecs
        ),
        variables=repository.variables,
        seconds=place.limits.fetch_seconds,
        watch=refuse_too_large,
    ).run()


def _empty(folder: Path, variables: Mapping[str, str], *, long: bool = False) -> Repository:
    _remove(folder)
    command = ["git", "init", "--quiet", "--bare", "--template=", f"--object-format={'sha256' if long else 'sha1'}"]
    said = Program(command=[*command, os.fspath(folder)], variables=variables, seconds=60).run()
    if said.code != 0:
        raise named(FAULTS, said, "preparing a repository")
    return Repository(folder=folder, variables=variables)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
