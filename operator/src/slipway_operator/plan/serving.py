"""Builders of what serves a content: Deployment, Service, autoscaler, budget, network policies."""

from __future__ import annotations

from dataclasses import dataclass

from slipway_operator.api import Autoscaling, ModelDeploymentSpec
from slipway_operator.domain import labels
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import MODEL
from slipway_operator.plan.observed import Manifest, Observed, metadata_for
from slipway_operator.plan.pods import container_security, mount, pod_spec, scratch, secret_mounts, secret_volumes

PORT = 8080
GRPC_PORT = 8081
"""The runtime's default, and told to no runtime: one of a content from before gRPC starts, too."""
DEFAULT_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
DRAIN_SECONDS = 30
PROGRESS_SECONDS = 600


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


def service_for(seen: Observed, lane: str) -> Manifest:
    """The Service: one patch of its selector is the switch."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_for(seen, seen.key.name),
        "spec": {
            "type": "ClusterIP",
            "selector": {labels.OWNER: seen.key.name, labels.LANE: lane},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
                {
                    "name": "grpc",
                    "port": GRPC_PORT,
                    "targetPort": "grpc",
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
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


def serving_policy_for(seen: Observed, *, pods_pull: bool) -> Manifest:
    """Serving pods take predictions and start nothing.

    Args:
        seen: What was observed.
        pods_pull: An init container of the serving pods fetches the model: they need a way out.
    """
    owner = seen.key.name
    spec = {
        "podSelector": {
            "matchLabels": {labels.OWNER: owner},
            "matchExpressions": [{"key": labels.LANE, "operator": "Exists"}],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"} for port in (PORT, GRPC_PORT)]}],
        **({"egress": [{}]} if pods_pull else {}),
    }
    return _policy(seen, owner, spec)


def jobs_policy_for(seen: Observed) -> Manifest:
    """Jobs take nothing and may fetch; it is there before the first of them."""
    owner = seen.key.name
    spec = {
        "podSelector": {
            "matchLabels": {labels.OWNER: owner},
            "matchExpressions": [{"key": labels.STEP, "operator": "Exists"}],
        },
        "policyTypes": ["Ingress"],
    }
    return _policy(seen, f"{owner}-jobs", spec)


def _policy(seen: Observed, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_for(seen, name),
        "spec": spec,
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


def serving_resources(spec: ModelDeploymentSpec) -> Manifest:
    """Resources of a serving pod: as the spec says, with small requests where it says nothing."""
    own = spec.serving.resources.to_container()
    limits = own.get("limits", {})
    defaults = {name: amount for name, amount in DEFAULT_REQUESTS.items() if name not in limits}
    return {**own, "requests": {**defaults, **own.get("requests", {})}}


def _serving_pod(seen: Observed, spec: ModelDeploymentSpec, served: Served, *, own: dict[str, str]) -> Manifest:
    content, settings = served.content, seen.settings
    reference = f"{served.repository}@{content.model_image}"
    secrets = {"registry": settings.registry.secret_name}
    if served.image_volume:
        volumes = [{"name": "model", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]
        before: Manifest = {}
    else:
        volumes = [scratch("model", "2Gi"), *secret_volumes(secrets)]
        before = {"initContainers": [_puller(seen, served, reference, secrets)]}
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
        **before,
        containers=[_runtime(seen, spec, content)],
        volumes=[*volumes, scratch("tmp", "256Mi")],
    )


def _runtime(seen: Observed, spec: ModelDeploymentSpec, content: Content) -> Manifest:
    def probe(path: str, **numbers: int) -> Manifest:
        return {"httpGet": {"path": path, "port": "http"}, **numbers}

    return {
        "name": "runtime",
        "image": content.runtime,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--model-dir",
            MODEL,
            "--name",
            seen.key.name,
            "--version",
            content.short,
            "--model-digest",
            content.onnx,
            "--port",
            str(PORT),
        ],
        "ports": [
            {"name": "http", "containerPort": PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        "resources": serving_resources(spec),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Ready after the example rows were answered; a minute and a half for a large model on a small node.
        "startupProbe": probe("/v2/health/ready", periodSeconds=1, timeoutSeconds=2, failureThreshold=90),
        "readinessProbe": probe("/v2/health/ready", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": probe("/v2/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "volumeMounts": [mount("model", MODEL, read_only=True), mount("tmp", "/tmp")],  # noqa: S108 - a volume
    }


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
            mount("tmp", "/tmp"),  # noqa: S108 - a volume of the pod's own
            *secret_mounts(secrets, ("registry",)),
        ],
    }
