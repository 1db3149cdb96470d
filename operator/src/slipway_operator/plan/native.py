"""The container in which a model answers that cannot be ONNX: a project's code beside the runtime, fenced off from it.

It is the project's own environment with the exporter's server in it, started before the
runtime and ended after it, so that what is in flight is answered to the last. It sees the model,
a directory in memory that it shares with the runtime, and nothing else: no Secret, no token,
no file system to write to, and by the pods' policy no network.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal

from slipway_operator.api import Native, Serving, parse_duration
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import MODEL
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.jobs import EXPORTER_COMMAND, platform_resources
from slipway_operator.plan.observed import Manifest
from slipway_operator.plan.pods import container_security, mount, scratch

NAME = "worker"
SHARED = "/worker"
"""Where both containers mount the directory of the socket and of large tensors."""
_SOCKET = f"{SHARED}/worker.sock"
_SHARED_LIMIT = "512Mi"
_START_GRACE_SECONDS = 30
_OF_LIMIT = Decimal("0.9")
"""The server replaces itself, between two requests, before the kernel would end it."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def is_native(content: Content) -> bool:
    """Whether the model itself answers."""
    return content.engine == "worker"


def worker_container(settings: Settings, serving: Serving, content: Content, repository: str) -> Manifest:
    """The container that holds the model: a sidecar, which runs as long as the runtime does."""
    resources = native_resources(settings, serving)
    told = {
        "socket": _SOCKET,
        "model": f"{MODEL}/{content.file}",
        "signature": f"{MODEL}/signature.json",
        "memoryBytes": _most_memory(resources),
    }
    return {
        "name": NAME,
        "image": f"{repository}@{content.worker}",
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(EXPORTER_COMMAND),
        "args": ["serve"],
        "env": [
            {"name": "SLIPWAY_WORKER", "value": json.dumps(told)},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a volume of the container's own
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        "resources": resources,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("model", MODEL, read_only=True),
            mount("worker", SHARED),
            mount("worker-tmp", "/tmp"),  # noqa: S108 - a volume
        ],
    }


def native_volumes() -> list[Manifest]:
    """What the worker writes to: memory that it shares with the runtime, and a place of its own."""
    shared = {"name": "worker", "emptyDir": {"medium": "Memory", "sizeLimit": _SHARED_LIMIT}}
    return [shared, scratch("worker-tmp", "1Gi")]


def native_arguments(serving: Serving, content: Content) -> list[str]:
    """Tells the runtime that a worker answers, and how long it may take."""
    native = serving.native or Native()
    return [
        "--worker-socket",
        _SOCKET,
        "--worker-model",
        str(content.file),
        "--worker-seconds",
        str(parse_duration(native.prediction_timeout)),
        "--worker-start-seconds",
        str(parse_duration(native.start_timeout)),
    ]


def start_seconds(serving: Serving) -> int:
    """How long a pod may take until it is ready: to load the model, and to answer its rows."""
    return parse_duration((serving.native or Native()).start_timeout) + _START_GRACE_SECONDS


def native_resources(settings: Settings, serving: Serving) -> Manifest:
    """Resources of the worker: as the spec says, else those in which the model was made."""
    own = (serving.native or Native()).resources.to_container()
    default = platform_resources(settings)
    if not own:
        return default
    limits = own.get("limits", {})
    requests = {name: amount for name, amount in default["requests"].items() if name not in limits}
    return {"requests": {**requests, **own.get("requests", {})}, **({"limits": limits} if limits else {})}


def _most_memory(resources: Manifest) -> int:
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]{0,2})", str((resources.get("limits") or {}).get("memory") or ""))
    if found is None or found[2] not in _UNITS:
        return 0
    return int(Decimal(found[1]) * _UNITS[found[2]] * _OF_LIMIT)
