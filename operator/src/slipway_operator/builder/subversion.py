"""Projects in Subversion: one revision's files, by ``svn export``.

Neighbours: `package` takes what is found here; `folder` lists what was exported.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

from slipway_operator.builder import folder, package
from slipway_operator.builder.credentials import ssh_variables
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Package, Provenance
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.progress import readable, say, step
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
from slipway_operator.domain.requests import SvnSource

SCHEMES = frozenset({"https", "http", "svn", "svn+ssh"})
_REVISION = re.compile(r"^(?:HEAD|r?[0-9]{1,18})$")


def _fault(pattern: str, reason: SourceReason, advice: str, *, retry: bool = False) -> Fault:
    return Fault(pattern=re.compile(pattern), reason=reason, advice=advice, retry=retry)


FAULTS: tuple[Fault, ...] = (
    _fault(
        r"unknown hostname|name or service not known|e670002|e670003|no address associated|could not resolve",
        SourceReason.HOST_UNKNOWN,
        "no such host; correct the source's url, or let the cluster's DNS know the name",
    ),
    _fault(
        r"issued for a different hostname",
        SourceReason.NOT_TRUSTED,
        "its certificate is for another host; use the name that it has in the source's url "
        "(svn knows no addresses but as a certificate's common name)",
    ),
    _fault(
        r"server certificate|e230001|certificate verification",
        SourceReason.NOT_TRUSTED,
        "its certificate is signed by nobody we trust; put its authority into the Secret's key ca.crt "
        "or into the platform's caBundle",
    ),
    _fault(
        r"host key verification failed",
        SourceReason.HOST_KEY_MISSING,
        "the server's host key is not among the Secret's; add the line of `ssh-keyscan HOST` to known_hosts",
    ),
    _fault(
        r"e170001|e215004|authentication failed|authorization failed|e175013|access to .* forbidden|"
        r"e170013.*credentials|no more credentials|permission denied \(",
        SourceReason.ACCESS_DENIED,
        "it lets nobody in without the right credentials; name a Secret in the source's secretName "
        "whose user may read the repository",
    ),
    _fault(
        r"e160006|no such revision",
        SourceReason.REF_NOT_FOUND,
        "it has no such revision; correct the source's revision",
    ),
    _fault(
        r"e210005|no repository found|e175009|is not a valid repository|e180001",
        SourceReason.REPOSITORY_NOT_FOUND,
        "no such repository; correct the source's url",
    ),
    _fault(
        r"e170000|e160013|e200009|non-existent|path not found|e205011",
        SourceReason.PATH_NOT_FOUND,
        "it has no such folder at this revision; correct the source's url or path",
    ),
    _fault(
        r"e000111|e170013|e210002|connection refused|timed out|e120108|connection closed|"
        r"e175012|no route|unreachable|e000110",
        SourceReason.UNAVAILABLE,
        "it does not answer; it is tried again by itself",
        retry=True,
    ),
    _fault(
        r"no space left on device|e000028",
        SourceReason.TOO_LARGE,
        "it does not fit on the Job's volume; commit less, or raise jobs.workVolumeLimit of the platform",
    ),
)


def resolve(source: SvnSource, place: Workplace) -> int:
    """The number of the revision that a source names now.

    Raises:
        StepFailed: With one of `SourceReason`.
    """
    where = address(source.url, SCHEMES)
    with _access(where, place) as (options, variables, given):
        return _revision(source, where, options, variables, given)


def write(source: SvnSource, place: Workplace, target: Path) -> tuple[str, Package]:
    """Export one revision and package it; returns ``r<revision>`` and the package.

    Raises:
        StepFailed: With one of `SourceReason`, or what `package.write_package` finds.
    """
    where = address(source.url, SCHEMES)
    inside = folder_in_repository(source.path)
    tree = place.work / ".source.svn"
    shutil.rmtree(tree, ignore_errors=True)
    with _access(where, place) as (options, variables, given):
        revision = _revision(source, where, options, variables, given)
        url = where.url.rstrip("/") + ("" if inside == "." else "/" + inside)
        most = place.limits.project_bytes

        def refuse_too_large() -> None:
            if size_below(tree) > most:
                raise StepFailed(
                    SourceReason.TOO_LARGE,
                    f"{where.url} has more than {readable(most)} at this revision: commit less data",
                )

        with step(f"exporting r{revision} of {url}"):
            said = Program(
                command=[
                    "svn", "export", "--quiet", "--ignore-externals", "--ignore-keywords", "--native-eol", "LF",
                    *options, "--revision", str(revision), "--", f"{url}@{revision}", os.fspath(tree),
                ],
                variables=variables,
                given=given,
                seconds=place.limits.fetch_seconds,
                watch=refuse_too_large,
            ).run()  # fmt: skip
    if said.code != 0:
        raise named(FAULTS, said, where.url)
    if not tree.is_dir():
        raise StepFailed(SourceReason.PATH_NOT_FOUND, f"{url} is a file, not a folder: correct the source's path")
    project = package.write_package(
        target,
        folder.files(tree),
        folder.reader(tree),
        Provenance(kind="svn", commit=f"r{revision}", path=inside),
        limits=place.limits,
    )
    shutil.rmtree(tree, ignore_errors=True)
    say(f"package: {len(project.manifest.files)} files, {readable(project.size)}, sha256:{project.sha256}")
    return f"r{revision}", project


def _revision(
    source: SvnSource, where: Address, options: Sequence[str], variables: Mapping[str, str], given: bytes
) -> int:
    if not _REVISION.match(source.revision):
        raise StepFailed(
            SourceReason.REF_NOT_FOUND,
            f"{source.revision[:60]!a} is no revision: use a number or HEAD in the source's revision",
        )
    wanted = source.revision.removeprefix("r")
    said: Said = Program(
        command=[
            "svn",
            "info",
            *options,
            "--show-item",
            "revision",
            "--no-newline",
            "--revision",
            wanted,
            "--",
            # What the address meant then; a bare @ keeps svn from reading one in the address.
            f"{where.url}@{'' if wanted == 'HEAD' else wanted}",
        ],
        variables=variables,
        given=given,
        seconds=60,
    ).run()
    text = said.out.decode("ascii", "replace").strip()
    if said.code != 0 or not text.isdigit():
        raise named(FAULTS, said, where.url)
    return int(text)


def _proxy(where: Address, place: Workplace) -> list[str]:
    """The proxy of the usual variables as lines of svn's own file, which is all that svn reads."""
    usual = {name.lower(): value for name, value in place.variables.items() if value}
    url = usual.get(f"{where.scheme}_proxy", "")
    if not url or _is_exempt(where.host, usual.get("no_proxy", "")):
        return []
    try:
        proxy = urlsplit(url if "://" in url else f"http://{url}")
        host, port = proxy.hostname, proxy.port or 80
    except ValueError:
        host, port = None, 0
    if host is None:
        raise StepFailed(
            SourceReason.INVALID, f"the platform's proxy.{where.scheme} is no address: ask its operator to correct it"
        )
    lines = [f"http-proxy-host = {host}", f"http-proxy-port = {port}"]
    if proxy.username:
        lines += [f"http-proxy-username = {unquote(proxy.username)}"]
        lines += [f"http-proxy-password = {unquote(proxy.password or '')}"]
    return lines


def _is_exempt(host: str, no_proxy: str) -> bool:
    """Whether no proxy is to be used: names with all below them, addresses, networks, or ``*``, as curl has them."""
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.removeprefix("*").removeprefix(".")
        if not name or host == name or host.endswith(f".{name}"):
            return True
        with suppress(ValueError):
            if ip_address(host) in ip_network(name, strict=False):
                return True
    return False


@contextmanager
def _access(where: Address, place: Workplace) -> Iterator[tuple[list[str], dict[str, str], bytes]]:
    """Options, environment and standard input with which svn reaches an address."""
    with place.private_folder() as private:
        config = private / "subversion"
        config.mkdir()
        options = ["--non-interactive", "--no-auth-cache", "--config-dir", os.fspath(config)]
        authorities = place.secret("source", "ca.crt") or place.authorities
        found = os.fspath(authorities) if authorities else place.variables.get("SSL_CERT_FILE")
        lines = ["[global]", "http-timeout = 60", "store-plaintext-passwords = no"]
        if found:
            lines.append(f"ssl-authority-files = {found}")
        lines += _proxy(where, place)
        (config / "servers").write_text("\n".join(lines) + "\n", "utf-8")
        variables = place.base_variables(private)
        given = b""
        password = place.secret_text("source", "password")
        if where.scheme == "svn+ssh":
            variables["SVN_SSH"] = ssh_variables(place, private)["GIT_SSH"]
        elif password is not None:
            user = place.secret_text("source", "username") or ""
            if not user or user.startswith("-") or not user.isprintable():
                raise StepFailed("InvalidSecret", "the source's Secret has no usable key username: add it")
            options += ["--username", user, "--password-from-stdin"]
            given = password.encode()
        yield options, variables, given
