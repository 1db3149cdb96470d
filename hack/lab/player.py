"""Plays what runs in pods where there is no node: Jobs that answer, and pods that become ready.

The answers are digests of what was asked, so that equal questions have equal answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from slipway_operator.cluster.client import KubernetesCluster, NotFoundError
from slipway_operator.cluster.kinds import Where, object_path
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.errors import SlipwayError
from slipway_operator.domain.requests import (
    Built,
    Exported,
    Message,
    Removed,
    RemoveRequest,
    Resolved,
    Trained,
    Verified,
)
from slipway_operator.plan.observed import Manifest, ref_of

MERGE = "application/merge-patch+json"


def digest(*words: Any) -> str:
    """A digest that stands for these words."""
    return "sha256:" + hashlib.sha256(repr(words).encode()).hexdigest()


def answer_to(step: str, request: str, commit: str) -> Message:
    """What a Job of a step answers.

    Args:
        step: As its label says.
        request: What it was asked, as JSON.
        commit: What the repository's ref names now.
    """
    match step:
        case "resolve":
            return Resolved(commit=commit)
        case "build":
            made = digest("build", commit)
            return Built(
                commit=commit,
                package=digest("package", made),
                lock=digest("lock"),
                environment=digest("environment"),
                image=digest("image", made),
                export_image=digest("export image", made),
            )
        case "train":
            return Trained(
                artifact=digest("trained", request),
                model=digest("model", request),
                seconds=4.5,
                metrics={"auc": 0.7},
            )
        case "verify":
            return Verified(asked=7, schema_fits=True)
        case "remove":
            asked = RemoveRequest.model_validate_json(request)
            return Removed(removed=len(asked.digests) + len(asked.environments), gone=0)
        case _:
            native = json.loads(request).get("onFailure") == "ServeNative"
            answers = {"engine": "worker", "file": "model.joblib", "why": "no converter for Nearest"} if native else {}
            return Exported(
                image=digest("model image", request),
                artifact=digest("modelpack", request),
                onnx=digest("onnx", request),
                signature=digest("signature"),
                model=digest("model", request),
                rows=200,
                max_absolute_difference=2e-7,
                label_flips=0,
                **answers,
            )


def request_of(pod_spec: Mapping[str, Any]) -> str:
    """What a Job was asked: in its first container's environment."""
    (text,) = [e["value"] for e in pod_spec["containers"][0]["env"] if e["name"] == "SLIPWAY_REQUEST"]
    return str(text)


class Player:
    """Plays the pods of one namespace on a real API server, where its own controllers do the rest."""

    def __init__(self, cluster: KubernetesCluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self.commits: dict[str, str] = {}
        """Commit by the ref that names it."""
        self.played: dict[tuple[str, str], set[str]] = {}
        """Jobs that were run, by step and key."""

    async def play(self) -> None:
        """Play for ever."""
        where = Where("v1", "Pod", self._namespace)
        version = ""
        while True:
            try:
                if not version:
                    items, version = await self._cluster.list_at(where, selector=labels.OWNER)
                    for item in items:
                        await self._take(item)
                watch = self._cluster.watch(where, selector=labels.OWNER, version=version, seconds=300, silence=90)
                async for line in watch:
                    if not line:
                        continue
                    event: dict[str, Any] = json.loads(line)
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        await self._take({**event["object"], "apiVersion": "v1", "kind": "Pod"})
            except SlipwayError:
                version = ""  # what could not be played is played after the next list
                await asyncio.sleep(0.5)

    async def _take(self, pod: Manifest) -> None:
        if pod["metadata"].get("deletionTimestamp") or pod["status"].get("phase") != "Pending":
            return
        step = pod["metadata"]["labels"].get(labels.STEP)
        status = self._finished(pod, step) if step is not None else running(pod)
        try:
            path = object_path(ref_of(pod)) + "/status"
            await self._cluster.call("PATCH", path, body={"status": status}, media=MERGE)
        except (NotFoundError, ConflictError):
            return

    def _finished(self, pod: Manifest, step: str) -> Manifest:
        marks = pod["metadata"]["labels"]
        self.played.setdefault((step, marks[labels.KEY]), set()).add(marks["batch.kubernetes.io/job-name"])
        request = request_of(pod["spec"])
        ref = str(json.loads(request).get("source", {}).get("ref", ""))
        message = answer_to(step, request, self.commits.get(ref, digest(ref)[7:47]))
        return finished(pod, message.model_dump_json(by_alias=True, exclude_none=True))


def finished(pod: Manifest, message: str) -> Manifest:
    """Status of a Job's pod whose containers all ended well, the last with a message."""
    now = format_time(datetime.now(UTC))

    def ended(container: Manifest, text: str | None) -> Manifest:
        told = {"message": text} if text is not None else {}
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, **told}}
        return {**_container(container), "ready": False, "state": state}

    spec = pod["spec"]
    return {
        "phase": "Succeeded",
        "startTime": now,
        "initContainerStatuses": [ended(c, None) for c in spec.get("initContainers") or ()],
        "containerStatuses": [ended(c, message) for c in spec["containers"]],
    }


def running(pod: Manifest) -> Manifest:
    """Status of a serving pod that is ready."""
    now = format_time(datetime.now(UTC))
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": [
            {**_container(c), "ready": True, "started": True, "state": {"running": {"startedAt": now}}}
            for c in pod["spec"]["containers"]
        ],
    }


def _container(container: Manifest) -> Manifest:
    return {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
