"""Asks each node whether it can mount an image as a volume, instead of guessing from its version.

A small pod in the operator's own namespace mounts the runtime image; its answer is kept
for as long as the node and its kubelet stay what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from slipway_operator.cluster.client import AlreadyExistsError, KubernetesCluster, NotFoundError
from slipway_operator.cluster.compare import marked
from slipway_operator.cluster.errors import GoneError
from slipway_operator.cluster.kinds import Where, collection_path
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.digests import short_of
from slipway_operator.domain.errors import SlipwayError
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Ref
from slipway_operator.plan.pods import container_security, pod_security

LOOK_SECONDS = 60.0
ASK_AGAIN_SECONDS = 3600.0
WAIT_SECONDS = 45.0
"""A node that has not started the pod by then cannot mount images, or is too busy to be waited for."""
NOBODY = "nobody"
"""Stands for the nodes where they cannot be asked."""
RESULTS = "slipway-image-volumes"

log = structlog.get_logger()


class ImageVolumes:
    """What is known about the nodes; `known` answers at once."""

    def __init__(self, cluster: KubernetesCluster, settings: Settings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._answers: dict[str, bool] = {}
        self._nodes: tuple[str, ...] | None = None
        self._asked = 0.0

    async def known(self) -> bool | None:
        """Whether every node can; None: not known yet."""
        if self._nodes is None:
            return None
        answers = [self._answers.get(node) for node in self._nodes]
        if False in answers:
            return False
        return None if None in answers or not answers else True

    async def keep_asking(self, changed: Any) -> None:
        """Ask new nodes for ever.

        Args:
            changed: Called without arguments when the answer for the cluster changed.
        """
        if self._settings.model_delivery != "Auto":
            return
        while True:
            before = await self.known()
            try:
                await self._ask_new_nodes()
            except (SlipwayError, ConflictError, NotFoundError, GoneError) as error:
                log.warning("cannot ask the nodes about image volumes", error=str(error))
                if isinstance(error, SlipwayError) and error.reason == "Forbidden":
                    # Without the right to look, the way that works everywhere is taken.
                    self._nodes = (NOBODY,)
                    self._answers[NOBODY] = False
            except Exception:
                # An answer that nobody foresaw must not leave new nodes unasked for ever.
                log.exception("asking the nodes about image volumes failed")
            if await self.known() != before:
                log.info("image volumes", usable=await self.known())
                changed()
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask_new_nodes(self) -> None:
        nodes = {
            _identity(n): str(n["metadata"]["name"])
            for n in await self._cluster.list(Where("v1", "Node", ""))
            if not (n.get("spec") or {}).get("unschedulable")
        }
        if self._nodes is None:
            self._answers = await self._remembered()
        now = asyncio.get_running_loop().time()
        if now - self._asked > ASK_AGAIN_SECONDS:
            # A node that could not may have been busy, or was given what it lacked.
            self._answers = {i: a for i, a in self._answers.items() if a}
            self._asked = now
        new = {i: name for i, name in nodes.items() if i not in self._answers}
        answers = await asyncio.gather(*(self._ask(name) for name in new.values()))
        for identity, answer in zip(new, answers, strict=True):
            if answer is not None:
                self._answers[identity] = answer
        self._nodes = tuple(nodes)
        if new:
            await self._remember([i for i, a in self._answers.items() if a and i in nodes])

    async def _ask(self, node: str) -> bool | None:
        """Run the pod on a node; None: no answer could be had."""
        pod = probe_pod(self._settings, node)
        ref = Ref("v1", "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        await self._cluster.delete(ref)
        path = collection_path(Where("v1", "Pod", ref.namespace))
        try:
            made = await self._cluster.call("POST", path, body=pod)
        except AlreadyExistsError:
            return None  # the pod of another time is still on its way out; the next look asks
        try:
            if not any("image" in v for v in made["spec"].get("volumes") or ()):
                return False  # the API server dropped a field that it does not know
            deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
            while asyncio.get_running_loop().time() < deadline:
                seen = await self._cluster.get(ref)
                phase = ((seen or {}).get("status") or {}).get("phase")
                if phase in {"Succeeded", "Failed"}:
                    return bool(phase == "Succeeded")
                await asyncio.sleep(0.5)
            return False
        finally:
            await self._cluster.delete(ref)

    async def _remembered(self) -> dict[str, bool]:
        found = await self._cluster.get(Ref("v1", "ConfigMap", self._settings.operator_namespace, RESULTS))
        return {n: text == "true" for n, text in ((found or {}).get("data") or {}).items()}

    async def _remember(self, able: Sequence[str]) -> None:
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": RESULTS,
                "namespace": self._settings.operator_namespace,
                "labels": {labels.MANAGED_BY: labels.FIELD_MANAGER},
            },
            "data": dict.fromkeys(able, "true"),
        }
        await self._cluster.apply(marked(body))


def probe_pod(settings: Settings, node: str) -> Manifest:
    """A restricted pod that succeeds where the node can mount images."""
    pull = settings.registry.secret_name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"slipway-probe-{short_of(node)}",
            "namespace": settings.operator_namespace,
            "labels": {labels.PROBE: "image-volumes", labels.MANAGED_BY: labels.FIELD_MANAGER},
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(WAIT_SECONDS),
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            **({"imagePullSecrets": [{"name": pull}]} if pull else {}),
            "containers": [
                {
                    "name": "probe",
                    "image": settings.images.builder,
                    "args": ["probe"],
                    "securityContext": container_security(),
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                    "volumeMounts": [{"name": "image", "mountPath": "/model", "readOnly": True}],
                }
            ],
            "volumes": [
                {"name": "image", "image": {"reference": settings.images.runtime, "pullPolicy": "IfNotPresent"}}
            ],
        },
    }


def _identity(node: Mapping[str, Any]) -> str:
    kubelet = ((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")
    runtime = ((node.get("status") or {}).get("nodeInfo") or {}).get("containerRuntimeVersion", "")
    return short_of([node["metadata"]["uid"], kubelet, runtime])
