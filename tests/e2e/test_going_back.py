"""What goes back together, and what nobody goes back to: a content that is gone from the registry."""

from __future__ import annotations

import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.install import Lab
from lab.installed import operator_metrics
from lab.kube import KubectlError, Manifest, condition, post, wait_for
from lab.log import entries
from lab.projects import FLOWER, linear_model, locked_by, model_deployment, trained_spec, write_trained_project

Settled = Callable[..., Manifest]
PARTS = ("commit", "package", "lock", "environment", "image", "model", "onnx", "modelImage", "artifact", "signature")
STEM = "stem length (cm)"
WIDE_FLOWER = {**FLOWER, STEM: 30.0}
WIDE_SAMPLE = f"{','.join(WIDE_FLOWER)}\n5.1,3.5,1.4,0.2,30.0\n6.7,3.1,4.7,1.5,42.5\n"


def told(lab: Lab, namespace: str, name: str, kind: str, reason: str) -> Manifest:
    """Wait until a condition has a reason, and return the ModelDeployment."""

    def look() -> Manifest | None:
        found = lab.kube.get("modeldeployment", name, namespace) or {}
        return found if condition(found, kind)["reason"] == reason else None

    return wait_for(look, seconds=120, what=f"{kind} to be {reason}")


def answer_to(url: str, row: dict[str, float]) -> dict[str, Any] | str:
    """The answer, or what it was refused with; empty while nobody answers."""
    try:
        return dict(post(f"{url}/predict", {"rows": [row]}))
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def test_what_goes_back_goes_together(lab: Lab, namespace: str, settled: Settled, tmp_path: Path) -> None:
    """Another lock, other data, another model and other columns: one rollback, and all of the old ones are back."""
    name = "together"
    ref = lab.git.publish(name, write_trained_project(tmp_path / "1", locked_by("pylock.toml")))
    source = {"git": {"url": lab.git.url(name), "ref": ref}}
    lab.kube.apply(model_deployment(name, namespace, trained_spec(source, "pylock.toml")))
    before = settled(name, namespace)["status"]["live"]
    url = f"http://{lab.kube.address(name, namespace)}"
    old = wait_for(lambda: answer_to(url, FLOWER), seconds=15, what="an answer")
    assert isinstance(old, dict)
    signature = post(f"{url}/v2/models/{name}")
    assert [taken["shape"] for taken in signature["inputs"]] == [[-1, 4]]

    wide: dict[str, str | bytes | None] = {"model.onnx": linear_model(5), "data/sample.csv": WIDE_SAMPLE}
    ref = lab.git.publish(name, write_trained_project(tmp_path / "2", wide))
    source = {"git": {"url": lab.git.url(name), "ref": ref}}
    lab.kube.apply(model_deployment(name, namespace, trained_spec(source)))
    after = settled(name, namespace)["status"]["live"]
    wait_for(lambda: isinstance(answer_to(url, WIDE_FLOWER), dict), seconds=15, what="an answer of the new columns")
    assert STEM in str(answer_to(url, FLOWER)), "callers of before are told what is missing"
    first, second = entries(lab.kube, name, namespace)
    assert [part for part in PARTS if first["digests"][part] == second["digests"][part]] == []
    ready = told(lab, namespace, name, "RollbackReady", "SchemaChanged")
    assert "has shape [-1, 5] now, and the target takes [-1, 4]" in condition(ready, "RollbackReady")["message"]

    # As a file of Git says it.
    wanted = {**trained_spec(source), "rollbackTo": {"revision": 1}}
    lab.kube.apply(model_deployment(name, namespace, wanted))
    found = told(lab, namespace, name, "Ready", "RolledBack")
    wait_for(lambda: isinstance(answer_to(url, FLOWER), dict), seconds=15, what="an answer of the old columns")

    assert answer_to(url, FLOWER)["predictions"] == old["predictions"]  # type: ignore[index]
    assert post(f"{url}/v2/models/{name}") == signature
    third = entries(lab.kube, name, namespace)[-1]
    assert (third["content"], third["digests"]) == (first["content"], first["digests"])
    live = found["status"]["live"]
    assert (live["content"], live["commit"]) == (before["content"], before["commit"])
    assert live["content"] != after["content"]
    (pod,) = lab.kube.list("pods", namespace, f"slipway.dev/lane={live['content']}")
    images = {v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v}
    assert {image.rpartition("@")[2] for image in images} == {first["digests"]["modelImage"]}


def test_nobody_goes_back_to_what_is_gone_from_the_registry(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """Said before anybody needs it, as condition, event and metric; a rollback is refused and touches nothing."""
    name = "gone"
    for number in (1, 2):
        # Another example makes another model image, so that no other content needs what is deleted below.
        files = {"data/sample.csv": f"{','.join(FLOWER)}\n5.1,3.5,1.4,0.{number}\n", **locked_by("pylock.toml")}
        ref = lab.git.publish(name, write_trained_project(tmp_path / str(number), files))
        source = {"git": {"url": lab.git.url(name), "ref": ref}}
        lab.kube.apply(model_deployment(name, namespace, trained_spec(source, "pylock.toml")))
        live = settled(name, namespace)["status"]["live"]
        if number == 1:
            (first,) = entries(lab.kube, name, namespace)
            lost = f"{first['repository']}@{first['digests']['modelImage']}"
            subprocess.run([str(lab.crane), "delete", "--insecure", lost], check=True, capture_output=True)

    found = told(lab, namespace, name, "RollbackReady", "ArtifactsMissing")
    assert "model image" in condition(found, "RollbackReady")["message"]
    events = lab.kube.list("events", namespace, fields=f"involvedObject.name={name},reason=ArtifactsMissing")
    assert [e["type"] for e in events] == ["Warning"]
    wait_for(lambda: missing_by_metrics(lab, namespace, name), seconds=30, what="the metric to say so")
    before = workload(lab, namespace, name)

    lab.kube.run("annotate", "modeldeployment", name, "-n", namespace, "slipway.dev/rollback=previous@to-nothing")

    def refused() -> Manifest | None:
        status = (lab.kube.get("modeldeployment", name, namespace) or {})["status"]
        return next((r for r in status.get("requests", []) if r.get("id") == "to-nothing"), None)

    request = wait_for(refused, seconds=60, what="the request's answer")
    assert request["state"] == "Refused", request
    assert "not in the registry" in request["message"]
    assert settled(name, namespace)["status"]["live"] == live
    assert len(entries(lab.kube, name, namespace)) == 2
    assert workload(lab, namespace, name) == before


def workload(lab: Lab, namespace: str, name: str) -> dict[str, int]:
    """Generations of everything that serves: what was touched has another."""
    kinds = "deployments,services,poddisruptionbudgets"
    found = lab.kube.list(kinds, namespace, f"slipway.dev/owner={name}")
    return {f"{o['kind']}/{o['metadata']['name']}": int(o["metadata"].get("generation", 0)) for o in found}


def missing_by_metrics(lab: Lab, namespace: str, name: str) -> bool:
    """Whether the operator's own metrics say that a rollback would find something gone."""
    try:
        lines = operator_metrics(lab.kube).splitlines()
    except (KubectlError, ValueError):  # another journey has just killed the operator
        return False
    wanted = {f'name="{name}"', f'namespace="{namespace}"', 'type="RollbackReady"', 'reason="ArtifactsMissing"'}
    return any(float(line.split()[-1]) == 1 for line in lines if all(part in line for part in wanted))
