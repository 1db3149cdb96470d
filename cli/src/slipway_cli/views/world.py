"""All that is known of one deployment at one moment: what every view of it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class World:
    """A ModelDeployment and what the cluster holds of it.

    Attributes:
        resource: The ModelDeployment.
        entries: ``data`` of its log's entries, oldest first.
        deployments: One for each content that has pods, and a canary's.
        pods: Of contents and of Jobs.
        jobs: Its steps.
        service: Which content's pods get the traffic.
        unseen: Kinds that this person may not list.
    """

    resource: Manifest
    entries: tuple[Manifest, ...] = ()
    deployments: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    service: Manifest | None = None
    unseen: tuple[str, ...] = ()
