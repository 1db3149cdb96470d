"""Options that many commands share, named as kubectl names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

Flag = Parameter(negative="", show_default=False)
"""A switch without its opposite: nobody types ``--no-watch``."""

Output = Annotated[Literal["json", "yaml", "wide"] | None, Parameter(name=["--output", "-o"])]
Data = Annotated[Literal["json", "yaml"] | None, Parameter(name=["--output", "-o"])]

Revision = Annotated[str, Parameter(help="live, previous, or a number that `history` shows.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Cluster and namespace."""

    namespace: Annotated[str | None, Parameter(name=["--namespace", "-n"])] = None
    """Namespace; without it, the context's."""
    context: str | None = None
    """Context of the kubeconfig; without it, the current one."""
    kubeconfig: str | None = None
    """Path of the kubeconfig; without it, KUBECONFIG or ~/.kube/config."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RegistryOptions:
    """How this machine reaches the registry, where that differs from the cluster."""

    registry: str | None = None
    """Prefix under which this machine reaches the registry, instead of the one that the log names."""
    insecure: Annotated[bool, Flag] = False
    """The registry speaks plain HTTP."""


HERE = Where()
SAME_REGISTRY = RegistryOptions()
