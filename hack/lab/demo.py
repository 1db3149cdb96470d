"""`make demo`: two real projects from their commits to answered predictions, and one of them back again.

Run as ``python -m lab.demo [clean]``. It works a second time: what is there
already is found and shown, not made again.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lab import tell
from lab.install import ROOT, Lab, environment, open_lab, prepare, uninstall
from lab.kube import Manifest, condition, wait_for

BUILD_LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Project:
    """One example and where it is deployed; its questions.json holds rows that a person understands."""

    folder: str
    name: str
    namespace: str
    tag: str


FLIGHTS = Project(folder="flight-delay", name="flight-delay", namespace="airline", tag="v1.0.0")
# Somebody means well: more of the late flights are found, and every chance that is told is far too high.
REGRETTED = replace(FLIGHTS, tag="v1.1.0")
REGRETTED_FILE = "src/flight_delay/model.py"
REGRETTED_EDIT = ("learning_rate=0.15,", 'learning_rate=0.15, class_weight="balanced",')
LEGACY = Project(folder="iris-legacy", name="iris-legacy", namespace="botany", tag="v0.3.0")


def main(arguments: list[str]) -> None:
    """Run the demo, or undo it."""
    if arguments == ["clean"]:
        clean()
        return
    started = time.monotonic()
    lab = prepare("Slipway's demo")
    lab.git.start()
    projects = (FLIGHTS, LEGACY)
    tell.step("Two projects in Git, each with its own lock file")
    for project in projects:
        commit = lab.git.publish(project.folder, ROOT / "examples" / project.folder, tag=project.tag)
        tell.line(f"{project.name}: {lab.git.url(project.folder)} {project.tag} is commit {commit[:12]}")

    tell.step("kubectl apply: one resource each, in two namespaces")
    for project in projects:
        lab.kube.namespace(project.namespace)
        tell.command(f"kubectl apply -f examples/{project.folder}/modeldeployment.yaml -n {project.namespace}")
        lab.kube.apply(manifest(lab, project))
    follow(lab, projects)

    tell.step("Predictions, by curl")
    for project in projects:
        predict(lab, project)

    tell.step("Three replicas")
    scale(lab, FLIGHTS, 3)

    tell.step("A release that will be regretted, and the way back")
    release(lab)
    roll_back(lab)

    tell.step("What is there now")
    tell.command("kubectl get modeldeployments -A")
    print(lab.kube.run("get", "modeldeployments", "-A"))
    farewell(lab, time.monotonic() - started)


def manifest(lab: Lab, project: Project) -> Manifest:
    """Read the example's resource and point it at the lab's Git server."""
    text = (ROOT / "examples" / project.folder / "modeldeployment.yaml").read_text()
    found: Manifest = yaml.safe_load(text)
    found["metadata"] |= {"name": project.name, "namespace": project.namespace}
    found["spec"]["source"] = {"git": {"url": lab.git.url(project.folder), "ref": project.tag}}
    return found


def follow(lab: Lab, projects: tuple[Project, ...]) -> None:
    """Print every change of every project's summary until all are Ready; explain the one that gets stuck."""
    said: dict[str, str] = {}
    deadline = time.monotonic() + BUILD_LIMIT_SECONDS
    waiting = set(projects)
    while waiting:
        for project in sorted(waiting, key=lambda each: each.name):
            resource = _resource(lab, project)
            summary = resource.get("status", {}).get("summary", "waiting for the operator")
            if said.get(project.name) != summary:
                said[project.name] = summary
                tell.line(f"{project.name:14s} {summary}")
            if is_settled(resource, "Ready"):
                waiting.discard(project)
            elif is_settled(resource, "Stalled"):
                explain(lab, project, resource)
        if waiting and time.monotonic() > deadline:
            explain(lab, min(waiting, key=lambda each: each.name), {})
        time.sleep(0.3)


def is_settled(resource: Manifest, kind: str) -> bool:
    """Say whether a condition is True for the generation that is there now."""
    found = condition(resource, kind)
    generation = resource.get("metadata", {}).get("generation")
    return bool(found["status"] == "True" and resource["status"].get("observedGeneration") == generation)


def explain(lab: Lab, project: Project, resource: Manifest) -> None:
    """End with what the resource itself says, and where to look on."""
    message = condition(resource, "Stalled").get("message") or "It takes too long."
    where = f"-n {project.namespace}"
    tell.fail(
        f"{project.name} is stuck: {message}\n"
        f"Look on with:\n"
        f"  export KUBECONFIG={lab.kube.kubeconfig}\n"
        f"  kubectl describe modeldeployment {project.name} {where}\n"
        f"  kubectl logs {where} -l slipway.dev/owner={project.name} --all-containers --tail=50"
    )


def predict(lab: Lab, project: Project, first: int | None = None) -> None:
    """Ask the model about its own example rows (or the first of them), in a person's words."""
    asked = json.loads((ROOT / "examples" / project.folder / "questions.json").read_text())
    with lab.kube.forward(project.name, project.namespace) as url:
        port = url.rpartition(":")[2]
        tell.command(f"kubectl port-forward -n {project.namespace} service/{project.name} {port}:80 &")
        for question in asked["rows"][:first]:
            body = json.dumps({"rows": [question["row"]]})
            tell.line(f"{question['says']} {asked['question']}")
            print(f"          {curl(f'{url}/predict', body)}", flush=True)


def curl(url: str, body: str) -> str:
    """Show a curl, run it as a person would and return what it printed."""
    command = ["curl", "-sS", "--fail-with-body", "-H", "Content-Type: application/json", "-d", body, url]
    tell.command(shlex.join(command))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tell.fail(f"The model did not answer: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def scale(lab: Lab, project: Project, replicas: int) -> None:
    """Scale up while asking all the time; say how many answers failed."""
    tell.command(f"kubectl scale modeldeployment {project.name} -n {project.namespace} --replicas={replicas}")
    asked = json.loads((ROOT / "examples" / project.folder / "questions.json").read_text())
    body = json.dumps({"rows": [asked["rows"][0]["row"]]})
    answers: list[bool] = []
    done = threading.Event()
    with lab.kube.forward(project.name, project.namespace) as url:
        asking = threading.Thread(target=_ask_until, args=(url, body, done, answers))
        asking.start()
        try:
            lab.kube.run("scale", "modeldeployment", project.name, "-n", project.namespace, f"--replicas={replicas}")
            wait_for(lambda: _ready(lab, project) == replicas, seconds=120, what=f"{replicas} ready pods")
        finally:
            done.set()
            asking.join()
    tell.line(f"{replicas} pods are ready; {len(answers)} predictions meanwhile, {answers.count(False)} failed")


def release(lab: Lab) -> None:
    """Publish the flights' next version and take it live, as any release."""
    before, after = REGRETTED_EDIT
    with TemporaryDirectory() as folder:
        tree = shutil.copytree(ROOT / "examples" / FLIGHTS.folder, Path(folder) / FLIGHTS.folder)
        code = (tree / REGRETTED_FILE).read_text()
        if code.count(before) != 1:
            tell.fail(f"{REGRETTED_FILE} has changed: choose another edit in {__file__}")
        (tree / REGRETTED_FILE).write_text(code.replace(before, after))
        commit = lab.git.publish(FLIGHTS.folder, tree, tag=REGRETTED.tag)
    tell.line(f"{REGRETTED.tag} is commit {commit[:12]}: {REGRETTED_FILE} has {after.removeprefix(before).strip()}")
    lab.kube.apply(manifest(lab, REGRETTED))
    follow(lab, (REGRETTED,))
    predict(lab, REGRETTED, first=1)


def roll_back(lab: Lab) -> None:
    """Go back by an annotation, and apply the regretted version again as a GitOps tool would."""
    where = (FLIGHTS.name, "-n", FLIGHTS.namespace)
    regretted = _status(lab, FLIGHTS)["live"]["content"]
    # A request is acted upon once; the id makes that of a second demo another one.
    wish = f"slipway.dev/rollback=previous@demo-{time.time():.0f} everybody is told to expect a delay"
    tell.command(f"kubectl annotate modeldeployment {' '.join(where)} '{wish}'")
    asked = time.monotonic()
    lab.kube.run("annotate", "modeldeployment", *where, "--overwrite", wish)
    wait_for(
        lambda: _status(lab, FLIGHTS)["live"]["content"] != regretted,
        seconds=60,
        what="the version before to be live",
        every=0.05,
    )
    tell.line(f"the version before is live again after {time.monotonic() - asked:.1f} s")
    predict(lab, FLIGHTS, first=1)
    tell.line("The next sync of a GitOps tool does not undo it:")
    tell.command(f"kubectl apply -f examples/{FLIGHTS.folder}/modeldeployment.yaml   # still {REGRETTED.tag}")
    lab.kube.apply(manifest(lab, REGRETTED))
    wait_for(lambda: is_settled(_resource(lab, FLIGHTS), "Stalled"), seconds=60, what="it to be seen")
    tell.line(_status(lab, FLIGHTS)["summary"])


def farewell(lab: Lab, seconds: float) -> None:
    """Say what to type next."""
    where = f"-n {FLIGHTS.namespace}"
    tell.step(f"Done in {seconds:.0f} s. What to type next")
    for text in (
        environment(lab),
        f"kubectl describe modeldeployment {FLIGHTS.name} {where}",
        f"kubectl get controllerrevisions {where}          # the log: what was live, and why",
        f"kubectl annotate modeldeployment {FLIGHTS.name} {where} slipway.dev/resume=now   # {REGRETTED.tag} once more",
        "kubectl explain modeldeployment.spec --recursive",
        f"kubectl port-forward {where} service/{FLIGHTS.name} 8080:80",
        "make demo-clean cluster-down",
    ):
        tell.command(text)


def clean() -> None:
    """Remove the projects, the chart and the Git server; the cluster stays."""
    lab = open_lab()
    tell.step("Removing the demo")
    for project in (FLIGHTS, LEGACY):
        lab.kube.delete("namespace", project.namespace)
        tell.line(f"namespace {project.namespace} is gone")
    uninstall(lab)
    lab.git.stop()
    tell.line("the CRDs stay, as with them every ModelDeployment of this cluster would go:")
    tell.command("kubectl delete crd modeldeployments.slipway.dev retrainjobs.slipway.dev")
    tell.line("the cluster itself stays: `make cluster-down` stops it")


def _resource(lab: Lab, project: Project) -> Manifest:
    return lab.kube.get("modeldeployment", project.name, project.namespace) or {}


def _status(lab: Lab, project: Project) -> dict[str, Any]:
    return dict(_resource(lab, project).get("status", {}))


def _ready(lab: Lab, project: Project) -> int:
    return int(_status(lab, project).get("readyReplicas", 0))


def _ask_until(url: str, body: str, done: threading.Event, answers: list[bool]) -> None:
    while not done.wait(0.1):
        asked = subprocess.run(
            ["curl", "-sS", "-f", "-o", "/dev/null", "-d", body, f"{url}/predict"], capture_output=True, check=False
        )
        answers.append(asked.returncode == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
