"""kopf's handlers, for the two kinds that are Slipway's own. They only ring: what changed is never read from an event.

What belongs to a ModelDeployment rings through `cluster.watching`.

Event handlers put no finalizer and no annotation on anything, so that deleting and
uninstalling never wait for the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from slipway_operator.controllers.freshness import Freshness
from slipway_operator.controllers.workers import Workers
from slipway_operator.domain.keys import Key

WATCH_SECONDS = 600
"""A watch is opened anew this often, so that one that died quietly does not stay."""
SILENCE_SECONDS = 90
"""Without an event or a bookmark for this long, a watch counts as dead."""


def register(
    registry: kopf.OperatorRegistry,
    *,
    deployments: Workers[Key],
    retrainings: Workers[Key],
    freshness: Freshness,
    is_echo: Callable[[Key, str], bool],
) -> None:
    """Tell kopf what rings for whom; a version that we made ourselves (``is_echo``) rings for nobody."""

    async def ring_deployment(namespace: str | None, name: str | None, meta: Mapping[str, Any], **_: Any) -> None:
        if name and namespace:
            key, version = Key(namespace, name), str(meta.get("resourceVersion", ""))
            freshness.seen(key, version)
            if not is_echo(key, version):
                deployments.ring(key)

    async def ring_retraining(namespace: str | None, name: str | None, **_: Any) -> None:
        if name and namespace:
            retrainings.ring(Key(namespace, name))

    async def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    kopf.on.login(registry=registry)(log_in)
    kopf.on.event("slipway.dev", "v1alpha1", "modeldeployments", registry=registry)(ring_deployment)
    kopf.on.event("slipway.dev", "v1alpha1", "retrainjobs", registry=registry)(ring_retraining)


def watching(settings: kopf.OperatorSettings) -> None:
    """Settings of the watches: streams that end by themselves, and nothing written by kopf."""
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_SECONDS + 60
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = SILENCE_SECONDS
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 60
    settings.queueing.worker_limit = 64
    # A worker of kopf's lingers for so long in case its object has more news, and counts against the limit: with the
    # five seconds of the default, a thousand objects would ring at 13 a second. Ours only ring, and keep nothing.
    settings.queueing.idle_timeout = 0.05
    settings.posting.enabled = False
    # Kinds and namespaces are known at the start; watching for more of them would need rights beyond our own.
    settings.scanning.disabled = True
    settings.peering.standalone = True
    # Unused, as nothing here keeps progress or blocks a deletion; unique all the same.
    settings.persistence.finalizer = "slipway.dev/unused"
