"""The Jobs of a step: one restricted pod, containers in turn, the last one answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway_operator.domain import labels
from slipway_operator.domain.requests import HANDOVER, SETTINGS, WORK, Message
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Observed, metadata_for
from slipway_operator.plan.pods import container_security, mount, pod_spec, scratch, secret_mounts, secret_volumes

NAME_LIMIT = 63
"""A Job's name is a label of its pods."""
EXPORTER_COMMAND = ("/opt/env/bin/python", "/opt/slipway/exporter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of a Job's chain."""

    name: str
    image: str
    args: tuple[str, ...]
    command: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """Uses of the Secrets that it may mount."""
    handover: str | None = None
    """``"write"`` or ``"read"``: whether it sees the volume that project code cannot reach."""
    resources: Manifest
    env: Mapping[str, str] = field(default_factory=dict)
    project_code: bool = False
    """Runs code of the project, in the project's image: it may write there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """All of a Job but its attempt."""

    step: str
    key: str
    chain: str
    source: str
    token: str
    """What may make a failed step worth another try; see `labels.TRY`."""
    request: Message
    containers: tuple[Container, ...]
    deadline_seconds: int
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def job_name(owner: str, step: str, key: str, attempt: int) -> str:
    """``<name>-<step>-<key>-<attempt>``, with the owner's name cut where it would not fit.

    The key holds namespace and name of the owner, so that cut names never collide.
    """
    tail = f"-{step}-{key}-{attempt}"
    return owner[: NAME_LIMIT - len(tail)].rstrip("-") + tail


def attempt_of(job: Mapping[str, Manifest]) -> int:
    """Which attempt a Job is, from its name."""
    return int(str(job["metadata"]["name"]).rpartition("-")[2])


def job_for(seen: Observed, spec: JobSpec, attempt: int) -> Manifest:
    """The Job of one attempt at a step."""
    more = {"step": spec.step, "key": spec.key, "chain": spec.chain, "source": spec.source}
    meta = metadata_for(seen, job_name(seen.key.name, spec.step, spec.key, attempt), **more)
    meta["annotations"] = {**spec.annotations, labels.TRY: spec.token}
    chain = [_container(seen.settings, spec, c) for c in spec.containers]
    limit = seen.settings.jobs.work_volume_limit
    handover = [scratch("handover", limit)] if any(c.handover for c in spec.containers) else []
    pod = pod_spec(
        seen.settings,
        restartPolicy="Never",
        terminationGracePeriodSeconds=10,
        containers=chain[-1:],
        volumes=[
            scratch("work", limit),
            scratch("tmp", limit),
            *handover,
            {"name": "settings", "configMap": {"name": f"{seen.key.name}-build"}},
            *secret_volumes(spec.secrets),
        ],
        **({"initContainers": chain[:-1]} if len(chain) > 1 else {}),
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": spec.deadline_seconds,
            # A drained or pressed node is nobody's failure: the pod is made again.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": dict(meta["labels"])}, "spec": pod},
        },
    }


def platform_resources(settings: Settings) -> Manifest:
    """Resources of a Job's container where the spec says nothing."""
    jobs = settings.jobs
    return {
        "requests": {"cpu": jobs.cpu_request, "memory": jobs.memory_request},
        "limits": {"memory": jobs.memory_limit},
    }


def small_resources() -> Manifest:
    """Resources of a container that only asks others."""
    return {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}


def _container(settings: Settings, spec: JobSpec, container: Container) -> Manifest:
    request = spec.request.model_dump_json(by_alias=True, exclude_none=True)
    # Ours last: the API takes the last of two values of one name, and nobody may pass another request.
    env = {**_environment(settings), **container.env, "SLIPWAY_REQUEST": request}
    handover = (
        [mount("handover", HANDOVER, read_only=container.handover == "read")] if container.handover is not None else []
    )
    return {
        "name": container.name,
        "image": container.image,
        "imagePullPolicy": "IfNotPresent",
        **({"command": list(container.command)} if container.command else {}),
        "args": list(container.args),
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "resources": container.resources,
        "securityContext": container_security(read_only=not container.project_code),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("work", WORK),
            mount("tmp", "/tmp"),  # noqa: S108 - a volume of the pod's own
            *handover,
            mount("settings", SETTINGS, read_only=True),
            *secret_mounts(spec.secrets, container.secrets),
        ],
    }


def _environment(settings: Settings) -> dict[str, str]:
    """Proxies, index and authority, as the usual variables; some programs know only the lower-case ones."""
    proxy = settings.proxy
    env = {"HOME": "/tmp"}  # noqa: S108 - a volume of the pod's own
    for name, value in (("http_proxy", proxy.http), ("https_proxy", proxy.https), ("no_proxy", proxy.no)):
        if value:
            env |= {name.upper(): value, name: value}
    if settings.index.url:
        env["UV_DEFAULT_INDEX"] = settings.index.url
    if settings.ca_bundle:
        env["SSL_CERT_FILE"] = f"{SETTINGS}/ca.crt"
    return env
