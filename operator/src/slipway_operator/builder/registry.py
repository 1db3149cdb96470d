"""The registry, by way of ``crane``: images and artifacts in and out, without a daemon.

Each call is one process with a list of arguments (no shell), a time limit, and its errors
turned into `StepFailed` with a reason that a status can show. Credentials are crane's own
business: it reads ``config.json`` in the folder that ``DOCKER_CONFIG`` names.

Neighbours: `layers` makes what is appended, `oci` the layouts that are pushed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway_operator.builder.errors import RegistryReason, StepFailed

_TIMEOUT = 900.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RACE = re.compile(r"DIGEST_INVALID|MANIFEST_BLOB_UNKNOWN|BLOB_UPLOAD_UNKNOWN")
"""What a registry says of a blob that another push is just linking into the same repository: the
CNCF distribution's filesystem driver writes links in place, so that a reader may see half of one."""
_DAMAGED = re.compile(r"mismatched|error verifying|does not match requested")
"""Its bytes are not those that its digest names."""
_RACE_WAITS = (0.2, 1.0, 3.0)
"""Seconds before the same call again; whoever was faster has finished by then."""


def _status(codes: str) -> str:
    """HTTP's numbers where crane tells a status; a model may be called ``sp-500``."""
    return rf"status(?: code)?:? (?:{codes})\b"


_REASONS: tuple[tuple[re.Pattern[str], RegistryReason, str], ...] = (
    (
        re.compile(r"x509:|HTTP response to HTTPS client|tls: "),
        RegistryReason.NOT_TRUSTED,
        "add its certificate authority to the platform's caBundle, or set registry.insecure for plain HTTP",
    ),
    (
        re.compile(rf"UNAUTHORIZED|DENIED|{_status('401|403')}|no basic auth"),
        RegistryReason.ACCESS_DENIED,
        "give the Secret of the registry credentials that may read and write here",
    ),
    (
        re.compile(
            rf"TOOMANYREQUESTS|{_status('429|50[0234]')}|UNAVAILABLE|connection re|broken pipe|EOF|no such host"
        ),
        RegistryReason.UNAVAILABLE,
        "it is tried again by itself",
    ),
    (
        re.compile(r"MANIFEST_BLOB_UNKNOWN|BLOB_UPLOAD_UNKNOWN"),
        RegistryReason.UNAVAILABLE,
        "another push was at the same place; it is tried again by itself",
    ),
    (
        re.compile(
            r"(?<![\w-])timeout(?![\w-])|deadline exceeded|server misbehaving|network is unreachable|no route to host"
        ),
        RegistryReason.UNAVAILABLE,
        "it is tried again by itself",
    ),
    (
        re.compile(rf"MANIFEST_UNKNOWN|NAME_UNKNOWN|BLOB_UNKNOWN|NOT_FOUND|{_status('404')}"),
        RegistryReason.NOT_FOUND,
        "check the name and the digest, or push it again",
    ),
    (
        re.compile(rf"UNSUPPORTED|{_status('405|501')}"),
        RegistryReason.UNSUPPORTED,
        "allow it in the registry's own settings",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What to set in an image's config; what is None or empty stays as the base has it."""

    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    user: str | None = None
    working_directory: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The flags of ``crane mutate`` that say the same, in a fixed order."""
        found: list[str] = []
        if self.entrypoint is not None:
            found += [f"--entrypoint={_csv(part)}" for part in self.entrypoint]
        if self.command is not None:
            found += [f"--cmd={_csv(part)}" for part in self.command]
        if self.user is not None:
            found.append(f"--user={self.user}")
        if self.working_directory is not None:
            found.append(f"--workdir={self.working_directory}")
        found += [f"--env={key}={value}" for key, value in sorted(self.environment.items())]
        found += [f"--label={_csv(f'{key}={value}')}" for key, value in sorted(self.labels.items())]
        found += [f"--annotation={_csv(f'{key}={value}')}" for key, value in sorted(self.annotations.items())]
        return found


@dataclass(frozen=True, kw_only=True)
class RegistryClient:
    """Calls to registries. References are ``host/repository:tag`` or ``…@sha256:…``.

    Attributes:
        insecure: Plain HTTP is fine.
        docker_config: Folder with ``config.json``; None: the process's own environment decides.
        program: The crane to run.
        timeout: Seconds for one call.
    """

    insecure: bool = False
    docker_config: Path | None = None
    program: str = "crane"
    timeout: float = _TIMEOUT

    def digest(self, reference: str) -> str:
        """Digest of the manifest that a reference names.

        Raises:
            StepFailed: As every call here, with one of `RegistryReason`.
        """
        return _digest_in(self._run(["digest", reference], reference), reference)

    def exists(self, reference: str) -> bool:
        """Whether a reference names anything; an unreachable registry is an error, not a no."""
        try:
            self.digest(reference)
        except StepFailed as failed:
            if failed.reason == RegistryReason.NOT_FOUND:
                return False
            raise
        return True

    def manifest(self, reference: str) -> dict[str, Any]:
        """The manifest as JSON."""
        return _object(self._run(["manifest", reference], reference), reference)

    def config(self, reference: str) -> dict[str, Any]:
        """The image's config as JSON."""
        return _object(self._run(["config", reference], reference), reference)

    def blob(self, reference: str) -> bytes:
        """A small blob's bytes; the reference is ``repository@sha256:…``. crane checks the digest."""
        return self._run(["blob", reference], reference)

    def blob_to(self, reference: str, target: Path) -> None:
        """Write a blob of any size to a file that must not exist yet."""
        with target.open("xb") as out:
            self._run(["blob", reference], reference, stdout=out.fileno())

    def append(self, base: str, layers: Sequence[Path], target: str, *, config: ImageConfig | None = None) -> str:
        """Push ``base`` with more layers on top and, where given, another config.

        The base's own layers are mounted within one registry, not copied.

        Args:
            base: Image to start from.
            layers: Gzipped layers, lowest first.
            target: Tag to push to; its repository may be another than the base's.
            config: What to set beside.

        Returns:
            The digest of the new manifest.
        """
        command = ["mutate", base, "--tag", target, *(f"--append={_csv(os.fspath(layer))}" for layer in layers)]
        command += (config or ImageConfig()).arguments()
        return _digest_in(self._run(command, target), target)

    def push_layout(self, layout: Path, target: str) -> str:
        """Push an OCI layout that holds one manifest; returns its digest."""
        return _digest_in(self._run(["push", os.fspath(layout), target], target), target)

    def copy(self, source: str, target: str) -> str:
        """Copy an image or artifact to another repository or tag; returns its digest."""
        self._run(["copy", source, target], source)
        return self.digest(target)

    def tag(self, reference: str, tag: str) -> None:
        """Give what a reference names one more tag in its own repository."""
        self._run(["tag", reference, tag], reference)

    def lacks(self, reference: str) -> str | None:
        """What an image or artifact lacks, in words; None: its manifest, config and layers are all there.

        Layers are asked for (HEAD) and not downloaded.
        """
        done = self._call(["validate", "--remote", reference, "--fast"], reference)
        return None if done.returncode == 0 else faults_in(reference, _said(done))

    def delete(self, reference: str) -> bool:
        """Delete a manifest by its digest; False: it was not there."""
        try:
            self._run(["delete", reference], reference)
        except StepFailed as failed:
            if failed.reason == RegistryReason.NOT_FOUND:
                return False
            raise
        return True

    def _run(self, arguments: Sequence[str], about: str, *, stdout: int = subprocess.PIPE) -> bytes:
        done = self._call(arguments, about, stdout=stdout)
        if done.returncode != 0:
            raise failure(about, _said(done))
        return done.stdout or b""

    def _call(
        self, arguments: Sequence[str], about: str, *, stdout: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        command = [self.program, *arguments, *(["--insecure"] if self.insecure else [])]
        environment = dict(os.environ)
        if self.docker_config is not None:
            environment["DOCKER_CONFIG"] = os.fspath(self.docker_config)
        for wait in (*_RACE_WAITS, None):
            try:
                done = subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    timeout=self.timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise StepFailed(
                    RegistryReason.UNAVAILABLE, f"{about}: no answer within {self.timeout:.0f} s", retry=True
                ) from None
            if done.returncode == 0 or wait is None or not _RACE.search(_said(done)):
                break
            time.sleep(wait)
        return done


def faults_in(reference: str, said: str) -> str:
    """What is missing, by what ``crane validate`` said of an image.

    Raises:
        StepFailed: The registry did not answer one of the questions, so that nothing is known.
    """
    text = said[said.find("Error: ") :].removeprefix("Error: ")
    layers, found = 0, []
    for line in filter(None, (part.strip() for part in text.splitlines())):
        if line.endswith("layer does not exist"):
            layers += 1
            continue
        failed = failure(reference, line)
        damaged = failed.reason == RegistryReason.REFUSED and _DAMAGED.search(line)
        if failed.reason != RegistryReason.NOT_FOUND and not damaged:
            raise failed
        if line.startswith("failed to read image"):
            return "all of it"
        found.append("its config" if line.startswith("validating config") else "a part of it")
    if layers:
        found.insert(0, f"{layers} of its layers" if layers > 1 else "one of its layers")
    if not found:
        raise failure(reference, said)
    return ", ".join(dict.fromkeys(found))


def failure(about: str, said: str) -> StepFailed:
    """Map what crane said to a reason and a sentence.

    Args:
        about: The reference that the call was about.
        said: crane's standard error.
    """
    lines = [line for line in said.strip().splitlines() if line]
    last = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1] if lines else "")
    cause = last.removeprefix("Error: ")[-300:]
    # Addresses and references hold names that people chose, which say nothing of what went wrong.
    told = " ".join(word for word in last.split() if "/" not in word)
    for pattern, reason, advice in _REASONS:
        if pattern.search(told):
            return StepFailed(reason, f"{about}: {cause}; {advice}", retry=reason is RegistryReason.UNAVAILABLE)
    return StepFailed(RegistryReason.REFUSED, f"{about}: {cause or 'crane failed without a word'}")


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode(errors="replace")


def _csv(value: str) -> str:
    """Quote one value of a flag that crane reads as comma-separated."""
    if any(character in value for character in ',"\n\r'):
        return '"' + value.replace('"', '""') + '"'
    return value


def _digest_in(output: bytes, about: str) -> str:
    found = _DIGEST.findall(output.decode(errors="replace"))
    if not found:
        raise StepFailed(RegistryReason.REFUSED, f"{about}: crane printed no digest")
    return str(found[-1])


def _object(output: bytes, about: str) -> dict[str, Any]:
    try:
        parsed = json.loads(output)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise StepFailed(RegistryReason.REFUSED, f"{about}: the registry's answer is not a JSON object")
    return parsed
