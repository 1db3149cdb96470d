"""Builders of what serves a content: Deployment, Service, autoscaler, budget."""

from __future__ import annotations

from dataclasses import dataclass

from slipway_operator.api import Autoscaling, ModelDeploymentSpec, Serving
from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import MODEL
from slipway_operator.plan.native import is_native, native_volumes, worker_container
from slipway_operator.plan.observed import Manifest, Observed, metadata_for
from slipway_operator.plan.pods import container_security, mount, pod_spec, scratch, secret_mounts, secret_volumes
from slipway_operator.plan.ports import service_ports
from slipway_operator.plan.runtime import runtime_container, runtime_volumes

DRAIN_SECONDS = 30
PROGRESS_SECONDS = 600
_LARGEST_MODEL = "2Gi"
"""What a model may have, and so what its layer may have while it is unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A content with what a pod needs to serve it."""

    content: Content
    repository: str
    """Where the content's images were pushed: a later change of the platform's registry moves no pod."""
    replicas: int
    image_volume: bool
    puller: str | None = None
    """Image of the init container that the pods have already: an upgrade of Slipway moves no pod."""
    canary_of: str | None = None
    """Lane of the live content, where these are a canary's pods: they answer a share of its requests."""
    resource_version: str | None = None
    """Where an autoscaler may write too: apply only onto the object that was read."""


def repository_for(seen: Observed) -> str:
    """The deployment's own repository, by the registry of today."""
    return f"{seen.settings.registry.prefix}/{seen.key.namespace}/{seen.key.name}"


def deployment_name(owner: str, content: Content) -> str:
    """A Deployment for each content."""
    return f"{owner}-{content.short}"


def canary_name(owner: str, content: Content) -> str:
    """The Deployment of a content's canary; at most 63 characters, as an owner's name has at most 45."""
    return f"{deployment_name(owner, content)}-canary"


def selector_text(owner: str, lane: str) -> str:
    """The selector of a lane's pods, as the scale subresource wants it."""
    return f"{labels.OWNER}={owner},{labels.LANE}={lane}"


def deployment_for(seen: Observed, spec: ModelDeploymentSpec, served: Served) -> Manifest:
    """The Deployment of one content, live, standby or on its way, or of its canary.

    A canary's pods carry another label than the content's own, so that neither Deployment
    (nor an autoscaler) takes the other's pods for its own.
    """
    content = served.content
    if served.canary_of is None:
        meta = metadata_for(seen, deployment_name(seen.key.name, content), content=content.short)
        own = {labels.OWNER: seen.key.name, labels.CONTENT: content.short}
    else:
        meta = metadata_for(seen, canary_name(seen.key.name, content), canary=content.short)
        own = {labels.OWNER: seen.key.name, labels.CANARY: content.short}
    if served.resource_version is not None:
        meta["resourceVersion"] = served.resource_version
    pod_labels = {**meta["labels"], labels.LANE: served.canary_of or content.short}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": served.replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            "selector": {"matchLabels": own},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": pod_labels},
                "spec": _serving_pod(seen, spec, served, own=own),
            },
        },
    }


def service_for(seen: Observed, serving: Serving, lane: str) -> Manifest:
    """The Service: one patch of its selector is the switch."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_for(seen, seen.key.name),
        "spec": {
            "type": "ClusterIP",
            "selector": {labels.OWNER: seen.key.name, labels.LANE: lane},
            "ports": service_ports(seen, serving, lane),
        },
    }


def budget_for(seen: Observed, lane: str) -> Manifest:
    """At most one pod of the live lane is evicted at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata_for(seen, seen.key.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {labels.OWNER: seen.key.name, labels.LANE: lane}},
            # A pod that never became ready must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def autoscaler_for(seen: Observed, autoscaling: Autoscaling, content: Content) -> Manifest:
    """The autoscaler, on the Deployment of the live content."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata_for(seen, seen.key.name),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": deployment_name(seen.key.name, content),
            },
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_utilization},
                    },
                }
            ],
        },
    }


def settings_for(seen: Observed, package_list: str | None) -> Manifest:
    """What Jobs find in ``/settings``."""
    data = {"ca.crt": seen.settings.ca_bundle, "package-list.txt": package_list}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata_for(seen, f"{seen.key.name}-build"),
        "data": {name: text for name, text in data.items() if text is not None},
    }


def has_image_volume(deployment: Manifest) -> bool:
    """Whether a Deployment's pods mount the model as an image."""
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or ()
    return any("image" in v for v in volumes)


def puller_of(deployment: Manifest) -> str | None:
    """Image of the init container that pulls the model, where there is one."""
    before = deployment["spec"]["template"]["spec"].get("initContainers") or ()
    return next((str(c["image"]) for c in before if c["name"] == "pull"), None)


def _serving_pod(seen: Observed, spec: ModelDeploymentSpec, served: Served, *, own: dict[str, str]) -> Manifest:
    content, settings = served.content, seen.settings
    reference = f"{served.repository}@{content.model_image}"
    secrets = {"registry": settings.registry.secret_name}
    if served.image_volume:
        volumes = [{"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]
        before = []
    else:
        volumes = [scratch("model", _LARGEST_MODEL), scratch("pull", _LARGEST_MODEL), *secret_volumes(secrets)]
        before = [_puller(seen, served, reference, secrets)]
    if is_native(content):
        volumes += native_volumes()
        before.append(worker_container(settings, spec.serving, content, served.repository))
    return pod_spec(
        settings,
        terminationGracePeriodSeconds=DRAIN_SECONDS,
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": own},
            }
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        ],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": own},
                        },
                    }
                ]
            }
        },
        **({"initContainers": before} if before else {}),
        containers=[runtime_container(seen, spec, content)],
        volumes=[*volumes, scratch("tmp", "256Mi"), *runtime_volumes(spec.serving)],
    )


def _puller(seen: Observed, served: Served, reference: str, secrets: dict[str, str | None]) -> Manifest:
    insecure = ["--insecure"] if seen.settings.registry.insecure else []
    return {
        "name": "pull",
        "image": served.puller or seen.settings.images.builder,
        "imagePullPolicy": "IfNotPresent",
        "args": ["pull-model", reference, MODEL, *insecure],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a volume of the pod's own
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mount("model", MODEL),
            mount("pull", "/tmp"),  # noqa: S108 - a volume of its own
            *secret_mounts(secrets, ("registry",)),
        ],
    }
