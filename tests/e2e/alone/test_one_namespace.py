"""Slipway for one namespace, on the real cluster: models that Helm installs, and an uninstall beneath one.

It runs alone, after the other journeys: the operator is everybody's, and what it sends is counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.install import NAMESPACE, RELEASE, Lab, helm, install
from lab.installed import OPERATOR, operator_metrics, requests_in
from lab.kube import Manifest, condition, post, wait_for
from lab.load import Caller
from lab.projects import FLOWER, model_deployment, trained_spec, write_trained_project

NAME = "iris"
QUESTION = {"rows": [FLOWER]}


class Shown(NamedTuple):
    """What a person saw who installed a model."""

    resource: Manifest
    """As it was when helm returned."""
    lines: list[str]
    """What ``kubectl get --watch`` printed meanwhile."""


@pytest.fixture(scope="module")
def served(lab: Lab, namespace: str) -> Iterator[str]:
    """Let Slipway serve one namespace only, and all of them afterwards."""
    install(lab, "--set", f"namespaces={{{namespace}}}")
    yield namespace
    install(lab)


def wanted(lab: Lab, namespace: str, name: str, ref: str = "main") -> Manifest:
    return model_deployment(name, namespace, trained_spec({"git": {"url": lab.git.url(NAME), "ref": ref}}))


def install_model(lab: Lab, manifest: Manifest, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let helm install a chart of one resource and wait for it."""
    (folder / "templates").mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: model\nversion: 1.0.0\n")
    (folder / "templates" / "model.json").write_text(json.dumps(manifest))
    meta = manifest["metadata"]
    return helm(lab, "install", meta["name"], str(folder), "-n", meta["namespace"], "--wait", "--timeout", "3m")


@pytest.fixture(scope="module")
def shown(lab: Lab, served: str, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Install a model by a chart of its own, and watch."""
    lab.git.publish(NAME, write_trained_project(tmp_path_factory.mktemp("iris")))
    printed = tmp_path_factory.mktemp("watch") / "printed"
    context = ["--context", lab.kube.context] if lab.kube.context else []
    with (
        printed.open("w") as out,
        subprocess.Popen(
            [str(lab.kube.kubectl), *context, "get", "modeldeployments", "-n", served, "--watch"],
            env={**os.environ, "KUBECONFIG": str(lab.kube.kubeconfig)},
            stdout=out,
        ) as watching,
    ):
        try:
            release = install_model(lab, wanted(lab, served, NAME), tmp_path_factory.mktemp("chart"))
            resource = lab.kube.get("modeldeployment", NAME, served)
            assert release.returncode == 0, release.stderr
            assert resource is not None
            wait_for(lambda: " True " in printed.read_text(), seconds=10, what="the watch to print it")
        finally:
            watching.terminate()
    return Shown(resource, printed.read_text().splitlines())


def url(lab: Lab, namespace: str) -> str:
    """The Service's own address, once nodes route to it."""
    found = f"http://{lab.kube.address(NAME, namespace)}/predict"

    def answers() -> bool:
        try:
            return bool(post(found, QUESTION)["predictions"])
        except OSError:
            return False

    wait_for(answers, seconds=15, what="an answer")
    return found


def pods(lab: Lab, namespace: str) -> dict[str, Manifest]:
    """Specs of the pods that serve, by UID."""
    found = lab.kube.list("pods", namespace, f"slipway.dev/owner={NAME},slipway.dev/lane")
    return {pod["metadata"]["uid"]: pod["spec"] for pod in found}


def test_helm_returns_once_the_model_answers_and_a_watch_shows_its_way(lab: Lab, served: str, shown: Shown) -> None:
    """`helm install --wait` reads conditions as kstatus does; `kubectl get --watch` prints each of its states."""
    assert condition(shown.resource, "Ready")["status"] == "True"
    assert url(lab, served)
    header, *lines = shown.lines
    assert header.split()[:3] == ["NAME", "READY", "STATUS"]
    # Ready and Status of each line; an age alone before there are any.
    states = {tuple(re.split(" {2,}", line)[1:3]) for line in lines}
    assert len(states) > 2, states
    assert lines[-1].split()[:2] == [NAME, "True"]


def test_without_the_right_to_see_nodes_an_init_container_pulls_the_model(lab: Lab, served: str, shown: Shown) -> None:
    """The way that works on every node is taken, and it serves."""
    assert shown.resource["status"]["live"]
    serving = pods(lab, served).values()

    assert serving
    for spec in serving:
        assert [container["name"] for container in spec["initContainers"]] == ["pull"]
        assert not any("image" in volume for volume in spec["volumes"])


class Sent(NamedTuple):
    """What the operator counts of itself."""

    looks: int
    writes: int


def sent(lab: Lab) -> Sent:
    """Read the operator's metrics."""
    page = operator_metrics(lab.kube)
    looks = re.findall(r'^slipway_reconciles_total\{kind="ModelDeployment",.*\} (\d+)$', page, re.MULTILINE)
    return Sent(sum(map(int, looks)), sum(count for method, count in requests_in(page).items() if method != "GET"))


def at_rest(lab: Lab) -> Sent:
    """What the operator has sent, once it has written nothing for five seconds."""
    last = Sent(looks=0, writes=-1)

    def rests() -> Sent | None:
        nonlocal last
        before, last = last, sent(lab)
        return last if last.writes == before.writes else None

    return wait_for(rests, seconds=60, what="the operator to rest", every=5)


def test_applying_the_same_again_sends_no_write(lab: Lab, served: str, shown: Shown) -> None:
    """The operator looks, and sends nothing but reads: it counts its requests, of this one model's namespace only."""
    assert shown
    before = at_rest(lab)

    lab.kube.apply(wanted(lab, served, NAME))
    lab.kube.run("annotate", "modeldeployment", NAME, "-n", served, "example.com/seen=yes")

    wait_for(lambda: sent(lab).looks > before.looks, seconds=30, what="a look of the operator")
    assert at_rest(lab).writes == before.writes


@pytest.fixture(scope="module")
def broken(
    lab: Lab, served: str, shown: Shown, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """Install a model of a tag that nobody has pushed."""
    assert shown
    return install_model(lab, wanted(lab, served, "broken", ref="v99"), tmp_path_factory.mktemp("chart"))


def test_helm_fails_with_what_the_status_says(broken: subprocess.CompletedProcess[str]) -> None:
    """At once, and not when its time is over."""
    assert broken.returncode != 0
    assert "status: Failed" in broken.stderr
    assert "has no branch, tag or commit 'v99': push it" in broken.stderr


@pytest.mark.usefixtures("broken")
def test_helm_uninstall_leaves_models_serving_and_nothing_stuck(lab: Lab, served: str, shown: Shown) -> None:
    """With nobody there what is deleted goes; the next operator finds what was asked for meanwhile."""
    before = pods(lab, served)

    with Caller(url(lab, served), QUESTION) as caller:
        gone = helm(lab, "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "1m")
        assert gone.returncode == 0, gone.stderr
        wait_for(lambda: not lab.kube.list("pods", NAMESPACE, OPERATOR), seconds=60, what="the operator to be gone")
        answered = caller.versions.total()
        lab.kube.run("scale", "modeldeployment", NAME, "-n", served, "--replicas=2")
        gone = helm(lab, "uninstall", "broken", "-n", served, "--wait", "--timeout", "1m")
        assert gone.returncode == 0, gone.stderr
        assert lab.kube.get("modeldeployment", "broken", served) is None
        wait_for(lambda: caller.versions.total() > answered + 50, seconds=60, what="answers with no operator")
        assert pods(lab, served) == before

        install(lab)
        wait_for(lambda: _ready_pods(lab, served) == 2, seconds=120, what="the pod that was asked for meanwhile")

    assert caller.failures == []
    assert caller.versions.keys() == {shown.resource["status"]["live"]["content"]}
    assert before.keys() < pods(lab, served).keys()


def _ready_pods(lab: Lab, namespace: str) -> int:
    return int((lab.kube.get("modeldeployment", NAME, namespace) or {})["status"]["readyReplicas"])
