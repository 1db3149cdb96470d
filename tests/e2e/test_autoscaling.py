"""An autoscaler that adds pods under real load and takes them away after it."""

from __future__ import annotations

import copy
import urllib.error
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from lab.install import Lab
from lab.kube import Manifest, post, wait_for
from lab.load import Caller
from lab.projects import FLOWER, model_deployment, spec, write_project

QUESTION = {"rows": [FLOWER]}
NAME = "tide"


def test_pods_come_with_the_load_and_go_with_it(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """The operator never takes the autoscaler's number back, builds nothing for it, and keeps it across a switch."""
    first = lab.git.publish(NAME, write_project(tmp_path / "1"))
    second = lab.git.publish(NAME, write_project(tmp_path / "2", strength=0.5))
    wanted = copy.deepcopy(spec(lab.git.url(NAME), first))
    wanted["serving"] = {
        "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 30},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }
    lab.kube.apply(model_deployment(NAME, namespace, wanted))
    live = settled(NAME, namespace, seconds=600)["status"]["live"]
    # Kubernetes waits five minutes before it takes pods away; the field is not Slipway's, so it stays.
    patch = '{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":5}}}}'
    lab.kube.run("patch", "hpa", NAME, "-n", namespace, "--type=merge", "-p", patch)
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"
    # Nodes route to a brand-new Service up to a second after it is there.
    wait_for(lambda: answers(url), seconds=15, what="the first answer")

    with ExitStack() as callers:
        everybody = [callers.enter_context(Caller(url, QUESTION, every=0.002)) for _ in range(4)]
        wait_for(lambda: ready(lab, namespace) >= 2, seconds=180, what="a second pod under load")
        before = copy.deepcopy(live)
        wanted["source"] = {"git": {"url": lab.git.url(NAME), "ref": second}}
        lab.kube.apply(model_deployment(NAME, namespace, wanted))
        sizes: list[int] = []
        live = wait_for(lambda: switched(lab, namespace, before, sizes), seconds=180, what="the switch", every=0.5)
        assert min(sizes) >= 2, "the new content starts with as many pods as the live one has"
        assert ready(lab, namespace) >= 2
    assert [f for c in everybody for f in c.failures] == []

    wait_for(lambda: ready(lab, namespace) == 1, seconds=240, what="one pod after the load")
    status = settled(NAME, namespace)["status"]
    assert status["live"] == live
    autoscaler = lab.kube.get("hpa", NAME, namespace) or {}
    assert autoscaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 5
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == f"{NAME}-{live['content']}"


def answers(url: str) -> bool:
    """Whether somebody answers."""
    try:
        return bool(post(url, QUESTION))
    except (urllib.error.URLError, ConnectionError):
        return False


def switched(lab: Lab, namespace: str, before: Manifest, sizes: list[int]) -> Manifest | None:
    """What is live, once that is another content; keeps how many pods each look found asked for at least."""
    autoscaler = lab.kube.get("hpa", NAME, namespace) or {}
    deployment = lab.kube.get("deployment", autoscaler["spec"]["scaleTargetRef"]["name"], namespace)
    if deployment is not None:
        sizes.append(int(deployment["spec"]["replicas"]))
    live: Manifest = (lab.kube.get("modeldeployment", NAME, namespace) or {})["status"]["live"]
    return live if live["content"] != before["content"] else None


def ready(lab: Lab, namespace: str) -> int:
    """Pods that answer, by the ModelDeployment's own status."""
    found = lab.kube.get("modeldeployment", NAME, namespace) or {}
    return int(found["status"]["readyReplicas"])
