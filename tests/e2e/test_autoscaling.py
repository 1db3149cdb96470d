"""The HPA on the real cluster: CPU of real predictions adds replicas, quiet removes them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.install import Lab
from lab.kube import Manifest, wait_for
from lab.load import Caller
from lab.projects import FLOWER, model_deployment, spec, write_project

HEAVY = {"rows": [FLOWER] * 2000}


def test_load_adds_replicas_and_quiet_removes_them(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """Nothing is built for it, no request fails, and one replica is left in the end."""
    lab.git.publish("elastic", write_project(tmp_path))
    wanted: dict[str, Any] = copy.deepcopy(spec(lab.git.url("elastic")))
    wanted["serving"] = {
        "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 60},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
    }
    lab.kube.apply(model_deployment("elastic", namespace, wanted))
    live = settled("elastic", namespace)["status"]["live"]
    service = lab.kube.get("service", "elastic", namespace) or {}
    url = f"http://{service['spec']['clusterIP']}/predict"

    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(url, HEAVY, every=0.01)) for _ in range(2)]
        wait_for(lambda: _ready(lab, namespace) >= 2, seconds=240, what="a second replica under load")
    assert [failure for caller in callers for failure in caller.failures] == []

    wait_for(lambda: _ready(lab, namespace) == 1, seconds=480, what="one replica after the load", every=2)
    assert settled("elastic", namespace)["status"]["live"] == live


def _ready(lab: Lab, namespace: str) -> int:
    resource = lab.kube.get("modeldeployment", "elastic", namespace) or {}
    return int(resource.get("status", {}).get("readyReplicas", 0))
