"""The kinds that Slipway reads and writes, and where the API server has them."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from slipway_operator.plan.observed import Ref

MODEL_DEPLOYMENT = ("slipway.dev/v1alpha1", "ModelDeployment")
RETRAIN_JOB = ("slipway.dev/v1alpha1", "RetrainJob")

PLURALS = {
    MODEL_DEPLOYMENT: "modeldeployments",
    RETRAIN_JOB: "retrainjobs",
    ("batch/v1", "Job"): "jobs",
    ("v1", "Pod"): "pods",
    ("v1", "Service"): "services",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Event"): "events",
    ("v1", "Node"): "nodes",
    ("v1", "Namespace"): "namespaces",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "ControllerRevision"): "controllerrevisions",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("events.k8s.io/v1", "Event"): "events",
}

OWNED: tuple[tuple[str, str], ...] = (
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ConfigMap"),
    ("apps/v1", "ControllerRevision"),
)
"""What belongs to a ModelDeployment, found again by its owner's label."""


class Where(NamedTuple):
    """Kind and namespace of a collection."""

    api_version: str
    kind: str
    namespace: str


def collection_path(where: Where) -> str:
    """URL path of all objects of a kind in a namespace ('' for none)."""
    group = f"/apis/{where.api_version}" if "/" in where.api_version else f"/api/{where.api_version}"
    space = f"/namespaces/{quote(where.namespace, safe='')}" if where.namespace else ""
    return f"{group}{space}/{PLURALS[where.api_version, where.kind]}"


def object_path(ref: Ref) -> str:
    """URL path of one object."""
    return f"{collection_path(Where(ref.api_version, ref.kind, ref.namespace))}/{quote(ref.name, safe='')}"
