"""The cluster that runs, for operators on this machine: the chart's own sleeps meanwhile."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from lab.install import NAMESPACE, RELEASE
from lab.kube import Kube, wait_for
from lab.plane import Plane

OPERATOR = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
PATIENCE_SECONDS = 120


def operator_metrics(kube: Kube) -> str:
    """Read the page of metrics of the chart's operator."""
    (pod,) = kube.list("pods", NAMESPACE, OPERATOR)
    return kube.run("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:8081/proxy/metrics")


def requests_in(metrics: str) -> dict[str, int]:
    """Return how many requests the operator has sent to the API server, by method."""
    found = re.findall(r'^slipway_api_requests_total\{method="(\w+)"\} (\d+)$', metrics, re.MULTILINE)
    return {method: int(count) for method, count in found}


@contextlib.contextmanager
def installed_plane(kube: Kube, folder: Path) -> Iterator[Plane]:
    """The cluster without its operator, with the settings and rights that the chart gave it."""
    cluster = json.loads(kube.run("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))["clusters"][0]
    authority, settings = folder / "ca.crt", folder / "settings.yaml"
    authority.write_bytes(base64.b64decode(cluster["cluster"]["certificate-authority-data"]))
    found = kube.get("configmap", f"{RELEASE}-settings", NAMESPACE)
    if found is None:
        raise AssertionError("Slipway is not installed on this cluster: run `make install` first")
    settings.write_text(found["data"]["settings.yaml"])
    (folder / "logs").mkdir()
    token = kube.run("create", "token", RELEASE, "-n", NAMESPACE, "--duration=1h").strip()
    with asleep(kube):
        yield Plane(
            kube=kube,
            server=cluster["cluster"]["server"],
            authority=authority,
            folder=folder,
            settings=settings,
            token=token,
            # Nobody before had a namespace of this name.
            numbers=itertools.count(uuid.uuid4().int % 10**9),
            has_nodes=True,
        )


@contextlib.contextmanager
def asleep(kube: Kube) -> Iterator[None]:
    """Scale the chart's operator to nothing, and back when left, or when this process ends in whatever way."""
    name = ["deployment", RELEASE, "-n", NAMESPACE]
    context = ["--context", kube.context] if kube.context else []
    back = [str(kube.kubectl), *context, "scale", *name, "--replicas=1"]
    guard = subprocess.Popen(
        # It reads until the other end of the pipe is gone, however that comes.
        ["sh", "-c", 'cat; exec "$@"', "sh", *back],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "KUBECONFIG": str(kube.kubeconfig)},
        # What ends this process by the terminal does not end the guard.
        start_new_session=True,
    )
    try:
        kube.run("scale", *name, "--replicas=0")
        wait_for(
            lambda: not kube.list("pods", NAMESPACE, OPERATOR),
            seconds=PATIENCE_SECONDS,
            what="the operator to be gone",
        )
        yield
    finally:
        guard.communicate()
        if guard.returncode:
            raise AssertionError(f"the operator is not back: {' '.join(back)}")
        kube.run("rollout", "status", *name, f"--timeout={PATIENCE_SECONDS}s", timeout=PATIENCE_SECONDS + 10)
