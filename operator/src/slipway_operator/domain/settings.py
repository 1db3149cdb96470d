"""What the platform decides for every deployment: the operator's one settings file.

The chart renders it from its values into a ConfigMap, mounted at
``/etc/slipway/settings.yaml``; nothing else configures the operator.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from slipway_operator.api import Traces
from slipway_operator.domain.directives import Stamps
from slipway_operator.domain.requests import Interpreter, Registry


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Images(_Settings):
    """Slipway's own images, by digest."""

    builder: str
    runtime: str
    compiler: str | None = None
    """Builder with a compiler, for the container that builds sources; None: what needs one is refused."""


class RegistrySettings(Registry):
    """The registry, with the name of the Secret that opens it, if it needs one.

    The Secret (type ``kubernetes.io/dockerconfigjson``) must exist in each namespace
    that deploys; the operator names it in Jobs and pods and never reads it.
    """

    secret_name: str | None = None


class IndexSettings(_Settings):
    """Python package index; None is uv's default."""

    url: str | None = None
    secret_name: str | None = None
    """Secret with keys ``username`` and ``password``, in each namespace that deploys."""


class ProxySettings(_Settings):
    """Outgoing proxy for Jobs, as the usual environment variables."""

    http: str | None = None
    https: str | None = None
    no: str | None = None


class PublishedList(_Settings):
    """One version of a common package list: hash-checked requirements."""

    name: str
    version: str
    python: str
    requirements: str


class JobSettings(_Settings):
    """Bounds on the Jobs that run in users' namespaces (Kubernetes quantities and seconds)."""

    cpu_request: str = "250m"
    memory_request: str = "512Mi"
    memory_limit: str = "4Gi"
    work_volume_limit: str = "8Gi"
    build_timeout_seconds: int = 1800
    transient_retries_seconds: tuple[int, ...] = (10, 20, 40, 80, 160, 300)
    """Waits before a Job that failed for a passing reason runs again; the last one repeats."""


class RollbackSettings(_Settings):
    """How sure it is kept that a rollback would work."""

    verify_every_seconds: int = Field(default=6 * 3600, ge=60)
    """Time after which the registry is asked again whether the content to go back to is there."""


class CleanUpSettings(_Settings):
    """What goes when nothing needs it any more."""

    registry: bool = True
    """False: nothing is ever deleted from the registry; log entries go all the same."""


class LogSettings(_Settings):
    """What becomes of the log."""

    keep_after_deletion: bool = False
    """True: entries belong to nobody, so that they stay when their ModelDeployment is deleted."""


class ServingSettings(_Settings):
    """What the platform decides for all serving pods; a change replaces them, one after the other."""

    traces: Traces | None = None
    """Of models whose spec says nothing of them."""
    access_log: bool = False
    metrics_from: tuple[dict[str, Any], ...] = ()
    """NetworkPolicy peers that may read metrics where they have a port of their own; the operator may anyhow."""


class Settings(_Settings):
    """The whole file."""

    images: Images
    interpreters: tuple[Interpreter, ...] = Field(min_length=1)
    """The first is the default; ``spec.environment.python`` chooses another."""
    registry: RegistrySettings
    index: IndexSettings = IndexSettings()
    proxy: ProxySettings = ProxySettings()
    ca_bundle: str | None = None
    """PEM text that Jobs trust beside nothing else; None: what the builder image ships."""
    package_lists: tuple[PublishedList, ...] = ()
    jobs: JobSettings = JobSettings()
    rollback: RollbackSettings = RollbackSettings()
    clean_up: CleanUpSettings = CleanUpSettings()
    log: LogSettings = LogSettings()
    serving: ServingSettings = ServingSettings()
    model_delivery: Literal["Auto", "ImageVolume", "InitContainer"] = "Auto"
    """Auto probes every node, and falls back to an init container where one cannot mount images."""
    stamps: Stamps = Stamps.UNCHECKED
    """Who sees to it that annotations which say who asked are true."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are served; empty: all of them (cluster-wide mode)."""
    operator_namespace: str = "slipway-system"
