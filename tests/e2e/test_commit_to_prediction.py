"""The way of a model on the real cluster: commit, prediction, next commit, scale, faults, deletion."""

from __future__ import annotations

import copy
import json
import urllib.error
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab.install import NAMESPACE, Lab, install
from lab.kube import KubectlError, Manifest, condition, post, wait_for
from lab.load import Caller
from lab.projects import FLOWER, LOCK, SAMPLE, TRAIN, model_deployment, source_archive, spec, write_project
from lab.web import WebServer

Settled = Callable[..., Manifest]
QUESTION = {"rows": [FLOWER]}


def address(lab: Lab, name: str, namespace: str) -> str:
    return f"http://{lab.kube.address(name, namespace)}"


def ask(lab: Lab, name: str, namespace: str) -> Any:
    """Ask a new Service; nodes route to it up to a second after it is there."""
    url = f"{address(lab, name, namespace)}/predict"

    def answer() -> Any:
        try:
            return post(url, QUESTION)
        except (urllib.error.URLError, ConnectionError):
            return None

    return wait_for(answer, seconds=15, what=f"an answer of {name}")


def jobs(lab: Lab, name: str, namespace: str) -> dict[str, str]:
    """Return the Jobs of a deployment with their resource versions."""
    found = lab.kube.list("jobs", namespace, f"slipway.dev/owner={name}")
    return {job["metadata"]["name"]: job["metadata"]["resourceVersion"] for job in found}


def everything(lab: Lab, namespace: str) -> dict[tuple[str, str], str]:
    """Return the resource version of all that Slipway keeps in a namespace."""
    kinds = "modeldeployments,jobs,deployments,services,configmaps,controllerrevisions,pdb,hpa,networkpolicies"
    return {
        (each["kind"], each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for each in lab.kube.list(kinds, namespace)
    }


@pytest.fixture(scope="module")
def iris(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Serve the project that works."""
    lab.git.publish("iris", write_project(tmp_path_factory.mktemp("iris")))
    lab.kube.apply(model_deployment("iris", namespace, spec(lab.git.url("iris"))))
    return "iris"


def test_a_commit_becomes_an_answer(lab: Lab, namespace: str, iris: str, settled: Settled) -> None:
    """Status names the commit, the log has one entry with all digests, and the answer names its content."""
    resource = settled(iris, namespace)
    live = resource["status"]["live"]
    entries = lab.kube.list("controllerrevisions", namespace, "slipway.dev/log=true")

    answer = ask(lab, iris, namespace)

    assert answer["model_version"] == live["content"]
    assert answer["predictions"][0]["label"] == 0
    assert len(live["commit"]) == 40
    assert [entry["data"]["cause"] for entry in entries] == ["SpecChange"]
    assert entries[0]["data"]["digests"]
    assert {step["state"] for step in resource["status"]["steps"]} <= {"Succeeded", "Skipped"}
    assert resource["status"]["training"]["metrics"]["accuracy"] > 0.9
    assert resource["status"]["export"]["labelFlips"] == 0
    told = lab.kube.list("events", namespace, fields=f"involvedObject.uid={resource['metadata']['uid']}")
    assert "WentLive" in {event["reason"] for event in told}
    lab.kube.run("wait", "--for=condition=Ready", f"modeldeployment/{iris}", "-n", namespace, "--timeout=5s")


def test_the_url_of_the_status_answers_open_inference(lab: Lab, namespace: str, iris: str, settled: Settled) -> None:
    """Its path and /infer take the protocol's tensors; each flower of the sample has its species."""
    status = settled(iris, namespace)["status"]
    ask(lab, iris, namespace)
    values = [float(cell) for line in SAMPLE.splitlines()[1:] for cell in line.split(",")]
    # The project trains on a matrix without names, which is one tensor.
    tensor = {"name": "input", "datatype": "FP32", "shape": [3, 4], "data": values}

    answer = post(f"{address(lab, iris, namespace)}{urlsplit(status['url']).path}/infer", {"inputs": [tensor]})

    assert (answer["model_name"], answer["model_version"]) == (iris, status["live"]["content"])
    assert {output["name"]: output["data"] for output in answer["outputs"]}["label"] == [0, 1, 2]


def test_pods_are_restricted_hold_no_token_and_mount_the_model(
    lab: Lab, namespace: str, iris: str, settled: Settled
) -> None:
    """The namespace enforces Pod Security restricted; the nodes were asked, so that the model is an image volume."""
    live = settled(iris, namespace)["status"]["live"]["content"]

    pods = lab.kube.list("pods", namespace, f"slipway.dev/owner={iris}")
    serving = [pod["spec"] for pod in pods if pod["metadata"]["labels"].get("slipway.dev/lane") == live]

    assert serving
    assert all(pod["spec"]["automountServiceAccountToken"] is False for pod in pods)
    assert all(any("image" in volume for volume in each["volumes"]) for each in serving)
    assert not any("initContainers" in each for each in serving)


def test_applying_the_same_again_writes_nothing(lab: Lab, namespace: str, iris: str, settled: Settled) -> None:
    """No Job, no write: every resource version stays, for longer than one look of the operator."""
    settled(iris, namespace)
    before = everything(lab, namespace)

    lab.kube.apply(model_deployment(iris, namespace, spec(lab.git.url(iris))))
    told = lab.kube.run("annotate", "modeldeployment", iris, "-n", namespace, "example.com/seen=yes", "-o", "json")
    before["ModelDeployment", iris] = json.loads(told)["metadata"]["resourceVersion"]

    with pytest.raises(TimeoutError):
        wait_for(lambda: everything(lab, namespace) != before, seconds=15, what="a write")


def test_a_new_commit_goes_live_with_no_failed_request(
    lab: Lab, namespace: str, iris: str, settled: Settled, tmp_path: Path
) -> None:
    """The Service switches when the new pods are Ready; nobody who asks meanwhile is refused."""
    before = settled(iris, namespace)["status"]["live"]
    commit = lab.git.publish(iris, write_project(tmp_path, strength=0.5))
    wanted = copy.deepcopy(spec(lab.git.url(iris), ref=commit))

    with Caller(f"{address(lab, iris, namespace)}/predict", QUESTION) as caller:
        lab.kube.apply(model_deployment(iris, namespace, wanted))
        after = settled(iris, namespace)["status"]["live"]
        wait_for(lambda: caller.versions[after["content"]] > 20, seconds=30, what="answers of the new content")

    assert caller.failures == []
    assert set(caller.versions) == {before["content"], after["content"]}
    assert after["revision"] == before["revision"] + 1
    assert after["commit"] == commit


def test_kubectl_scale_adds_and_removes_pods_and_builds_nothing(
    lab: Lab, namespace: str, iris: str, settled: Settled
) -> None:
    """Scaling is not a new content."""
    live = settled(iris, namespace)["status"]["live"]
    known = set(jobs(lab, iris, namespace))

    for replicas in (3, 1):
        lab.kube.run("scale", "modeldeployment", iris, "-n", namespace, f"--replicas={replicas}")
        wait_for(partial(_has_ready, lab, iris, namespace, replicas), seconds=240, what=f"{replicas} ready pods")

    assert settled(iris, namespace)["status"]["live"] == live
    assert set(jobs(lab, iris, namespace)) <= known


def _has_ready(lab: Lab, name: str, namespace: str, replicas: int) -> bool:
    status = (lab.kube.get("modeldeployment", name, namespace) or {}).get("status", {})
    return bool(status.get("readyReplicas") == replicas and status.get("replicas") == replicas)


@pytest.fixture(scope="module")
def compiled(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apply a project that trains with a package of C, which exists only as source."""
    with WebServer(lab.git.address) as web:
        digest = web.add_file("slipway-fast", "slipway_fast-1.0.tar.gz", source_archive())
        url = web.plain_url("slipway-fast/slipway_fast-1.0.tar.gz")
        files = {
            "requirements.txt": f"{LOCK.read_text()}slipway-fast @ {url} --hash={digest}\n",
            "train.py": "import slipway_fast\n" + TRAIN.format(strength="slipway_fast.twice(0.25)"),
        }
        lab.git.publish("compiled", write_project(tmp_path_factory.mktemp("compiled"), files))
        lab.kube.apply(model_deployment("compiled", namespace, spec(lab.git.url("compiled"))))
        yield "compiled"


def test_a_package_of_c_is_refused_where_there_is_no_compiler(namespace: str, compiled: str, settled: Settled) -> None:
    """With the value of the chart that changes it."""
    stalled = condition(settled(compiled, namespace, "Stalled"), "Stalled")

    assert stalled["reason"] == "CompilerMissing"
    assert "slipway-fast" in stalled["message"]
    assert "compiler.enabled" in stalled["message"]


def test_helm_upgrade_moves_no_model_pod_and_fails_no_request(
    lab: Lab, namespace: str, iris: str, compiled: str, settled: Settled
) -> None:
    """The operator is replaced, what lacked a compiler is built, and the pods that answer stay what they are."""
    live = settled(iris, namespace)["status"]["live"]["content"]
    before = _serving_pods(lab, live, namespace)

    with Caller(f"{address(lab, iris, namespace)}/predict", QUESTION) as caller:
        install(lab, "--set", "compiler.enabled=true")
        settled(compiled, namespace)
        install(lab)

    assert caller.failures == []
    assert sum(caller.versions.values()) > 100
    assert before
    assert _serving_pods(lab, live, namespace) == before


def _serving_pods(lab: Lab, content: str, namespace: str) -> dict[str, int]:
    """Return the restarts of each pod in a lane; one that ends already, as after a scale-down, does not count."""
    pods = lab.kube.list("pods", namespace, f"slipway.dev/lane={content}")
    return {
        pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }


def test_two_of_one_name_in_two_namespaces_do_not_meet(lab: Lab, namespace: str, iris: str, settled: Settled) -> None:
    """The same name elsewhere shares the environment and nothing else."""
    other = f"{namespace}-2"
    lab.kube.namespace(other)
    try:
        lab.kube.apply(model_deployment(iris, other, spec(lab.git.url(iris))))
        settled(iris, other)
        assert ask(lab, iris, other)["predictions"]

        lab.kube.delete("modeldeployment", iris, other)

        wait_for(lambda: not lab.kube.list("pods", other), seconds=240, what="pods of the deleted one to end")
        assert ask(lab, iris, namespace)["predictions"]
    finally:
        lab.kube.delete("namespace", other)


def test_what_somebody_changes_by_hand_is_put_right(lab: Lab, namespace: str, iris: str, settled: Settled) -> None:
    """The Service's selector and a deleted Deployment come back."""
    live = settled(iris, namespace)["status"]["live"]["content"]
    lab.kube.run(
        "patch", "service", iris, "-n", namespace, "--type=merge", '-p={"spec":{"selector":{"slipway.dev/lane":"x"}}}'
    )
    lab.kube.delete("deployment", f"{iris}-{live}", namespace)

    wait_for(
        lambda: (lab.kube.get("service", iris, namespace) or {})["spec"]["selector"]["slipway.dev/lane"] == live,
        seconds=90,
        what="the Service to select the live lane again",
    )
    wait_for(lambda: lab.kube.get("deployment", f"{iris}-{live}", namespace), seconds=90, what="the Deployment again")
    settled(iris, namespace)


def test_the_operator_killed_at_every_step_goes_on_where_it_was(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """Killed each time a step begins: it ends live, with one Job of each step."""
    name = "killed"
    lab.git.publish(name, write_project(tmp_path, strength=0.15))
    lab.kube.apply(model_deployment(name, namespace, spec(lab.git.url(name))))
    for step in ("Build", "Train", "Export", "Rollout"):
        wait_for(partial(_is_at, lab, name, namespace, step), seconds=600, what=f"{step} to run", every=0.05)
        lab.kube.run(
            "delete", "pod", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=slipway", "--grace-period=0", "--force"
        )

    assert settled(name, namespace)["status"]["live"]["revision"] == 1
    steps = [job.removeprefix(f"{name}-").split("-", 1)[0] for job in jobs(lab, name, namespace)]
    assert sorted(steps) == ["build", "export", "train"]


def _is_at(lab: Lab, name: str, namespace: str, step: str) -> bool:
    resource = lab.kube.get("modeldeployment", name, namespace) or {}
    states = {each["name"]: each["state"] for each in resource.get("status", {}).get("steps", [])}
    return states.get(step) in {"Running", "Succeeded"}


def test_a_namespace_deleted_on_the_way_goes(lab: Lab, namespace: str, tmp_path: Path) -> None:
    """Nothing of Slipway keeps a namespace from ending."""
    doomed = f"{namespace}-3"
    lab.git.publish("doomed", write_project(tmp_path, strength=0.8))
    lab.kube.namespace(doomed)
    lab.kube.apply(model_deployment("doomed", doomed, spec(lab.git.url("doomed"))))
    wait_for(lambda: jobs(lab, "doomed", doomed), seconds=240, what="the first Job")

    lab.kube.delete("namespace", doomed)

    assert lab.kube.get("namespace", doomed) is None


def test_a_quota_that_is_too_small_is_said_and_passes_by_itself(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """QuotaExceeded while it is too small; Ready once somebody has raised it."""
    tight = f"{namespace}-4"
    lab.kube.namespace(tight)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team", "namespace": tight}}
    try:
        lab.kube.apply({**quota, "spec": {"hard": {"pods": "0"}}})
        lab.git.publish("tight", write_project(tmp_path))
        lab.kube.apply(model_deployment("tight", tight, spec(lab.git.url("tight"))))
        wait_for(lambda: _reason(lab, "tight", tight) == "QuotaExceeded", seconds=240, what="QuotaExceeded")

        lab.kube.apply({**quota, "spec": {"hard": {"pods": "10"}}})

        settled("tight", tight)
    finally:
        lab.kube.delete("namespace", tight)


def _reason(lab: Lab, name: str, namespace: str) -> str:
    resource = lab.kube.get("modeldeployment", name, namespace) or {}
    return str(condition(resource, "Ready").get("reason", ""))


def test_a_name_of_45_characters_serves(lab: Lab, namespace: str, settled: Settled, tmp_path: Path) -> None:
    """Every name that is derived from the longest one fits."""
    name = "a" * 44 + "b"
    lab.git.publish("longest", write_project(tmp_path))

    lab.kube.apply(model_deployment(name, namespace, spec(lab.git.url("longest"))))

    settled(name, namespace)
    assert ask(lab, name, namespace)["predictions"]


@pytest.mark.parametrize("name", ["a" * 46, "1st", "has.dots", "Upper"])
def test_a_name_that_no_service_could_have_is_refused(lab: Lab, namespace: str, name: str) -> None:
    """The API server refuses it at once."""
    with pytest.raises(KubectlError, match=r"(?i)name"):
        lab.kube.apply(model_deployment(name, namespace, spec("https://git.example.com/a.git")))
