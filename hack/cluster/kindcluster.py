"""A kind cluster with a registry beside it, for machines with a Docker engine.

The registry is a container on kind's network; its address there is one name for nodes, pods and (on Linux) the
machine itself. The images of node, registry and metrics-server come from their public registries.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from cluster import foreign, local
from cluster.render import registry_hosts
from tools import cache, gobuild, say
from tools.catalogue import GO_TOOLS
from tools.refusal import Refused

NAME = "slipway"
REGISTRY = "slipway-registry"
REGISTRY_IMAGE = "docker.io/library/registry:3.0.0"
REGISTRY_PORT = 5000
CERTIFICATES = "/etc/containerd/certs.d"
METRICS_IMAGE = "registry.k8s.io/metrics-server/metrics-server:v0.9.0"


def kubeconfig() -> Path:
    """Return where this cluster's kubeconfig is."""
    return cache.root() / "contexts" / "kind-slipway.kubeconfig"


def up() -> None:
    """Create the cluster, or start what of it is stopped.

    Raises:
        Refused: Docker or kind says no.
    """
    kind = str(gobuild.ensure(GO_TOOLS["kind"]) / "kind")
    foreign.kubectl()
    if NAME not in _run([kind, "get", "clusters"]).split():
        with say.step("creating a kind cluster", "about 2 minutes the first time"):
            _run(
                [kind, "create", "cluster", "--name", NAME, "--wait", "120s", "--config", "-"],
                given=json.dumps(config()),
            )
    else:
        for node in _run([kind, "get", "nodes", "--name", NAME]).split():
            _run(["docker", "start", node])
    text = _run([kind, "get", "kubeconfig", "--name", NAME])
    local.write(kubeconfig(), text)
    _ensure_registry()
    for node in _run([kind, "get", "nodes", "--name", NAME]).split():
        folder = f"{CERTIFICATES}/{registry()}"
        _run(["docker", "exec", node, "mkdir", "-p", folder])
        _run(
            ["docker", "exec", "-i", node, "cp", "/dev/stdin", f"{folder}/hosts.toml"], given=registry_hosts(registry())
        )
    apply = [
        str(foreign.kubectl()),
        "--kubeconfig",
        str(kubeconfig()),
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "-",
    ]
    _run(apply, given=json.dumps({"apiVersion": "v1", "kind": "List", "items": metrics()}))
    say.line(f"✓ The kind cluster is up: export KUBECONFIG={kubeconfig()}; registry for images: {registry()}")


def down(*, purge: bool = False) -> None:
    """Stop the cluster's containers, or delete them with all they hold."""
    kind = str(gobuild.ensure(GO_TOOLS["kind"]) / "kind")
    nodes = (
        _run([kind, "get", "nodes", "--name", NAME]).split() if NAME in _run([kind, "get", "clusters"]).split() else []
    )
    if purge:
        _run([kind, "delete", "cluster", "--name", NAME])
        subprocess.run(["docker", "rm", "--force", "--volumes", REGISTRY], capture_output=True, check=False)
        kubeconfig().unlink(missing_ok=True)
    else:
        for container in (*nodes, REGISTRY):
            subprocess.run(["docker", "stop", container], capture_output=True, check=False)
    say.line(f"✓ The kind cluster is {'deleted' if purge else 'stopped'}.")


def status() -> int:
    """Print the nodes and return an exit code."""
    if not kubeconfig().exists():
        say.line("✗ There is no kind cluster: `make cluster-up` creates it.")
        return 1
    command = [str(foreign.kubectl()), "--kubeconfig", str(kubeconfig()), "get", "nodes", "--output=wide"]
    return subprocess.run(command, check=False).returncode


def registry() -> str:
    """Return the registry's address on kind's network.

    Raises:
        Refused: It does not run.
    """
    template = '{{(index .NetworkSettings.Networks "kind").IPAddress}}'
    address = _run(["docker", "inspect", "--format", template, REGISTRY]).strip()
    if not address:
        raise Refused("The registry beside the kind cluster does not run: `make cluster-up` starts it.")
    return f"{address}:{REGISTRY_PORT}"


def config() -> dict[str, Any]:
    """Configuration of one node; its containerd looks up registries in a folder, by kind's own default."""
    return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [{"role": "control-plane"}]}


def metrics() -> list[dict[str, Any]]:
    """metrics-server as a Deployment, which kind does not bring."""
    labels = {"app.kubernetes.io/name": "metrics-server"}
    account = {"kind": "ServiceAccount", "name": "metrics-server", "namespace": "kube-system"}
    group = "rbac.authorization.k8s.io"

    def binding(kind: str, name: str, role: tuple[str, str]) -> dict[str, Any]:
        namespace = {"namespace": "kube-system"} if kind == "RoleBinding" else {}
        return {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": name, **namespace},
            "roleRef": {"apiGroup": group, "kind": role[0], "name": role[1]},
            "subjects": [account],
        }

    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "metrics-server", "namespace": "kube-system"},
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:metrics-server"},
            "rules": [
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            ],
        },
        binding("ClusterRoleBinding", "system:metrics-server", ("ClusterRole", "system:metrics-server")),
        binding("ClusterRoleBinding", "metrics-server:auth-delegator", ("ClusterRole", "system:auth-delegator")),
        binding("RoleBinding", "metrics-server-auth-reader", ("Role", "extension-apiserver-authentication-reader")),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "metrics-server", "namespace": "kube-system"},
            "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": 10250}]},
        },
        _metrics_deployment(labels),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,  # its certificate is its own, and the way is inside one node
                "service": {"name": "metrics-server", "namespace": "kube-system"},
            },
        },
    ]


def _metrics_deployment(labels: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "metrics-server",
        "image": METRICS_IMAGE,
        "args": [
            "--secure-port=10250",
            "--cert-dir=/tmp",
            "--kubelet-insecure-tls",  # kind's kubelets sign for themselves
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=15s",
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - as above
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "metrics-server", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": "metrics-server",
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def _ensure_registry() -> None:
    there = subprocess.run(["docker", "inspect", REGISTRY], capture_output=True, check=False).returncode == 0
    if there:
        _run(["docker", "start", REGISTRY])
    else:
        deletes = ["--env", "REGISTRY_STORAGE_DELETE_ENABLED=true"]
        _run(["docker", "run", "--detach", "--network", "kind", "--name", REGISTRY, *deletes, REGISTRY_IMAGE])


def _run(command: list[str], *, given: str | None = None) -> str:
    if shutil.which("docker") is None:
        raise Refused(
            "SLIPWAY_CLUSTER is kind, and there is no docker here: leave it out for the cluster without Docker."
        )
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Refused(f"`{' '.join([Path(command[0]).name, *command[1:4]])}` failed: {said}")
    return done.stdout
