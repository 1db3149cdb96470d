"""The project's environment: wheels into a virtual environment, without running any code.

Installing a wheel is unpacking it; nothing that was installed is started here, and no
interpreter of the environment either, as ``.pth`` files would run in it. What exists only
as source is downloaded by `sdists` and built in a container without credentials.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway_operator.builder.bytecode import compile_tree
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.progress import say, step
from slipway_operator.builder.requirements import Requirements
from slipway_operator.builder.uv_errors import InstallReason, failure, only_source
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import Interpreter

FORMAT = "3"
"""Part of each environment's key: raise it when the same requirements give other bytes."""

_SH_SHEBANG = b"#!/bin/sh\n'''exec' "
_NAMED_INDEX = re.compile(r"^[A-Za-z0-9_-]+=https?://")
_USELESS = (".gitignore", ".lock", "CACHEDIR.TAG")


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
                name = only_source(said.errors)
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
        changed = {
            script.name: record
            for script in sorted((self.root / "bin").iterdir())
            if script.is_file() and not script.is_symlink() and (record := self._point_at_image(script)) is not None
        }
        for listed in (self.root / "lib").glob("python*/site-packages/*.dist-info/RECORD"):
            _correct(listed, changed)
        with step("compiling byte code"):
            try:
                compile_tree(self.root, self.place.environment, python=os.fspath(self.python))
            except subprocess.CalledProcessError as error:
                raise StepFailed(
                    InstallReason.FAILED, f"compiling the packages' byte code ended with {error.returncode}"
                ) from None

    def _point_at_image(self, script: Path) -> str | None:
        """Let a script start the image's interpreter; returns its new hash and size for RECORD."""
        content = script.read_bytes()
        shebang = f"#!{self.place.environment}/bin/python\n".encode()
        if content.startswith(_SH_SHEBANG):
            content = shebang + content.split(b"\n' '''\n", 1)[-1]
        elif content.startswith(f"#!{self.root}".encode()):
            content = shebang + content.split(b"\n", 1)[-1]
        else:
            return None
        # A new file: the old one may be a link into uv's cache.
        script.unlink()
        script.write_bytes(content)
        script.chmod(0o755)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        return f"sha256={digest},{len(content)}"

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


def _correct(record: Path, scripts: Mapping[str, str]) -> None:
    """Write the new hashes of scripts into the list of what a package installed."""
    if record.is_symlink():
        return
    lines = record.read_text("utf-8").splitlines()
    corrected = []
    for line in lines:
        path = line.split(",", 1)[0]
        folder, _, name = path.rpartition("/")
        known = scripts.get(name) if folder.endswith("/bin") else None
        corrected.append(line if known is None else f"{path},{known}")
    if corrected != lines:
        record.unlink()
        record.write_text("\n".join(corrected) + "\n", "utf-8")


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
    # Of several indexes uv would otherwise stop at the first that knows a package. With one it makes no difference,
    # but for the words: only then does uv say that an index refused us rather than that it has no such package.
    options = ["--index-strategy", "unsafe-best-match"] if others else []
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
