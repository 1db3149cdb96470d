"""How many pods each content has, through switches: the live one, the standby, and whoever else writes the number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lab.install import Lab
from lab.kube import Manifest, wait_for
from lab.projects import model_deployment, spec, write_project

NAME = "sizes"


def pods_asked(lab: Lab, namespace: str) -> dict[str, int]:
    """Pods that each content's Deployment asks for."""
    found = lab.kube.list("deployments", namespace, f"slipway.dev/owner={NAME}")
    return {d["metadata"]["labels"]["slipway.dev/content"]: d["spec"]["replicas"] for d in found}


def test_scaled_by_hand_across_a_switch(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """kubectl scale holds for the new content too; the standby is full for a time and then has one pod."""
    first = lab.git.publish(NAME, write_project(tmp_path / "1"))
    second = lab.git.publish(NAME, write_project(tmp_path / "2", strength=0.5))
    lab.kube.apply(model_deployment(NAME, namespace, {**spec(lab.git.url(NAME), first), "standby": {"fullFor": "30s"}}))
    before = settled(NAME, namespace)["status"]["live"]["content"]
    lab.kube.run("scale", "modeldeployment", NAME, "-n", namespace, "--replicas=2")
    wait_for(lambda: pods_asked(lab, namespace) == {before: 2}, seconds=180, what="two pods")

    # As a tool that never mentions replicas: what kubectl scale wrote stays.
    source = {"spec": {"source": {"git": {"ref": second}}}}
    lab.kube.run("patch", "modeldeployment", NAME, "-n", namespace, "--type=merge", "-p", json.dumps(source))
    after = settled(NAME, namespace)["status"]["live"]["content"]
    assert after != before
    assert pods_asked(lab, namespace) == {before: 2, after: 2}
    budgets = lab.kube.list("pdb", namespace, f"slipway.dev/owner={NAME}")
    assert [b["spec"]["selector"]["matchLabels"]["slipway.dev/lane"] for b in budgets] == [after]
    assert [b["spec"]["maxUnavailable"] for b in budgets] == [1]
    wait_for(lambda: pods_asked(lab, namespace) == {before: 1, after: 2}, seconds=180, what="a standby of one pod")

    # Another field manager takes the number over, and a third scales the Deployment behind our back.
    whole = model_deployment(
        NAME, namespace, {**spec(lab.git.url(NAME), second), "serving": {"replicas": 3}, "standby": {"fullFor": "30s"}}
    )
    command = ("apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller", "-f", "-")
    lab.kube.run(*command, stdin=json.dumps(whole))
    wait_for(lambda: pods_asked(lab, namespace).get(after) == 3, seconds=180, what="three pods")
    lab.kube.run("scale", "deployment", f"{NAME}-{after}", "-n", namespace, "--replicas=1")
    wait_for(lambda: pods_asked(lab, namespace).get(after) == 3, seconds=180, what="the drift to be corrected")
    assert settled(NAME, namespace)["status"]["live"]["content"] == after
