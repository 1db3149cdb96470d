"""`make bench-pipeline`: from `kubectl apply` to the first right prediction, split by step.

Four cases: nothing cached, a changed lock, changed code only, nothing changed.
Beside them the floor of the third: the pods of its Jobs in turn with nothing to do but to
import what a model cannot be loaded without.
Prints a table and writes ``bench-results/pipeline-<time>.json``. The peer for
the environment image is `buildah bud` with the equivalent Containerfile on the
same packages, in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
import urllib.error
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.bench_buildah import compare

from cluster.layout import Layout
from lab import tell
from lab.install import ROOT, SMALL_PACKAGE, Lab, open_lab, registry_prefix, tool
from lab.installed import operator_metrics, requests_in
from lab.kube import Manifest, condition, post, wait_for
from lab.projects import FLOWER, LOCK, model_deployment, spec, write_project

NAMESPACE = "bench-pipeline"
NAME = "bench"
QUESTION = {"rows": [FLOWER]}

OUR_PYTHON = ("/usr/bin/python3.11", "-c")
PROJECTS_PYTHON = ("/opt/env/bin/python", "-c")
IMPORTS = "import sklearn.linear_model"

Versions = dict[tuple[str, str], str]
"""The resource version of each object by its kind and name."""


def main() -> None:
    """Run the cases and keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of the case 'changed code' (the median counts)")
    rounds = parser.parse_args().rounds
    lab = open_lab()
    lab.git.start()
    lab.kube.delete("namespace", NAMESPACE)
    lab.kube.namespace(NAMESPACE)
    results: dict[str, Any] = {"machine": machine(), "at": datetime.now(UTC).isoformat(), "cases": {}}
    cases = results["cases"]
    with TemporaryDirectory() as folder:
        trees = Path(folder)
        tell.step("(a) nothing cached")
        forget(lab)
        cases["nothing cached"] = [case(lab, trees / "a", strength=1.0)]
        tell.step("(b) a changed lock")
        longer = LOCK.read_text() + SMALL_PACKAGE
        cases["changed lock"] = [case(lab, trees / "b", strength=1.0, lock=longer)]
        tell.step("(c) changed code only, without training")
        model = trained_model(lab)
        cases["changed code"] = [
            case(lab, trees / f"c{turn}", strength=1.0, model=model, note=f"turn {turn}") for turn in range(rounds + 1)
        ][1:]
        tell.step("The floor of (c): the same pods with nothing to do")
        results["floor"] = [floor(lab) for _ in range(rounds)]
        tell.step("(d) nothing changed")
        cases["nothing changed"] = [unchanged(lab, cases["changed code"][-1]["manifest"])]
    tell.step("The environment image of (a), beside buildah")
    base = json.loads((ROOT / "build" / "images.json").read_text())["images"]["base"]
    results["environmentImage"] = compare(LOCK, rounds=3, prefix=registry_prefix(), base=base, crane=str(lab.crane))
    lab.kube.delete("namespace", NAMESPACE, wait=False)
    report(results)


def case(
    lab: Lab, tree: Path, *, strength: float, lock: str | None = None, model: bytes | None = None, note: str = ""
) -> dict[str, Any]:
    """Publish a tree, apply the resource, and time the way to the first answer of the new content."""
    files: dict[str, str | bytes | None] = {"README.md": f"A project. {note}\n"}
    if lock is not None:
        files["requirements.txt"] = lock
    if model is not None:
        files["model.joblib"] = model
    commit = lab.git.publish(NAME, write_project(tree, files, strength=strength))
    before = live(lab)
    began = time.monotonic()
    manifest = model_deployment(NAME, NAMESPACE, spec(lab.git.url(NAME), commit, train=model is None))
    lab.kube.apply(manifest)
    content = wait_for(lambda: answered(lab, before), seconds=900, what="the new content's answer", every=0.1)
    seconds = time.monotonic() - began
    resource = wait_for(lambda: ready(lab), seconds=60, what="Ready")
    steps = {step["name"]: step_seconds(step) for step in resource["status"]["steps"]}
    tell.line(f"{seconds:6.1f} s to the first answer of {content}: {steps}")
    return {"seconds": seconds, "steps": steps, "content": content, "manifest": manifest}


def unchanged(lab: Lab, manifest: Manifest) -> dict[str, Any]:
    """Apply the same again once all is still; count Jobs made and name objects written within 20 s."""
    before, sent = still(lab, seconds=10), requests_in(operator_metrics(lab.kube))
    lab.kube.apply(manifest)
    time.sleep(20)
    after = versions(lab)
    # A write that changes nothing leaves the version as it was: only the operator's own count tells of it.
    asked = {method: count - sent.get(method, 0) for method, count in requests_in(operator_metrics(lab.kube)).items()}
    written = sorted(" ".join(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    jobs = sum(kind == "Job" and (kind, name) not in before for kind, name in after)
    tell.line(f"{jobs} Jobs, {len(written)} objects written" + (f": {', '.join(written)}" if written else ""))
    tell.line(f"the operator's requests: {asked}")
    return {"jobs": jobs, "written": written, "requests": asked}


def still(lab: Lab, *, seconds: float) -> Versions:
    """Wait until nothing was written for so long: what follows a switch, like clean-up, is not of this case."""
    deadline = time.monotonic() + 180
    before = versions(lab)
    while time.monotonic() < deadline:
        time.sleep(seconds)
        now = versions(lab)
        if now == before:
            return now
        before = now
    raise TimeoutError("after 180 s something is still being written")


def versions(lab: Lab) -> Versions:
    """Return the resource version of everything that Slipway writes."""
    kinds = "modeldeployments,jobs,deployments,services,configmaps,controllerrevisions,pdb,networkpolicies"
    return {
        (each["kind"], each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for each in lab.kube.list(kinds, NAMESPACE)
    }


def trained_model(lab: Lab) -> bytes:
    """Take the model that the case before trained out of its artifact, to commit it with the code."""
    resource = lab.kube.get("modeldeployment", NAME, NAMESPACE) or {}
    entry = lab.kube.get("controllerrevision", f"{NAME}-{resource['status']['live']['revision']}", NAMESPACE) or {}
    reference = f"{registry_prefix()}/{NAMESPACE}/{NAME}@{entry['data']['digests']['trained']}"
    manifest = json.loads(crane(lab, "manifest", reference))
    for layer in manifest["layers"]:
        if layer.get("annotations", {}).get("org.opencontainers.image.title") == "model.joblib":
            blob = f"{reference.partition('@')[0]}@{layer['digest']}"
            return subprocess.run([str(lab.crane), "blob", "--insecure", blob], capture_output=True, check=True).stdout
    raise RuntimeError(f"{reference} holds no model.joblib: {manifest}")


def floor(lab: Lab) -> dict[str, float]:
    """Run the Jobs of (c) again with nothing to do in their containers.

    Returns the seconds of each from the Job to the end of its last container: whole ones, as those of steps.
    """
    seconds: dict[str, float] = {}
    jobs = lab.kube.list("jobs", NAMESPACE)
    for step in ("build", "export"):
        template = max(
            (job for job in jobs if job["metadata"]["labels"]["slipway.dev/step"] == step),
            key=lambda job: str(job["metadata"]["creationTimestamp"]),
        )["spec"]["template"]["spec"]
        for container in (*template["initContainers"], *template["containers"]):
            project = step == "export" and container["name"] == "run"
            container["command"] = [*PROJECTS_PYTHON, IMPORTS] if project else [*OUR_PYTHON, "pass"]
            container.pop("args", None)
        name = f"floor-{step}"
        pod = {"restartPolicy": "Never", **template}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        }
        lab.kube.apply(job)
        lab.kube.run("wait", "--for=condition=Complete", "--timeout=60s", "-n", NAMESPACE, f"job/{name}")
        (pod,) = lab.kube.list("pods", NAMESPACE, f"batch.kubernetes.io/job-name={name}")
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
        made = (lab.kube.get("job", name, NAMESPACE) or {})["metadata"]["creationTimestamp"]
        seconds[step] = (datetime.fromisoformat(ended) - datetime.fromisoformat(made)).total_seconds()
        lab.kube.delete("job", name, NAMESPACE)
    tell.line(", ".join(f"{step} {spent:.1f} s" for step, spent in seconds.items()))
    return seconds


def forget(lab: Lab) -> None:
    """Remove environments from the registry, and what projects made from the node: the first case starts with nothing.

    Raises:
        RuntimeError: The cluster is not the local one, so the node's images cannot be removed from here.
    """
    prefix = registry_prefix()
    repository = f"{prefix}/environments"
    for tag in crane(lab, "ls", repository, check=False).split():
        digest = crane(lab, "digest", f"{repository}:{tag}").strip()
        crane(lab, "delete", f"{repository}@{digest}", check=False)
    socket = Layout.of_machine().containerd_socket
    if not socket.exists():
        raise RuntimeError("the node's images can be removed on the local cluster only: unset SLIPWAY_CONTEXT")
    images = [tool("ctr"), "--address", str(socket), "--namespace", "k8s.io", "images"]
    ours = {
        ref.partition("@")[0] for ref in json.loads((ROOT / "build" / "images.json").read_text())["images"].values()
    }
    known = subprocess.run([*images, "ls", "-q"], capture_output=True, text=True, check=True).stdout.split()
    projects = [each for each in known if each.startswith(f"{prefix}/") and each.partition("@")[0] not in ours]
    if projects:
        subprocess.run([*images, "rm", "--sync", *projects], capture_output=True, check=True)


def crane(lab: Lab, *arguments: str, check: bool = True) -> str:
    """Run crane against the lab's registry."""
    done = subprocess.run([str(lab.crane), *arguments, "--insecure"], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def live(lab: Lab) -> str:
    """Return the content that is live, or nothing."""
    resource = lab.kube.get("modeldeployment", NAME, NAMESPACE) or {}
    return str(resource.get("status", {}).get("live", {}).get("content", ""))


def answered(lab: Lab, before: str) -> str | None:
    """Return the content that answers rightly, once it is another than before."""
    service = lab.kube.get("service", NAME, NAMESPACE)
    if service is None:
        return None
    try:
        answer = post(f"http://{service['spec']['clusterIP']}/predict", QUESTION, timeout=2)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    right = answer["predictions"][0]["label"] == 0
    return str(answer["model_version"]) if right and answer["model_version"] != before else None


def ready(lab: Lab) -> Manifest | None:
    """Return the resource once it is Ready."""
    resource = lab.kube.get("modeldeployment", NAME, NAMESPACE) or {}
    return resource if condition(resource, "Ready")["status"] == "True" else None


def step_seconds(step: Manifest) -> float | None:
    """Return how long a step ran; None where it did not."""
    if "startedAt" not in step or "finishedAt" not in step:
        return None
    began, ended = (datetime.fromisoformat(step[key]) for key in ("startedAt", "finishedAt"))
    return (ended - began).total_seconds()


def machine() -> dict[str, Any]:
    """Describe the machine, without its name."""
    cpu = next((each for each in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in each), ":?")
    memory = next(each for each in Path("/proc/meminfo").read_text().splitlines() if each.startswith("MemTotal"))
    return {
        "cpu": cpu.split(":", 1)[1].strip(),
        "memory": memory.split(":", 1)[1].strip(),
        "kernel": platform.release(),
    }


def report(results: dict[str, Any]) -> None:
    """Print the table and keep the figures."""
    tell.step("From kubectl apply to the first right prediction")
    for name, runs in results["cases"].items():
        if "seconds" not in runs[0]:
            print(f"  {name:18s} {runs[0]['jobs']} Jobs, {len(runs[0]['written'])} writes")
            continue
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        median = statistics.median(run["seconds"] for run in runs)
        worst = max(run["seconds"] for run in runs)
        steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in middle["steps"].items() if seconds is not None)
        print(f"  {name:18s} {median:6.1f} s (worst of {len(runs)}: {worst:.1f} s)   {steps}")
    least = [statistics.median(run[step] for run in results["floor"]) for step in ("build", "export")]
    print(f"  {'floor of (c)':18s} {sum(least):6.1f} s   Build {least[0]:.1f} s, Export {least[1]:.1f} s; no rollout")
    ours, theirs = (statistics.median(results["environmentImage"][name]) for name in ("slipway", "buildah"))
    print(f"  {'environment image':18s} {ours:6.1f} s, buildah {theirs:.1f} s: {ours / theirs:.0%} of the time")
    folder = ROOT / "bench-results"
    folder.mkdir(exist_ok=True)
    path = folder / f"pipeline-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n  written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
