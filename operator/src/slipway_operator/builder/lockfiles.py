"""From a project's lock file, or the platform's package list, to hash-checked requirements.

No code of the project takes part: ``uv`` reads ``uv.lock`` and ``pyproject.toml`` as text.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slipway_operator.builder import names, package
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Package, PackagedFile
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.progress import say
from slipway_operator.builder.requirements import LockReason, Requirements, by_frequency, from_pylock, parse
from slipway_operator.builder.sources import last_words
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Lock, PackageList, ProjectLock

_METADATA = frozenset({"pyproject.toml", "uv.toml", "uv.lock"})
_METADATA_BYTES = 64 << 20
_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What is to be installed.

    Attributes:
        requirements: The packages.
        sha256: Digest of the lock file's bytes, hex.
        shown: The lock file, for messages.
    """

    requirements: Requirements
    sha256: str
    shown: str


def read_lock(lock: Lock, project: Package, place: Workplace, *, python: Path) -> Locked:
    """Read what a build is to install.

    Args:
        lock: Which lock file or package list.
        project: The project.
        place: Where the package list is.
        python: The interpreter that the packages are for.

    Raises:
        StepFailed: With one of `LockReason`.
    """
    if isinstance(lock, PackageList):
        return _package_list(lock, place)
    return _project_lock(lock, project, place, python)


def _package_list(wanted: PackageList, place: Workplace) -> Locked:
    path = place.settings / "package-list.txt"
    shown = f"the package list {wanted.name} {wanted.version}"
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise StepFailed(
            LockReason.LIST_MISSING, f"the platform publishes no {shown.removeprefix('the ')}: choose one that it does"
        ) from None
    return Locked(requirements=parse(text, shown), sha256=_sha256(content), shown=shown)


def _project_lock(lock: ProjectLock, project: Package, place: Workplace, python: Path) -> Locked:
    name = names.checked(lock.lock_file)
    content = package.text_of(project, name, most=_METADATA_BYTES)
    if content is None:
        raise _missing(name, project)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise StepFailed(LockReason.INVALID, f"{name} is not UTF-8 text: write it again") from None
    base = name.rpartition("/")[2]
    if base == "uv.lock":
        requirements = _from_uv_lock(name, text, project, place, python)
    elif re.fullmatch(r"pylock(\.[^.]+)?\.toml", base):
        requirements = from_pylock(_toml(text, name), name)
    elif base.endswith((".txt", ".in")):
        requirements = parse(text, name)
    else:
        raise StepFailed(
            LockReason.UNSUPPORTED, f"{name} is of no known kind: use uv.lock, pylock.toml or a hashed requirements.txt"
        )
    return Locked(requirements=requirements, sha256=_sha256(content), shown=name)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _missing(name: str, project: Package) -> StepFailed:
    there = sorted(
        path
        for path in project.manifest.by_path
        if path.rpartition("/")[2]
        in {*package.LOCK_NAMES, "poetry.lock", "Pipfile.lock", "pdm.lock", "environment.yml"}
    )[:5]
    found = f"it has {', '.join(ascii(path[:80]) for path in there)}" if there else "it has none at all"
    return StepFailed(
        LockReason.MISSING,
        f"the project has no {name[:100]!a} ({found}): run `uv lock` and commit the file, "
        "or name the right one in environment.lockFile",
    )


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StepFailed(LockReason.INVALID, f"{where} is not TOML ({error}): write it again") from None


def _from_uv_lock(name: str, text: str, project: Package, place: Workplace, python: Path) -> Requirements:
    locked = _toml(text, name)
    folder = name.rpartition("/")[0]
    beside = f"{folder}/pyproject.toml" if folder else "pyproject.toml"
    if beside not in project.manifest.by_path:
        raise StepFailed(LockReason.INVALID, f"there is no pyproject.toml beside {name}: commit it too")
    with place.private_folder() as private:
        root = private / "project"
        package.unpack(project, root, only=_is_metadata)
        uv = _Uv(place=place, private=private, folder=root / folder, python=python)
        with ThreadPoolExecutor(1) as pool:
            # Each takes a few tenths of a second; what is out of date is said first.
            exported = pool.submit(uv.export, name)
            uv.check(name)
            requirements = parse(exported.result(), name)
    return replace(requirements, indexes=_indexes(locked), files=_files(locked))


def _is_metadata(file: PackagedFile) -> bool:
    return file.path.rpartition("/")[2] in _METADATA and file.kind != "link" and file.size <= _METADATA_BYTES


def _indexes(locked: Mapping[str, Any]) -> tuple[str, ...]:
    found = (entry.get("source", {}).get("registry") for entry in locked.get("package", ()))
    return by_frequency(url for url in found if isinstance(url, str) and url.startswith("http"))


def _files(locked: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in locked.get("package", ()):
        for file in (*entry.get("wheels", ()), entry.get("sdist") or {}):
            if "hash" in file and "url" in file:
                found[str(file["hash"])] = str(file["url"])
    return found


@dataclass(frozen=True, kw_only=True)
class _Uv:
    """uv on a project's metadata files, without a network and without building anything."""

    place: Workplace
    private: Path
    folder: Path
    python: Path

    def check(self, name: str) -> None:
        said = self._run("lock", "--check", "--no-build")
        if said.code == 0:
            return
        words = said.errors.lower()
        if "building" in words and "disabled" in words:
            say(f"{name} is not compared with pyproject.toml, as its dependencies are computed by code")
            return
        self._refuse_python(said)
        if "failed to parse" in words or "unsupported" in words or "does not match the supported" in words:
            raise StepFailed(
                LockReason.INVALID, f"{name} cannot be read: {last_words(said.errors)}; run `uv lock` again"
            )
        raise StepFailed(
            LockReason.OUTDATED, f"{name} does not fit pyproject.toml any more: run `uv lock` and commit {name}"
        )

    def export(self, name: str) -> str:
        said = self._run(
            "export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate",
            "--format", "requirements.txt",
        )  # fmt: skip
        if said.code != 0:
            self._refuse_python(said)
            raise StepFailed(
                LockReason.INVALID, f"{name} cannot be used: {last_words(said.errors)}; run `uv lock` again"
            )
        return said.out.decode("utf-8")

    def _refuse_python(self, said: Said) -> None:
        if "incompatible with the project's python requirement" in " ".join(said.errors.lower().split()):
            found = re.search(r"python requirement: `([^`]+)`", " ".join(said.errors.lower().split()))
            wanted = found[1] if found else "of another version"
            raise StepFailed(
                LockReason.PYTHON_VERSION,
                f"the project requires Python {wanted}, and the environment has {python_version(self.python)}: "
                "choose another in environment.python, or change requires-python and run `uv lock`",
            )

    def _run(self, *arguments: str) -> Said:
        return Program(
            command=[
                "uv", *arguments, "--quiet", "--offline", "--no-progress", "--no-python-downloads",
                "--python", str(self.python), "--cache-dir", str(self.private / arguments[0]),
            ],
            variables=self.place.base_variables(self.private),
            folder=self.folder,
            seconds=_SECONDS,
        ).run()  # fmt: skip


def python_version(python: Path) -> str:
    """``3.11`` of an interpreter's path, such as ``/usr/bin/python3.11``."""
    found = re.search(r"(\d+\.\d+)$", python.name)
    return found[1] if found else python.name
