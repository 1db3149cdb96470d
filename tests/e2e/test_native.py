"""A model that cannot be ONNX, on the real cluster: refused at first, then answered by itself, fenced off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lab.install import Lab
from lab.kube import Manifest, condition, post, wait_for
from lab.load import Caller
from lab.log import entries
from lab.projects import FLOWER, model_deployment, spec, write_project

NAME = "own-code"

FLOWERS = '''\
"""Code of the project's own, which no converter knows."""

import os
import socket

import numpy as np


def with_areas(rows):
    rows = np.asarray(rows, dtype=float)
    return np.column_stack([rows, rows[:, 0] * rows[:, 1], rows[:, 2] * rows[:, 3]])


def judged(rows, model):
    chances = model.predict_proba(np.column_stack(list(rows.values())))
    return {"species": chances.argmax(axis=1), "sure": chances.max(axis=1) > 0.9}


def brittle(rows, model):
    if max(rows["sepal length (cm)"]) > 9:
        os._exit(3)
    return judged(rows, model)


def moody(rows, model):
    return {**judged(rows, model), "where": np.full(len(next(iter(rows.values()))), socket.gethostname())}
'''

TRAIN = '''\
"""Train on 150 flowers, with a step of the project's own."""

import json

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flowers import with_areas

rows, species = load_iris(return_X_y=True)
model = make_pipeline(FunctionTransformer(with_areas), LogisticRegression(max_iter=2000)).fit(rows, species)
joblib.dump(model, "model.joblib")
json.dump({"accuracy": model.score(rows, species)}, open("metrics.json", "w"))
'''


def test_a_model_that_cannot_be_onnx_answers_by_itself_where_that_is_asked_for(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """It stays refused until the spec says so; then the status says what that costs, and the pod holds it back.

    At last a function of the project answers in the model's place.
    """
    ref = lab.git.publish(NAME, write_project(tmp_path / "tree", {"train.py": TRAIN, "flowers.py": FLOWERS}))
    wanted = spec(lab.git.url(NAME), ref)
    lab.kube.apply(model_deployment(NAME, namespace, wanted))

    def refused() -> bool:
        found = lab.kube.get("modeldeployment", NAME, namespace) or {}
        return condition(found, "Ready")["reason"] == "ConversionUnsupported"

    wait_for(refused, seconds=900, what="the conversion to be refused", every=1)

    lab.kube.apply(model_deployment(NAME, namespace, {**wanted, "export": {"onFailure": "ServeNative"}}))
    status = settled(NAME, namespace)["status"]

    assert status["export"]["engine"] == "worker"
    assert "by the model itself" in status["summary"]
    told = condition({"status": status}, "ServedNatively")
    assert told["status"] == "True"
    assert "one prediction at a time" in told["message"]
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"

    def answers() -> bool:
        try:
            return bool(post(url, {"rows": [FLOWER]})["predictions"])
        except OSError:
            return False

    wait_for(answers, seconds=15, what="nodes to route to the new Service")
    (answer,) = post(url, {"rows": [FLOWER]})["predictions"]
    assert answer["label"] == 0
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-9

    (pod,) = lab.kube.list("pods", namespace, f"slipway.dev/lane={status['live']['content']}")
    (worker,) = [c for c in pod["spec"]["initContainers"] if c["name"] == "worker"]
    assert worker["securityContext"]["readOnlyRootFilesystem"] is True
    inside = ("exec", pod["metadata"]["name"], "-n", namespace, "-c", "worker", "--", "/opt/env/bin/python", "-c")
    tries = (
        "import json, os, pathlib\n"
        "def can(path):\n"
        "    try:\n"
        "        pathlib.Path(path).write_text('x')\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "print(json.dumps({'user': os.getuid(), 'project': can('/opt/project/x'), 'model': can('/model/x'),"
        " 'token': os.path.exists('/var/run/secrets/kubernetes.io'), 'secrets': os.path.exists('/secrets')}))\n"
    )
    found = json.loads(lab.kube.run(*inside, tries))
    assert found == {"user": 65532, "project": False, "model": False, "token": False, "secrets": False}

    # What the project's code does costs its request, and no other.
    end = "import os, signal; [os.kill(int(p), 9) for p in os.listdir('/proc') if p.isdigit() and int(p) > 1"
    end += " and b'serve' in open(f'/proc/{p}/cmdline','rb').read() and int(p) != os.getpid()]"
    lab.kube.run(*inside, end)
    wait_for(answers, seconds=60, what="another process to answer")
    after = lab.kube.get("pod", pod["metadata"]["name"], namespace)
    assert after is not None, "the pod is the same one"
    restarts = [c["restartCount"] for c in after["status"]["containerStatuses"]]
    assert restarts == [0], "the runtime went on"

    by_function = {"onFailure": "ServeNative", "function": "flowers:judged"}
    lab.kube.apply(model_deployment(NAME, namespace, {**wanted, "export": by_function}))
    told = condition({"status": settled(NAME, namespace)["status"]}, "ServedNatively")
    assert "flowers:judged answers" in told["message"]

    def by_the_function() -> bool:
        return bool(post(url, {"rows": [FLOWER]})["predictions"] == [{"species": 0, "sure": True}])

    # A switch waits for nobody: until the nodes know of it, up to a second later, the content before answers.
    wait_for(by_the_function, seconds=15, what="an answer of the function", every=0.1)


def test_what_answers_its_example_otherwise_than_recorded_does_not_go_live(
    lab: Lab, namespace: str, settled: Callable[..., Manifest]
) -> None:
    """A function that answers by where it runs: the export recorded one answer, each pod gives another."""
    before = settled(NAME, namespace)
    wanted = {**before["spec"], "export": {"onFailure": "ServeNative", "function": "flowers:moody"}}
    lab.kube.apply(model_deployment(NAME, namespace, wanted))

    def says_why() -> str:
        told = condition(lab.kube.get("modeldeployment", NAME, namespace) or {}, "Ready")
        return str(told["message"]) if told["status"] == "False" and "example" in told["message"] else ""

    said = wait_for(says_why, seconds=240, what="the status to say why its pods are not ready")
    assert "where" in said, said
    found = lab.kube.get("modeldeployment", NAME, namespace) or {}
    assert found["status"]["live"] == before["status"]["live"]
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"
    assert post(url, {"rows": [FLOWER]})["predictions"] == [{"species": 0, "sure": True}]


def test_answers_that_fail_take_a_content_back(lab: Lab, namespace: str) -> None:
    """A function that answers its example, and ends its process for what callers send: 5xx, and a limit is passed."""
    before = (lab.kube.get("modeldeployment", NAME, namespace) or {})["status"]["live"]
    spec_ = (lab.kube.get("modeldeployment", NAME, namespace) or {})["spec"]
    limits = {"rollBackOn": {"errorRate": 0.5, "minimumRequests": 5, "watchFor": "10m"}}
    by_function = {"onFailure": "ServeNative", "function": "flowers:brittle"}
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"
    with Caller(url, {"rows": [{**FLOWER, "sepal length (cm)": 9.9}]}) as caller:
        lab.kube.apply(model_deployment(NAME, namespace, {**spec_, "export": by_function, "rollout": limits}))
        wait_for(lambda: caller.failures, seconds=240, what="the first answer that fails")

        def taken_back() -> bool:
            found = lab.kube.get("modeldeployment", NAME, namespace) or {}
            return condition(found, "Ready")["reason"] == "RolledBack"

        wait_for(taken_back, seconds=120, what="RolledBack")
        answered = caller.versions[before["content"]]
        wait_for(lambda: caller.versions[before["content"]] > answered + 20, seconds=60, what="answers as before")
    assert any("HTTPError 503" in failure for failure in caller.failures), caller.failures[:3]
    found = lab.kube.get("modeldeployment", NAME, namespace) or {}
    assert found["status"]["live"]["content"] == before["content"]
    newest = entries(lab.kube, NAME, namespace)[-1]
    assert (newest["cause"], newest["who"], newest["whoBy"]) == ("Rollback", "slipway", "Operator")
    assert "errorRate: " in newest["why"]
    assert "limit 50.00%" in newest["why"]
