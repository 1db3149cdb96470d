"""Where a container finds its volumes, and the bounds it works within.

Everything can be moved by environment variables, so that tests and laptops run the same
verbs without ``/workspace``; in a Job the defaults hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slipway_operator.builder.errors import StepFailed
from slipway_operator.domain import requests

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what is taken from outside; each can be set by ``SLIPWAY_<NAME>``.

    Attributes:
        project_bytes: Sum of the sizes of a project's files, and of what a fetch may download.
        project_files: Number of a project's files.
        model_bytes: Size of one model file.
        fetch_seconds: Time for one fetch from a source.
        install_seconds: Time for one installation of packages.
    """

    project_bytes: int = 2048 * MEBIBYTE
    project_files: int = 50_000
    model_bytes: int = 2048 * MEBIBYTE
    fetch_seconds: int = 600
    install_seconds: int = 1500

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Limits:
        """Read the bounds that are set, keep the others."""
        values = {}
        for name in cls.__dataclass_fields__:
            text = environment.get(f"SLIPWAY_{name.upper()}")
            if text is not None:
                if not text.isascii() or not text.isdigit() or int(text) < 1:
                    raise StepFailed("InvalidSetting", f"SLIPWAY_{name.upper()} is not a positive whole number")
                values[name] = int(text)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The folders of one container.

    Attributes:
        work: Shared by the containers of a Job; not to be trusted after code of a project ran.
        handover: Shared by ``fetch`` and ``push`` only.
        settings: ``ca.crt`` and ``package-list.txt``.
        secrets: Below it ``source``, ``index``, ``registry``.
        project: Where a project's files will be in its image.
        environment: Where its virtual environment will be.
        limits: Bounds.
        variables: The process's environment variables.
    """

    work: Path
    handover: Path
    settings: Path
    secrets: Path
    project: str = requests.PROJECT
    environment: str = requests.ENVIRONMENT
    limits: Limits = Limits()
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Workplace:
        """The Job's folders, unless variables say otherwise."""

        def folder(name: str, default: str) -> Path:
            return Path(environment.get(f"SLIPWAY_{name}", default))

        return cls(
            work=folder("WORK", requests.WORK),
            handover=folder("HANDOVER", requests.HANDOVER),
            settings=folder("SETTINGS", requests.SETTINGS),
            secrets=folder("SECRETS", requests.SECRETS),
            limits=Limits.from_environment(environment),
            variables=dict(environment),
        )

    def secret(self, kind: str, key: str) -> Path | None:
        """File of one key of a mounted Secret, None where it is not there."""
        path = self.secrets / kind / key
        return path if path.is_file() else None

    def secret_text(self, kind: str, key: str) -> str | None:
        """Text of one key of a mounted Secret without the newline that editors add."""
        path = self.secret(kind, key)
        if path is None:
            return None
        try:
            return path.read_text("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise StepFailed("InvalidSecret", f"the key {key} of the {kind} Secret is not UTF-8 text") from None

    @property
    def authorities(self) -> Path | None:
        """The platform's certificate authorities, None where the image's own ones are to be used."""
        path = self.settings / "ca.crt"
        return path if path.is_file() else None

    @contextmanager
    def private_folder(self) -> Iterator[Path]:
        """A folder below the temporary directory that only this process reads; removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="slipway-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the work volume under a name that nobody could prepare; removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=self.work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def base_variables(self, home: Path) -> dict[str, str]:
        """What a program that we start needs of our environment: no secrets, English messages."""
        kept = {
            name: value
            for name, value in self.variables.items()
            if name.upper() in _PASSED or name.upper().endswith("_PROXY")
        }
        return {**kept, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "HOME": os.fspath(home), "TMPDIR": tempfile.gettempdir()}


_PASSED = frozenset({"PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ", "UV_HTTP_RETRIES"})
