"""The ports of a serving pod and of its Service.

A Service finds its ports in each pod by name, and a pod with TLS has another name for the
same number: while TLS is switched on or off, each caller is sent to the pods that speak as
it does, and a port goes with the last pod that has it.
"""

from __future__ import annotations

from slipway_operator.api import Serving
from slipway_operator.domain import labels
from slipway_operator.plan.observed import Manifest, Observed

PORT = 8080
GRPC_PORT = 8081
"""The runtime's default, and told to no runtime: one of a content from before gRPC starts, too."""
PROBE_PORT = 8082
"""Health and metrics alone, for the kubelet, the operator and Prometheus, where the other ports are guarded."""
PROBES = "probes"

_HTTP = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
_HTTPS = {"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP", "appProtocol": "https"}


def has_probe_port(serving: Serving) -> bool:
    """Whether probes and metrics have a port of their own: they show no key or certificate, and wait in no crowd."""
    crowded = serving.limits is not None and serving.limits.connections is not None
    return serving.tls is not None or serving.api_keys is not None or crowded


def container_ports(serving: Serving) -> list[Manifest]:
    """Ports of the runtime's container."""
    named = [("https" if serving.tls is not None else "http", PORT), ("grpc", GRPC_PORT)]
    if has_probe_port(serving):
        named.append((PROBES, PROBE_PORT))
    return [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in named]


def service_ports(seen: Observed, serving: Serving, lane: str) -> list[Manifest]:
    """Ports of the Service: those that are wanted, and those that pods of the lane still have."""
    wanted, other = (_HTTP, _HTTPS) if serving.tls is None else (_HTTPS, _HTTP)
    pods = [p for p in seen.pods if (p["metadata"].get("labels") or {}).get(labels.LANE) == lane]
    still = any(other["name"] in _port_names(p) for p in pods)
    return [
        dict(wanted),
        *([dict(other)] if still else []),
        {
            "name": "grpc",
            "port": GRPC_PORT,
            "targetPort": "grpc",
            "protocol": "TCP",
            "appProtocol": "kubernetes.io/h2c" if serving.tls is None else "https",
        },
    ]


def figures_port(pod: Manifest) -> int:
    """Where a serving pod is asked for its metrics."""
    return PROBE_PORT if PROBES in _port_names(pod) else PORT


def _port_names(pod: Manifest) -> set[str]:
    containers = (pod.get("spec") or {}).get("containers") or ()
    return {str(port.get("name")) for container in containers for port in container.get("ports") or ()}
