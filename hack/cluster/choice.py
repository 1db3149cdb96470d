"""Chooses the cluster: the one that SLIPWAY_CONTEXT names; else kind, where a Docker engine runs; else this machine's.

``SLIPWAY_CLUSTER=local`` or ``kind`` overrides the last two, and a local cluster that is there already stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cluster import local
from cluster.layout import Layout
from tools.refusal import Refused


@dataclass(frozen=True)
class Choice:
    """Which cluster, and its context where somebody named one."""

    kind: Literal["context", "kind", "local"]
    context: str = ""


def choose(environment: Mapping[str, str] | None = None, layout: Layout | None = None) -> Choice:
    """Return the cluster to use.

    Raises:
        Refused: ``SLIPWAY_CLUSTER`` says something unknown.
    """
    given = os.environ if environment is None else environment
    where = layout or Layout.of_machine()
    if given.get("SLIPWAY_CONTEXT"):
        return Choice("context", given["SLIPWAY_CONTEXT"])
    forced = given.get("SLIPWAY_CLUSTER", "")
    if forced == "local":
        return Choice("local")
    if forced == "kind":
        return Choice("kind")
    if forced:
        raise Refused(f"SLIPWAY_CLUSTER is {forced!r}: set it to local or kind, or leave it out.")
    # Docker may be installed a day later; the cluster with the models in it is still the one that is meant.
    if where.kubeconfig.exists() or not local.has_docker():
        return Choice("local")
    return Choice("kind")
