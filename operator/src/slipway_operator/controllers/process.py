"""Puts the operator's process together, runs it, and lets it end in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import kopf
import structlog
import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from slipway_operator.cluster.cached import CachedCluster
from slipway_operator.cluster.client import KubernetesCluster
from slipway_operator.cluster.figures import Figures
from slipway_operator.cluster.kinds import OWNED
from slipway_operator.cluster.store import Store
from slipway_operator.cluster.watching import Watches
from slipway_operator.controllers import web
from slipway_operator.controllers.freshness import Freshness, keep_comparing, listed_versions
from slipway_operator.controllers.handlers import register, watching
from slipway_operator.controllers.metrics import Metrics
from slipway_operator.controllers.nodes import ImageVolumes
from slipway_operator.controllers.reconcile import Reconciler, Room
from slipway_operator.controllers.workers import Workers
from slipway_operator.domain.keys import Key
from slipway_operator.domain.settings import Settings

SETTINGS_PATH = "/etc/slipway/settings.yaml"
SETTINGS_VARIABLE = "SLIPWAY_SETTINGS"
PORT_VARIABLE = "SLIPWAY_HEALTH_PORT"
CONNECTIONS = 64
"""Requests at the same time, beside the watches: each of those keeps a connection for itself."""
READY_SECONDS = 120.0

log = structlog.get_logger()


def load_settings(path: Path | None = None) -> Settings:
    """The platform's settings file.

    Raises:
        OSError: it cannot be read.
        pydantic.ValidationError: it is not what `Settings` describes.
    """
    chosen = path or Path(os.environ.get(SETTINGS_VARIABLE, SETTINGS_PATH))
    return Settings.model_validate(yaml.safe_load(chosen.read_text(encoding="utf-8")))


async def api_client(namespaces: Sequence[str] = ()) -> ApiClient:
    """One client for all: from the pod's service account, else from the kubeconfig.

    Args:
        namespaces: What is watched, each by itself; empty: all, at once.
    """
    configuration = Configuration()
    try:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except kube_config.ConfigException:
        await kube_config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = CONNECTIONS + len(OWNED) * max(len(namespaces), 1)
    # Else each request looks for a proxy and a password in environment and files, in a thread of its own.
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL, if any."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def run(settings: Settings, *, port: int | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(await api_client(settings.namespaces))
        cluster = KubernetesCluster(client)
        volumes = ImageVolumes(cluster, settings)
        figures = Figures(await stack.enter_async_context(aiohttp.ClientSession()))
        store = Store()

        def ring(key: Key) -> None:
            deployments.ring(key)

        watches = Watches(cluster, store, settings.namespaces, ring)
        cached = CachedCluster(cluster, store, watches)
        metrics = Metrics()
        reconciler = Reconciler(
            Room(
                cluster=cached,
                settings=settings,
                now=lambda: datetime.now(UTC),
                image_volumes=volumes.known,
                ask_pods=figures.of,
                told=metrics.told,
            )
        )
        freshness = Freshness()
        deployments: Workers[Key] = Workers(reconciler.model_deployment, metrics, kind="ModelDeployment")
        retrainings: Workers[Key] = Workers(reconciler.retrain_job, metrics, kind="RetrainJob")
        registry = kopf.OperatorRegistry()
        register(
            registry,
            deployments=deployments,
            retrainings=retrainings,
            freshness=freshness,
            is_echo=cached.is_echo,
        )
        kopf_settings = kopf.OperatorSettings()
        watching(kopf_settings)

        def ring_all() -> None:
            for key in deployments.known():
                deployments.ring(key)

        async def versions() -> Mapping[Key, str]:
            return await listed_versions(cluster, settings.namespaces)

        def page() -> tuple[int, str]:
            text = metrics.text(
                keys=len(deployments.known()),
                kept=len(store),
                watch_age=freshness.age,
                requests=cluster.requests,
            )
            return 200, text

        def is_ready() -> bool:
            return cluster.last_answer is not None and loop.time() - cluster.last_answer < READY_SECONDS

        server = web.Web(
            {
                "/healthz": web.health(freshness.is_alive, "alive", "a watch is behind, or the loop stands still"),
                "/readyz": web.health(is_ready, "ready", "the API server has not answered for a while"),
                "/metrics": page,
            },
            port if port is not None else int(os.environ.get(PORT_VARIABLE, web.PORT)),
        )
        stack.callback(server.close)
        tasks = [
            asyncio.create_task(keep_comparing(freshness, versions, ring), name="compare"),
            asyncio.create_task(volumes.keep_asking(ring_all), name="image volumes"),
            asyncio.create_task(watches.keep(), name="watches"),
        ]
        handlers = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=kopf_settings,
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                stop_flag=stop,
            ),
            name="handlers",
        )
        log.info("started", namespaces=settings.namespaces or "all")
        await asyncio.wait(
            {handlers, asyncio.create_task(stop.wait(), name="stop")}, return_when=asyncio.FIRST_COMPLETED
        )
        log.info("stopping")
        stop.set()
        await deployments.close()
        await retrainings.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await handlers
