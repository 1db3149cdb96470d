"""Hash-checked requirements: the one form that every kind of lock file is brought into.

A line names one package at one version with the digests of its files, or one file by its
URL and digest. Order, comments and line breaks of the lock file do not matter, so two
projects with one set of packages have one text, hence one environment.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slipway_operator.builder.errors import StepFailed


class LockReason(StrEnum):
    """What can be wrong with a lock file; each doubles as a condition's reason."""

    MISSING = "LockFileMissing"
    OUTDATED = "LockFileOutdated"
    INVALID = "LockFileInvalid"
    NOT_HASHED = "LockFileNotHashed"
    UNSUPPORTED = "LockFileUnsupported"
    PYTHON_VERSION = "PythonVersionMismatch"
    LIST_MISSING = "PackageListNotFound"


_HASH = re.compile(r"--hash[= ]((?:sha256|sha384|sha512):[0-9a-fA-F]+)")
_NAME = re.compile(
    r"^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[A-Za-z0-9._,\s-]*\])?\s*(==|===|@)\s*(\S+)(.*)$"
)
_IGNORED_OPTIONS = ("--only-binary", "--prefer-binary", "--require-hashes", "--no-binary", "--trusted-host")
_INDEX_OPTIONS = ("--index-url", "--extra-index-url", "-i")


@dataclass(frozen=True, kw_only=True, order=True)
class Requirement:
    """One package of a lock file.

    Attributes:
        name: Normalised as PEP 503 has it.
        version: Empty for a file that is named by its URL.
        url: Empty for a package from an index.
        marker: PEP 508 condition, empty for always.
        hashes: ``sha256:<hex>`` of the files that are accepted, sorted.
    """

    name: str
    version: str = ""
    url: str = ""
    marker: str = ""
    hashes: tuple[str, ...] = ()

    def line(self) -> str:
        """The requirement as a line for ``uv pip install``."""
        what = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        condition = f" ; {self.marker}" if self.marker else ""
        return " ".join([what + condition, *(f"--hash={digest}" for digest in self.hashes)])


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """A lock file's packages.

    Attributes:
        packages: Sorted.
        indexes: Package indexes that the lock file names, that of most packages first.
        files: URLs of single files that the lock file knows, by their ``sha256:<hex>``.
    """

    packages: tuple[Requirement, ...]
    indexes: tuple[str, ...] = ()
    files: Mapping[str, str] | None = None

    def text(self) -> str:
        """All lines; equal for equal sets of packages."""
        return "".join(f"{package.line()}\n" for package in self.packages)

    @property
    def digest(self) -> str:
        """SHA-256 of the text, hex."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def without(self, names: Iterable[str]) -> Requirements:
        """The same without some packages."""
        left_out = {normalised(name) for name in names}
        kept = tuple(package for package in self.packages if package.name not in left_out)
        return Requirements(packages=kept, indexes=self.indexes, files=self.files)


def normalised(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str, where: str) -> Requirements:
    """Read requirements as pip and uv write them.

    Args:
        text: The file.
        where: Its name, for errors.

    Raises:
        StepFailed: ``LockFileNotHashed`` or ``LockFileUnsupported``.
    """
    packages: list[Requirement] = []
    indexes: list[str] = []
    for line in _logical_lines(text):
        option = line.split("=", 1)[0].split()[0]
        if option in _INDEX_OPTIONS:
            indexes.append(line[len(option) :].lstrip("= \t").strip())
        elif option.startswith(_IGNORED_OPTIONS):
            continue
        elif line.startswith("-"):
            raise StepFailed(
                LockReason.UNSUPPORTED,
                f"{where} has the line {line[:100]!a}, which names other files or sources: "
                "write all packages with their hashes into one file (uv pip compile --generate-hashes)",
            )
        else:
            packages.append(_package(line, where))
    return Requirements(packages=tuple(sorted(packages)), indexes=tuple(dict.fromkeys(indexes)))


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text.removeprefix("\ufeff"))
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _package(line: str, where: str) -> Requirement:
    hashes = tuple(sorted({digest.lower() for digest in _HASH.findall(line)}))
    bare = _HASH.sub("", line).strip()
    what, _, marker = bare.partition(" ;") if "@" in bare.partition(";")[0] else bare.partition(";")
    found = _NAME.match(what.strip())
    if bare.startswith((".", "/", "file:")):
        raise _not_a_file(where, ascii(bare[:80]))
    if found is None or (found[3] != "@" and found[5].strip()):
        if not hashes:
            raise _not_hashed(where, bare)
        raise StepFailed(
            LockReason.UNSUPPORTED,
            f"{where} has {bare[:100]!a}, which is no package at one version: lock it again with "
            "uv pip compile --generate-hashes",
        )
    name, url = normalised(found[1]), found[4] if found[3] == "@" else ""
    inline = re.search(r"#sha256=([0-9a-f]{64})", url)
    if inline is not None and not hashes:
        hashes = (f"sha256:{inline[1]}",)
    if url and not url.startswith(("https://", "http://")):
        raise _not_a_file(where, name)
    if not hashes:
        raise _not_hashed(where, bare)
    version = "" if url else found[4]
    return Requirement(name=name, version=version, url=url, marker=" ".join(marker.split()), hashes=hashes)


def _not_hashed(where: str, line: str) -> StepFailed:
    return StepFailed(
        LockReason.NOT_HASHED,
        f"{where} gives no hash for {line[:80]!a}: write the file with "
        "`uv pip compile --generate-hashes pyproject.toml -o requirements.txt`, or use uv.lock",
    )


def _not_a_file(where: str, name: str) -> StepFailed:
    return StepFailed(
        LockReason.UNSUPPORTED,
        f"{where} takes {name} from a repository or a folder, which no hash fixes: "
        "publish it to your package index, or keep its code inside the project",
    )


def from_pylock(value: Mapping[str, Any], where: str) -> Requirements:
    """Read a lock file as PEP 751 specifies it.

    Raises:
        StepFailed: ``LockFileInvalid``, ``LockFileNotHashed`` or ``LockFileUnsupported``.
    """
    packages: list[Requirement] = []
    indexes: list[str] = []
    files: dict[str, str] = {}
    try:
        for package in value.get("packages", ()):
            name = normalised(str(package["name"]))
            if "vcs" in package or "directory" in package:
                raise _not_a_file(where, name)
            archive = package.get("archive")
            artifacts = [archive] if archive else [*package.get("wheels", ()), package.get("sdist")]
            known = {digest: file.get("url", "") for file in artifacts if file for digest in _hashes(file)}
            if not known:
                raise _not_hashed(where, name)
            files |= {digest: url for digest, url in known.items() if url}
            if package.get("index"):
                indexes.append(str(package["index"]))
            packages.append(
                Requirement(
                    name=name,
                    version="" if archive else str(package["version"]),
                    url=str(archive["url"]) if archive else "",
                    marker=" ".join(str(package.get("marker", "")).split()),
                    hashes=tuple(sorted(known)),
                )
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise StepFailed(
            LockReason.INVALID, f"{where} is not a lock file of PEP 751 ({error}): write it again"
        ) from None
    return Requirements(packages=tuple(sorted(packages)), indexes=by_frequency(indexes), files=files)


def by_frequency(values: Iterable[str]) -> tuple[str, ...]:
    """Each value once, the most frequent first."""
    return tuple(value for value, _ in Counter(values).most_common())


def _hashes(file: Mapping[str, Any]) -> Sequence[str]:
    return [f"{kind}:{digest.lower()}" for kind, digest in file.get("hashes", {}).items() if kind == "sha256"]
