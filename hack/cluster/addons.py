"""What the cluster holds from its first minute: DNS, metrics, the default StorageClass, and their rights. Pure."""

from __future__ import annotations

import base64
from typing import Any

from cluster.layout import DNS_SERVICE_IP, NODE, PORTS

LABELS = {"app.kubernetes.io/managed-by": "slipway-local-cluster"}
DIGEST = "slipway.dev/local-cluster-digest"
"""Annotation of the last object: what all of them were made from."""
PROVISIONER = "slipway.dev/local-folder"
READ = ["get", "list", "watch"]


def manifests(node_ip: str, authority: bytes) -> dict[str, Any]:
    """Return everything as one List, ready for server-side apply.

    Args:
        node_ip: Where the processes behind the Services listen.
        authority: The certificate (PEM) that signed the metrics server's.
    """
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            *_dns(node_ip),
            *_metrics(node_ip, base64.b64encode(authority).decode()),
            *_storage(),
        ],
    }


def _dns(node_ip: str) -> list[dict[str, Any]]:
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service = _object("v1", "Service", "kube-dns", "kube-system", extra={"k8s-app": "kube-dns"})
    service["spec"] = {
        "clusterIP": DNS_SERVICE_IP,
        "ports": [
            {"name": name, "protocol": protocol, "port": 53, "targetPort": PORTS.dns} for name, protocol in ports
        ],
    }
    return [
        service,
        _endpoints("kube-dns", node_ip, [(name, protocol, PORTS.dns) for name, protocol in ports]),
        *_role(
            "system:coredns",
            "system:coredns",
            [
                _rule([""], ["endpoints", "services", "pods", "namespaces"], READ),
                _rule(["discovery.k8s.io"], ["endpointslices"], READ),
            ],
        ),
    ]


def _metrics(node_ip: str, authority: str) -> list[dict[str, Any]]:
    service = _object("v1", "Service", "metrics-server", "kube-system")
    service["spec"] = {"ports": [{"name": "https", "port": 443, "targetPort": PORTS.metrics_server}]}
    registration = _object("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.k8s.io")
    registration["spec"] = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"name": "metrics-server", "namespace": "kube-system"},
        "caBundle": authority,
    }
    reader = _object("rbac.authorization.k8s.io/v1", "RoleBinding", "metrics-server-auth-reader", "kube-system")
    reader["roleRef"] = _role_ref("Role", "extension-apiserver-authentication-reader")
    reader["subjects"] = [_user("system:metrics-server")]
    delegator = _object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "metrics-server:auth-delegator")
    delegator["roleRef"] = _role_ref("ClusterRole", "system:auth-delegator")
    delegator["subjects"] = [_user("system:metrics-server")]
    aggregated = _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        "system:aggregated-metrics-reader",
        extra={f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")},
    )
    aggregated["rules"] = [_rule(["metrics.k8s.io"], ["pods", "nodes"], READ)]
    return [
        service,
        _endpoints("metrics-server", node_ip, [("https", "TCP", PORTS.metrics_server)]),
        *_role(
            "system:metrics-server",
            "system:metrics-server",
            [_rule([""], ["nodes/metrics"], ["get"]), _rule([""], ["pods", "nodes"], READ)],
        ),
        reader,
        delegator,
        aggregated,
        registration,
    ]


def _storage() -> list[dict[str, Any]]:
    storage_class = _object("storage.k8s.io/v1", "StorageClass", "local-folder")
    storage_class["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class |= {
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [
        storage_class,
        *_role(
            "system:slipway-provisioner",
            "system:slipway-provisioner",
            [
                _rule([""], ["persistentvolumes"], [*READ, "create", "delete", "update", "patch"]),
                _rule([""], ["persistentvolumeclaims"], [*READ, "update", "patch"]),
                _rule([""], ["nodes", "pods"], READ),
                _rule(["storage.k8s.io"], ["storageclasses", "volumeattachments", "csinodes"], READ),
                _rule(["", "events.k8s.io"], ["events"], ["create", "update", "patch"]),
            ],
        ),
    ]


def _role(name: str, user: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    role = _object("rbac.authorization.k8s.io/v1", "ClusterRole", name)
    role["rules"] = rules
    binding = _object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name)
    binding["roleRef"] = _role_ref("ClusterRole", name)
    binding["subjects"] = [_user(user)]
    return [role, binding]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _role_ref(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _user(name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def _endpoints(service: str, node_ip: str, ports: list[tuple[str, str, int]]) -> dict[str, Any]:
    """Where a Service without selector leads: a process on the node."""
    endpoints = _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service}-node",
        "kube-system",
        extra={
            "kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "slipway-local-cluster",
        },
    )
    endpoints |= {
        "addressType": "IPv4",
        "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports],
        "endpoints": [{"addresses": [node_ip], "conditions": {"ready": True}, "nodeName": NODE}],
    }
    return endpoints


def _object(
    version: str, kind: str, name: str, namespace: str | None = None, extra: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {**LABELS, **(extra or {})}}
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
