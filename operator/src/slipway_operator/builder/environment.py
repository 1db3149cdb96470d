"""The project's environment: wheels into a virtual environment, without running any code.

Installing a wheel is unpacking it; nothing that was installed is started here, and no
interpreter of the environment either, as ``.pth`` files would run in it. What exists only
as source is downloaded by `sdists` and built in a container without credentials.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from slipway_operator.builder.bytecode import compile_tree
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.progress import say, step
from slipway_operator.builder.requirements import LockReason, Requirements
from slipway_operator.builder.sources import last_words
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Interpreter

FORMAT = "2"
"""Part of each environment's key: raise it when the same requirements give other bytes."""

_SH_SHEBANG = b"#!/bin/sh\n'''exec' "
_NAMED_INDEX = re.compile(r"^[A-Za-z0-9_-]+=https?://")
_USELESS = (".gitignore", ".lock", "CACHEDIR.TAG")


class InstallReason(StrEnum):
    """Why packages could not be installed; each doubles as a condition's reason."""

    NOT_AVAILABLE = "PackageNotAvailable"
    HASH_MISMATCH = "HashMismatch"
    NO_SOLUTION = "NoSolution"
    INDEX_UNAVAILABLE = "IndexUnavailable"
    """It did not answer. Passes by itself."""
    INDEX_HOST_UNKNOWN = "IndexHostUnknown"
    INDEX_ACCESS_DENIED = "IndexAccessDenied"
    INDEX_NOT_TRUSTED = "IndexNotTrusted"
    VOLUME_FULL = "WorkVolumeFull"
    FAILED = "InstallFailed"
    INTERPRETER = "InterpreterUnavailable"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment that is being made.

    Attributes:
        place: The volumes; it grows below ``<work>/rootfs``.
        interpreter: What the platform offers.
    """

    place: Workplace
    interpreter: Interpreter

    @property
    def root(self) -> Path:
        """Where its files are now."""
        return rootfs(self.place)

    @property
    def python(self) -> Path:
        """Our own interpreter of the version that is wanted.

        Raises:
            StepFailed: ``InterpreterUnavailable``.
        """
        return interpreter_path(self.interpreter.python)

    def key(self, requirements: Requirements) -> str:
        """What its files depend on, as hex digits."""
        parts = (FORMAT, self.interpreter.base.rpartition("@")[2], self.place.environment, requirements.text())
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()

    def create(self) -> None:
        """Lay out an empty virtual environment, ready to be moved to where the image has it."""
        shutil.rmtree(self.root, ignore_errors=True)
        version = f"python{self.interpreter.python}"
        (self.root / "bin").mkdir(parents=True)
        (self.root / "lib" / version / "site-packages").mkdir(parents=True)
        for name in ("python", "python3", version):
            (self.root / "bin" / name).symlink_to(self.python)
        config = f"home = {self.python.parent}\nimplementation = CPython\ninclude-system-site-packages = false\n"
        (self.root / "pyvenv.cfg").write_text(config, "utf-8")

    def install(self, requirements: Requirements) -> list[str]:
        """Install all packages that are there as wheels.

        Returns:
            Names of the packages that exist only as source.

        Raises:
            StepFailed: With one of `InstallReason`.
        """
        sources: list[str] = []
        with self.place.private_folder() as private, index_access(self.place, requirements) as (options, variables):
            listed = private / "requirements.txt"
            while True:
                listed.write_text(requirements.without(sources).text(), "utf-8")
                said = self._uv_install(
                    ["--require-hashes", "--no-build", *options, "-r", os.fspath(listed)],
                    self.place.base_variables(private) | variables,
                )
                if said.code == 0:
                    return sources
                name = _only_source(said.errors)
                if name is None or name in sources:
                    raise failure(said)
                say(f"{name} has no wheel: it is built from source")
                sources.append(name)

    def install_built(self, wheels: Path, requirements: Requirements, names: list[str]) -> None:
        """Install wheels that were built here; meant for a container without credentials."""
        chosen = [package for package in requirements.packages if package.name in names]
        with self.place.private_folder() as private:
            listed = private / "requirements.txt"
            listed.write_text("".join(f"{package.name}\n" for package in chosen), "utf-8")
            said = self._uv_install(
                ["--no-index", "--no-build", "--offline", "--find-links", os.fspath(wheels), "-r", os.fspath(listed)],
                self.place.base_variables(private),
            )
            if said.code != 0:
                raise failure(said)

    def finish(self) -> None:
        """Make it what the image needs: scripts that start without a shell, byte code, nothing else."""
        for name in _USELESS:
            (self.root / name).unlink(missing_ok=True)
        for script in (self.root / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                self._point_at_image(script)
        with step("compiling byte code"):
            try:
                compile_tree(self.root, self.place.environment, python=os.fspath(self.python))
            except subprocess.CalledProcessError as error:
                raise StepFailed(
                    InstallReason.FAILED, f"compiling the packages' byte code ended with {error.returncode}"
                ) from None

    def _point_at_image(self, script: Path) -> None:
        content = script.read_bytes()
        shebang = f"#!{self.place.environment}/bin/python\n".encode()
        if content.startswith(_SH_SHEBANG):
            content = shebang + content.split(b"\n' '''\n", 1)[-1]
        elif content.startswith(f"#!{self.root}".encode()):
            content = shebang + content.split(b"\n", 1)[-1]
        else:
            return
        # A new file: the old one may be a link into uv's cache.
        script.unlink()
        script.write_bytes(content)
        script.chmod(0o755)

    def _uv_install(self, arguments: list[str], variables: dict[str, str]) -> Said:
        return Program(
            command=[
                "uv", "pip", "install", "--python", os.fspath(self.root / "bin" / "python"),
                "--no-deps", "--no-config", "--no-progress", "--no-python-downloads", "--link-mode", "hardlink",
                "--cache-dir", os.fspath(self.place.work / ".cache" / "uv"), *arguments,
            ],
            variables=variables,
            folder=self.place.work,
            seconds=self.place.limits.install_seconds,
        ).run()  # fmt: skip


def rootfs(place: Workplace) -> Path:
    """Where the environment's files are while the Job runs."""
    return place.work / "rootfs" / place.environment.lstrip("/")


def interpreter_path(version: str) -> Path:
    """Our own interpreter of a version, at the path that the base image has it.

    Raises:
        StepFailed: ``InterpreterUnavailable``.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version != here:
        raise StepFailed(
            InstallReason.INTERPRETER, f"this builder has Python {here}, not {version}: choose it in environment.python"
        )
    debian = Path(f"/usr/bin/python{version}")
    return debian if debian.exists() else Path(sys.base_prefix) / "bin" / f"python{version}"


@contextmanager
def index_access(place: Workplace, requirements: Requirements) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options and variables with which uv finds the packages.

    The platform's index stands in for the default one. All files are checked by hash, so
    it does not matter which index has them.
    """
    variables: dict[str, str] = {}
    default = place.variables.get("UV_DEFAULT_INDEX", "").strip()
    # The index of most packages is the lock file's default one.
    main, others = requirements.indexes[:1], requirements.indexes[1:]
    options = ["--index-strategy", "unsafe-best-match"]
    if default:
        named, _, url = default.rpartition("=") if _NAMED_INDEX.match(default) else ("", "", default)
        name = named or "platform"
        variables["UV_DEFAULT_INDEX"] = f"{name}={url}"
        password = place.secret_text("index", "password")
        if password is not None:
            prefix = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}"
            variables[f"{prefix}_USERNAME"] = place.secret_text("index", "username") or "__token__"
            variables[f"{prefix}_PASSWORD"] = password
    elif main:
        variables["UV_DEFAULT_INDEX"] = main[0]
    for other in others:
        options += ["--index", other]
    if place.authorities is not None:
        variables["SSL_CERT_FILE"] = os.fspath(place.authorities)
    yield options, variables


_NO_WHEEL = re.compile(r"\b([a-z0-9._-]+)(?:==\S+| ?@ \S+)? has no (?:usable wheels|wheels with a matching)")
_DISABLED = re.compile(
    r"wheels are required for `([a-z0-9._-]+)`|building source distributions for `?([a-z0-9._-]+)`? is disabled|building `?([a-z0-9._-]+)(?:==[^`\s]*|\s@[^`]*)?`? is disabled"
)


def _only_source(errors: str) -> str | None:
    """Name of a package that uv would have had to build."""
    words = " ".join(errors.lower().split())
    found = _DISABLED.search(words) or _NO_WHEEL.search(words)
    return next((name for name in found.groups() if name), None) if found else None


def failure(said: Said) -> StepFailed:
    """The failure that uv's words stand for."""
    words = " ".join(without_passwords(said.errors).split())
    lower = words.lower()
    about = _about(words)
    if said.timed_out:
        return StepFailed(
            InstallReason.INDEX_UNAVAILABLE, "installing the packages took too long; it is tried again", retry=True
        )
    if "hash mismatch" in lower:
        return StepFailed(
            InstallReason.HASH_MISMATCH,
            f"{about} has other bytes than the lock file says: find out who changed it, then lock again",
        )
    if "dns error" in lower or "failed to lookup address" in lower:
        return StepFailed(
            InstallReason.INDEX_HOST_UNKNOWN,
            f"the package index has no such host: {_url(words)}; correct the index's url",
        )
    if "invalid peer certificate" in lower or "unknownissuer" in lower or "certificate" in lower:
        return StepFailed(
            InstallReason.INDEX_NOT_TRUSTED,
            f"the certificate of {_url(words)} is signed by nobody we trust: add its authority to the platform's caBundle",
        )
    if re.search(r"\b40[13]\b|unauthorized|forbidden", lower):
        return StepFailed(
            InstallReason.INDEX_ACCESS_DENIED,
            f"{_url(words)} refuses the credentials: correct the Secret of the package index",
        )
    if re.search(
        r"connection refused|connect error|timed out|timeout|\b5\d\d\b|\b429\b|connection reset|error sending request|failed to (fetch|download)",
        lower,
    ):
        return StepFailed(
            InstallReason.INDEX_UNAVAILABLE, f"{_url(words)} does not answer; it is tried again by itself", retry=True
        )
    if "no space left" in lower:
        return StepFailed(
            InstallReason.VOLUME_FULL,
            "the packages do not fit on the Job's volume: raise jobs.workVolumeLimit of the platform",
        )
    if re.search(r"python version|requires-python|requires python", lower) and "does not satisfy" in lower:
        return StepFailed(
            LockReason.PYTHON_VERSION, f"{_cause(words)}: choose another environment.python, or lock for this one"
        )
    if re.search(
        r"there is no version|not found in the package registry|no usable wheels|no wheels with a matching|yanked|no source distribution",
        lower,
    ):
        return StepFailed(
            InstallReason.NOT_AVAILABLE,
            f"{_cause(words)}: choose a version of {about} that is there for this platform, and lock again",
        )
    if "no solution found" in lower:
        return StepFailed(InstallReason.NO_SOLUTION, f"{_cause(words)}: change the versions and lock again")
    return StepFailed(InstallReason.FAILED, f"uv could not install the packages: {last_words(said.errors)}")


def _about(words: str) -> str:
    found = re.search(
        r"`([A-Za-z0-9._-]+)(?:==([^`]+))?`|[Bb]ecause ([a-z0-9._-]+(?:==\S+)?) has|version of ([a-z0-9._=-]+)|[Bb]ecause ([a-z0-9._-]+) was not",
        words,
    )
    if found is None:
        return "a package"
    name = next(part for part in (found[1], found[3], found[4], found[5]) if part)
    return f"{name} {found[2]}" if found[2] else name.replace("==", " ")


def _cause(words: str) -> str:
    found = re.search(r"cause: (?:Because )?(.*?)(?:, we can conclude| and you require|hint:|$)", words)
    return (found[1] if found else words)[:250].strip()


def _url(words: str) -> str:
    found = re.search(r"https?://[^\s)`'\"]+", words)
    return found[0][:200] if found else "the package index"


def without_passwords(text: str) -> str:
    """A text whose URLs hold no user and no password."""

    def bare(found: re.Match[str]) -> str:
        try:
            parts = urlsplit(found[0])
            where = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
            return urlunsplit(parts._replace(netloc=where, query=""))
        except ValueError:
            return "(url)"

    return re.sub(r"https?://[^\s)`'\"]+", bare, text)
