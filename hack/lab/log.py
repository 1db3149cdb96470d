"""The log of a ModelDeployment, as anybody may read it."""

from __future__ import annotations

from lab.kube import Kube, Manifest


def entries(kube: Kube, name: str, namespace: str) -> list[Manifest]:
    """Return what its entries say, the oldest first."""
    found = kube.list("controllerrevisions", namespace, f"slipway.dev/log=true,slipway.dev/owner={name}")
    return sorted((entry["data"] for entry in found), key=lambda data: int(data["number"]))
