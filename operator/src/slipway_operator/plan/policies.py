"""Network policies: what serving pods and Jobs take and reach."""

from __future__ import annotations

from urllib.parse import urlsplit

from slipway_operator.api import Records, Serving
from slipway_operator.domain import labels
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Observed, metadata_for
from slipway_operator.plan.ports import GRPC_PORT, PORT, PROBE_PORT, has_probe_port
from slipway_operator.plan.runtime import traces_of


def serving_policy_for(seen: Observed, serving: Serving, *, pods_pull: bool) -> Manifest:
    """Serving pods take predictions, and reach what they are told to send to.

    Args:
        seen: What was observed.
        serving: What the spec says of serving.
        pods_pull: An init container of the serving pods fetches the model: they need a way out.
    """
    owner = seen.key.name
    ingress: list[Manifest] = [{"ports": [_tcp(port) for port in (PORT, GRPC_PORT)]}]
    if has_probe_port(serving):
        # The kubelet's probes come from the node, which policies let through.
        ingress.append({"from": _who_reads_metrics(seen.settings), "ports": [_tcp(PROBE_PORT)]})
    egress = [{}] if pods_pull else _egress(serving, seen.settings)
    spec = {
        "podSelector": {
            "matchLabels": {labels.OWNER: owner},
            "matchExpressions": [{"key": labels.LANE, "operator": "Exists"}],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        **({"egress": egress} if egress else {}),
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
    # No ModelDeployment has a dot in its name, so that none of them has a policy of this name.
    return _policy(seen, f"{owner}.jobs", spec)


def obsolete_policies(seen: Observed) -> list[Manifest]:
    """The policy for Jobs under its name of earlier releases, which that of another ModelDeployment may need."""
    return [p for p in seen.policies if p["metadata"]["name"] == f"{seen.key.name}-jobs"]


def _who_reads_metrics(settings: Settings) -> list[Manifest]:
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}}}
    return [operator, *(dict(peer) for peer in settings.serving.metrics_from)]


def _egress(serving: Serving, settings: Settings) -> list[Manifest]:
    """Names and the ports of collectors and sinks: a policy knows no host names, and a Service none of its pods'."""
    traces = traces_of(serving, settings)
    urls = [
        traces.endpoint if traces is not None else None,
        _sink(serving.records) if serving.records is not None else None,
    ]
    ports = sorted({_port_of(url) for url in urls if url is not None})
    if not ports:
        return []
    dns = {
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"port": 53, "protocol": "UDP"}, _tcp(53)],
    }
    return [dns, {"ports": [_tcp(port) for port in ports]}]


def _sink(records: Records) -> str | None:
    if records.bucket is not None:
        return records.bucket.endpoint or "https://aws.amazon.com"
    return records.url


def _port_of(url: str) -> int:
    """The port; that of the scheme where none can be read, as a plan must not fail for a text."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return port or (443 if url.startswith("https:") else 80)


def _tcp(port: int) -> Manifest:
    return {"port": port, "protocol": "TCP"}


def _policy(seen: Observed, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_for(seen, name),
        "spec": spec,
    }
