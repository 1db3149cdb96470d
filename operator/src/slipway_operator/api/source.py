"""Where a project comes from: a Git or Subversion repository, or a package in a registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from slipway_operator.api.hosts import HOST
from slipway_operator.api.schema import (
    INT_OR_STRING,
    Check,
    NumberAsText,
    RelativePath,
    SecretName,
    SpecModel,
    duration,
    matches,
    text_matches,
)

_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"

GIT_URL = matches(
    rf"((https?|git)://|ssh://({_USER}@)?){HOST}(/[!-~]*)?|{_USER}@[A-Za-z0-9][A-Za-z0-9.-]*:[!-,.-~][!-~]*",
    "must be an https://, http://, ssh:// or git:// URL or user@host:path, in printable ASCII, "
    "with a port from 1 to 65535 if with any, without a user or password for http and without a password for ssh "
    "(use secretName)",
)
SVN_URL = matches(
    rf"((https?|svn)://|svn[+]ssh://({_USER}@)?){HOST}(/[!-~]*)?",
    "must be an https://, http://, svn:// or svn+ssh:// URL in printable ASCII, "
    "with a port from 1 to 65535 if with any, without a user or password (use secretName)",
)
GIT_REF = matches(
    r"[A-Za-z0-9_@.+/][A-Za-z0-9_@.+/#=,%{}!-]*",
    "must be a branch, a tag, a full ref or a commit: no space, no leading '-', none of ~ ^ : ? * [ \\",
)
NO_RANGE = Check(
    "!self.contains('..')", "must be one ref, not a range: '..' is not allowed", lambda ref: ".." not in ref
)
PACKAGE_IMAGE = matches(
    rf"{HOST}(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{{64}}",
    "must be host/repository@sha256:<64 hexadecimal digits>: a tag can be moved, a digest cannot",
)


class Follow(SpecModel):
    """Following a branch."""

    interval: Annotated[str, *duration("10s", "168h")] = Field(
        default="5m",
        description="How often a small Job asks where the ref points to now. From 10s to 168h.",
    )


class GitSource(SpecModel):
    """A Git repository."""

    url: Annotated[str, GIT_URL] = Field(
        min_length=1,
        max_length=2048,
        description="URL of the repository: https, http, ssh, git, or user@host:path. "
        "Example: https://git.example.com/airline/flight-delay.git.",
    )
    ref: Annotated[str, GIT_REF, NO_RANGE] = Field(
        default="HEAD",
        min_length=1,
        max_length=255,
        description="Branch, tag or full commit. It is resolved to a commit once, and again only when the source in "
        "this object changes, or with follow. Example: v1.4.0.",
    )
    path: RelativePath = Field(
        default=".", description="Directory of the project in the repository. Example: models/flight-delay."
    )
    secret_name: SecretName | None = Field(
        default=None,
        description="Secret of this namespace that opens the repository: type kubernetes.io/basic-auth (https) or "
        "kubernetes.io/ssh-auth with a key known_hosts (ssh); ca.crt may be added. "
        "Whoever sets it must be allowed to get that Secret.",
    )
    follow: Follow | None = Field(
        default=None, description="Follows the ref as it moves. Without it the commit found first stays."
    )


class SvnSource(SpecModel):
    """A Subversion repository."""

    url: Annotated[str, SVN_URL] = Field(
        min_length=1,
        max_length=2048,
        description="URL of the directory: https, http, svn or svn+ssh. "
        "Example: https://svn.example.com/airline/trunk/flight-delay.",
    )
    revision: Annotated[
        str,
        NumberAsText,
        Field(json_schema_extra={INT_OR_STRING: True}),
        text_matches(r"HEAD|[0-9]{1,12}", "must be a revision number or HEAD"),
    ] = Field(
        default="HEAD",
        max_length=12,
        description="Revision number, or HEAD, which is resolved to a number once. Example: 1234.",
    )
    path: RelativePath = Field(default=".", description="Directory of the project below the URL.")
    secret_name: SecretName | None = Field(
        default=None,
        description="Secret of this namespace that opens the repository: type kubernetes.io/basic-auth or "
        "kubernetes.io/ssh-auth. Whoever sets it must be allowed to get that Secret.",
    )


class PackageSource(SpecModel):
    """A package that is in a registry already."""

    image: Annotated[str, PACKAGE_IMAGE] = Field(
        min_length=1,
        max_length=512,
        description="The package artifact by digest, as slipway package prints it. "
        "Example: registry.example.com/airline/flight-delay@sha256:<64 hexadecimal digits>.",
    )


class Source(SpecModel):
    """Where code and data come from."""

    checks = (
        # `package` is a word of CEL's own, hence the underscores.
        Check(
            "(has(self.git) ? 1 : 0) + (has(self.svn) ? 1 : 0) + (has(self.__package__) ? 1 : 0) == 1",
            "set exactly one of git, svn and package",
            lambda source: [source.git, source.svn, source.package].count(None) == 2,
        ),
    )

    git: GitSource | None = Field(default=None, description="A Git repository.")
    svn: SvnSource | None = Field(default=None, description="A Subversion repository.")
    package: PackageSource | None = Field(default=None, description="A package that is in a registry already.")
