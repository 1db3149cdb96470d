"""Packages that exist only as source: downloaded in ``fetch``, built in ``run``.

``fetch`` may reach the index and runs no code: it takes the archives, checks them against
the lock file, reads what they want to be built with, and installs that from wheels into
folders of its own. ``run`` holds no credential and builds them, without a network.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import tarfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

from slipway_operator.builder import pep517
from slipway_operator.builder.environment import Environment, index_access
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Program
from slipway_operator.builder.progress import readable, say, step
from slipway_operator.builder.requirements import Requirement, Requirements, normalised
from slipway_operator.builder.sources import last_words
from slipway_operator.builder.uv_errors import InstallReason, failure
from slipway_operator.builder.workplace import Workplace

_SETUPTOOLS = {"requires": ["setuptools>=40.8.0,<81", "wheel"], "build-backend": "setuptools.build_meta:__legacy__"}
_MOST_BYTES = 512 << 20
_CHUNK = 1 << 20
_DOWNLOAD_SECONDS = 120
_BUILD_SECONDS = 900
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+!-]*\.(?:tar\.gz|tgz|tar\.bz2|tar\.xz|zip)$")
_NO_COMPILER = re.compile(
    r"(?:command|executable) '?\"?(?:[a-z0-9_-]*gcc|cc|c\+\+|g\+\+|clang|gfortran)|"
    r"unable to execute '?(?:[a-z0-9_-]*gcc|cc|c\+\+)|"
    r"unknown compiler|no such file or directory: '?(?:[a-z0-9_-]*gcc|cc|g\+\+|cmake|ninja|cargo|rustc)|"
    r"can't find rust compiler|rust toolchain|no c\+* ?compiler|error: command '.*gcc|python\.h: no such file|"
    r"microsoft visual|compiler .* not found|cmake.*not found",
    re.IGNORECASE,
)


def pending(place: Workplace) -> bool:
    """Whether ``fetch`` left sources to build."""
    return (place.work / "build" / "plan.json").is_file()


def download(names: list[str], requirements: Requirements, environment: Environment) -> None:
    """Take the sources of some packages, and all that they are built with.

    Raises:
        StepFailed: With one of `InstallReason`.
    """
    place = environment.place
    root = place.work / "build"
    shutil.rmtree(root, ignore_errors=True)
    (root / "sources").mkdir(parents=True)
    plan: list[dict[str, Any]] = []
    # A lock for many interpreters may have several lines for a package, of which at most one version is for this one.
    chosen = {package.name: package for package in requirements.packages if package.name in names and _applies(package)}
    for package in chosen.values():
        archive = _download(package, requirements, environment, root / "sources")
        system = _build_system(archive, package.name)
        tools = root / "tools" / package.name
        _install_tools(package.name, system["requires"], tools, environment)
        plan.append(
            {
                "name": package.name,
                "archive": archive.name,
                "backend": str(system.get("build-backend") or _SETUPTOOLS["build-backend"]),
                "path": [str(part) for part in system.get("backend-path", [])],
            }
        )
    (root / "plan.json").write_text(json.dumps(plan), "utf-8")


def _applies(package: Requirement) -> bool:
    """Whether a line is for the environment's interpreter, which is of this one's version (`interpreter_path`)."""
    try:
        return not package.marker or Marker(package.marker).evaluate()
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return True  # uv took the line before


def _download(package: Requirement, requirements: Requirements, environment: Environment, folder: Path) -> Path:
    url = package.url or _url_of(package, requirements, environment)
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not _NAME.match(name) or urlsplit(url).scheme not in {"https", "http"}:
        raise StepFailed(
            InstallReason.NOT_AVAILABLE, f"{package.name} {package.version} has neither a wheel nor a source archive"
        )
    target = folder / name
    digest = hashlib.sha256()
    size = 0
    with _opened(url, environment.place) as answer, target.open("xb") as out:
        for chunk in _parts(answer, url):
            size += len(chunk)
            if size > _MOST_BYTES:
                raise StepFailed(
                    InstallReason.FAILED, f"the source of {package.name} is larger than {readable(_MOST_BYTES)}"
                )
            digest.update(chunk)
            out.write(chunk)
    if f"sha256:{digest.hexdigest()}" not in package.hashes:
        raise StepFailed(
            InstallReason.HASH_MISMATCH,
            f"{package.name} {package.version} has other bytes than the lock file says: "
            "find out who changed it, then lock again",
        )
    say(f"{name}: {readable(size)}")
    return target


def _parts(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    """What is downloaded, to the last byte that was promised: half of an archive is not one that somebody changed."""
    try:
        while chunk := answer.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _broke_off(url, type(error).__name__) from None
    if answer.length:
        raise _broke_off(url, f"{readable(answer.length)} are missing")


def _broke_off(url: str, how: str) -> StepFailed:
    return StepFailed(
        InstallReason.INDEX_UNAVAILABLE,
        f"the download from {_host(url)} broke off ({how}); it is tried again by itself",
        retry=True,
    )


def _url_of(package: Requirement, requirements: Requirements, environment: Environment) -> str:
    """Where the index has the source archive whose hash the lock file names."""
    place = environment.place
    known = requirements.files or {}
    if not place.variables.get("UV_DEFAULT_INDEX"):
        for digest in package.hashes:
            if _NAME.match(PurePosixPath(urlsplit(known.get(digest, "")).path).name):
                return known[digest]
    with place.private_folder() as private, index_access(place, requirements) as (options, variables):
        listed = private / "requirements.txt"
        listed.write_text(f"{package.line()}\n", "utf-8")
        # Without dependencies there is no metadata to ask for, so nothing is built here.
        said = Program(
            command=[
                "uv", "pip", "compile", "--no-deps", "--no-config", "--no-progress", "--quiet", "--no-python-downloads",
                "--python", os.fspath(environment.python), "--format", "pylock.toml",
                "--cache-dir", os.fspath(place.work / ".cache" / "uv"), *options, os.fspath(listed),
            ],
            variables=place.base_variables(private) | variables,
            folder=private,
            seconds=_DOWNLOAD_SECONDS,
        ).run()  # fmt: skip
    if said.code != 0:
        raise failure(said)
    for entry in tomllib.loads(said.out.decode("utf-8")).get("packages", ()):
        sdist = entry.get("sdist")
        if sdist and f"sha256:{sdist.get('hashes', {}).get('sha256')}" in package.hashes:
            return str(sdist["url"])
    raise StepFailed(
        InstallReason.NOT_AVAILABLE,
        f"{package.name} {package.version} has no wheel for this platform, and the lock file no hash of its source: "
        "choose a version that is there for it, and lock again",
    )


def _opened(url: str, place: Workplace) -> Any:
    context = ssl.create_default_context(cafile=os.fspath(place.authorities) if place.authorities else None)
    request = urllib.request.Request(url, headers={"User-Agent": "slipway-builder"})  # noqa: S310  # checked by the caller
    default = place.variables.get("UV_DEFAULT_INDEX", "").rpartition("=")[2]
    password = place.secret_text("index", "password")
    if password is not None and urlsplit(default).netloc == urlsplit(url).netloc:
        user = place.secret_text("index", "username") or "__token__"
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        return opener.open(request, timeout=_DOWNLOAD_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            raise StepFailed(
                InstallReason.INDEX_ACCESS_DENIED,
                f"{_host(url)} refuses the credentials: correct the Secret of the package index",
            ) from None
        if error.code == 404:
            raise StepFailed(InstallReason.NOT_AVAILABLE, f"{_host(url)} has the file no more: lock again") from None
        raise StepFailed(
            InstallReason.INDEX_UNAVAILABLE,
            f"{_host(url)} answered {error.code}; it is tried again by itself",
            retry=True,
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise StepFailed(
            InstallReason.INDEX_UNAVAILABLE,
            f"{_host(url)} does not answer ({error}); it is tried again by itself",
            retry=True,
        ) from None


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the package index"


def _build_system(archive: Path, name: str) -> Mapping[str, Any]:
    """The ``[build-system]`` of a source archive, read without unpacking it."""
    text = _pyproject(archive, name)
    if text is None:
        return _SETUPTOOLS
    try:
        system = tomllib.loads(text.decode("utf-8")).get("build-system")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise StepFailed(
            InstallReason.FAILED, f"the pyproject.toml of {name} cannot be read: choose another version"
        ) from None
    if not isinstance(system, dict) or "requires" not in system:
        return _SETUPTOOLS
    return system


def _pyproject(archive: Path, name: str) -> bytes | None:
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as found:
                for entry in found.namelist():
                    if entry.count("/") == 1 and entry.endswith("/pyproject.toml"):
                        return found.read(entry)[:_CHUNK]
            return None
        with tarfile.open(archive) as found_tar:
            for member in found_tar:
                if member.isreg() and member.name.count("/") == 1 and member.name.endswith("/pyproject.toml"):
                    content = found_tar.extractfile(member)
                    return content.read(_CHUNK) if content else None
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError):
        raise StepFailed(InstallReason.FAILED, f"the source archive of {name} cannot be read") from None
    return None


def _install_tools(name: str, requires: list[str], target: Path, environment: Environment) -> None:
    """Install what a package is built with, from wheels only, into a folder of its own."""
    place = environment.place
    wanted = [str(requirement) for requirement in requires]
    if any("\n" in line or line.lstrip().startswith("-") or "@" in line for line in wanted):
        raise StepFailed(
            InstallReason.FAILED, f"{name} wants to be built with something that is no package of an index"
        )
    if any(normalised(re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0]) == "setuptools" for line in wanted):
        # Older setuptools look for wheel without asking for it; the newest dropped what old setup.py use.
        wanted.append("wheel")
    with place.private_folder() as private, index_access(place, Requirements(packages=())) as (options, variables):
        listed = private / "requirements.txt"
        listed.write_text("".join(f"{line}\n" for line in wanted), "utf-8")
        said = Program(
            command=[
                "uv", "pip", "install", "--python", os.fspath(environment.python), "--target", os.fspath(target),
                "--no-build", "--no-config", "--no-progress", "--no-python-downloads", "--quiet",
                "--cache-dir", os.fspath(place.work / ".cache" / "uv"), *options, "-r", os.fspath(listed),
            ],
            variables=place.base_variables(private) | variables,
            folder=private,
            seconds=place.limits.install_seconds,
        ).run()  # fmt: skip
    if said.code != 0:
        raise failure(said)


def build(environment: Environment) -> None:
    """Build what ``fetch`` left, and install it. Runs code of others.

    Raises:
        StepFailed: ``CompilerMissing`` or ``BuildFailed``.
    """
    place = environment.place
    root = place.work / "build"
    wheels = root / "wheels"
    wheels.mkdir(exist_ok=True)
    plan = json.loads((root / "plan.json").read_text("utf-8"))
    for package in plan:
        with step(f"building {package['name']}"):
            _build(package, root, wheels, environment)
    names = [package["name"] for package in plan]
    built = Requirements(packages=tuple(Requirement(name=name) for name in names))
    environment.install_built(wheels, built, names)


def _is_plain(member: tarfile.TarInfo) -> bool:
    inside = not member.name.startswith("/") and ".." not in member.name.split("/")
    return inside and (member.isfile() or member.isdir())


def _build(package: Mapping[str, Any], root: Path, wheels: Path, environment: Environment) -> None:
    name = str(package["name"])
    tree = root / "trees" / name
    tree.mkdir(parents=True)
    archive = root / "sources" / str(package["archive"])
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as found:
            found.extractall(tree)  # noqa: S202  # zipfile keeps names inside; this container trusts nothing anyway
    else:
        with tarfile.open(archive) as found_tar:
            # Plain files and folders inside the tree alone. Debian's Python 3.11.2 has no extraction filters yet.
            found_tar.extractall(  # noqa: S202  # chosen one by one
                tree, [member for member in found_tar if _is_plain(member)]
            )
    inner = [path for path in tree.iterdir() if path.is_dir()]
    if len(inner) != 1:
        raise StepFailed("BuildFailed", f"the source archive of {name} has not one folder")
    place = environment.place
    said = Program(
        command=[
            os.fspath(environment.python), "-s", pep517.__file__,
            os.fspath(root / "tools" / name), os.fspath(wheels), str(package["backend"]), *package["path"],
        ],
        variables={
            **place.base_variables(tree),
            "SOURCE_DATE_EPOCH": "315532800",  # 1980, the first year that a wheel's zip format knows
            "PYTHONHASHSEED": "0",
            "PATH": f"{root / 'tools' / name / 'bin'}:{place.variables.get('PATH', '')}",
        },
        folder=inner[0],
        seconds=_BUILD_SECONDS,
    ).run()  # fmt: skip
    if said.code == 0:
        return
    words = said.errors + said.out.decode("utf-8", "replace")
    for line in words.splitlines()[-40:]:
        say(f"  {line[:300]}")
    if _NO_COMPILER.search(words):
        raise StepFailed(
            "CompilerMissing",
            f"{name} must be compiled, and the builder has no compiler for it: choose a version with a wheel for this "
            "platform, or ask the platform to set compiler.enabled",
        )
    tail = [line for line in words.splitlines() if line.strip()]
    raise StepFailed(
        "BuildFailed",
        f"{name} could not be built from source ({last_words(tail[-1] if tail else '')}): "
        "choose a version that has a wheel",
    )
