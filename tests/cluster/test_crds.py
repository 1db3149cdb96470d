"""The CRDs on a real API server, and on the validation of the oldest release that Slipway supports."""

import functools
import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart.programs import open_kube, tool
from chart.specs import ROOT, Case, cases
from lab.kube import Kube, KubectlError, wait_for

CRDS = {
    "ModelDeployment": ROOT / "crds/slipway.dev_modeldeployments.yaml",
    "RetrainJob": ROOT / "crds/slipway.dev_retrainjobs.yaml",
}


@pytest.fixture(scope="module")
def kube() -> Kube:
    """A cluster that has this tree's CRDs: put there by the chart, or here where they differ or are missing."""
    found = open_kube()
    for kind, path in CRDS.items():
        name = f"{kind.lower()}s.slipway.dev"
        ours = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["versions"]
        there = found.get("crd", name)
        # A second manager of fields that are equal already would make the chart's next upgrade conflict.
        if there is None or there["spec"]["versions"] != ours:
            found.run("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", str(path))
        found.run("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
        wait_for(functools.partial(_is_served, found, name, kind), seconds=30, what=f"the API of {kind}")
    return found


def _is_served(kube: Kube, name: str, kind: str) -> bool:
    """Whether the API server has taken the schema in: `kubectl explain` reads what it serves."""
    return name.removesuffix(".slipway.dev") in kube.run("api-resources", "--api-group=slipway.dev", "-o", "name") and (
        kind in kube.run("explain", kind.lower())
    )


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    name = f"crds-{uuid.uuid4().hex[:6]}"
    kube.namespace(name)
    yield name
    kube.delete("namespace", name, wait=False)


def dry_run(kube: Kube, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Create without storing, with all that the API server checks; unknown fields are refused."""
    text = kube.run(
        "create", "--dry-run=server", "--validate=strict", "-n", namespace, "-o", "json", "-f", "-",
        stdin=json.dumps(manifest),
    )  # fmt: skip
    made: dict[str, Any] = json.loads(text)
    return made


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_the_api_server_accepts_and_refuses(kube: Kube, namespace: str, case: Case) -> None:
    if case.refused is None:
        assert dry_run(kube, namespace, case.manifest)["kind"] == case.kind
        return
    with pytest.raises(KubectlError) as refusal:
        dry_run(kube, namespace, case.manifest)
    assert case.refused in str(refusal.value)


@pytest.mark.parametrize("kind", CRDS)
def test_the_oldest_kubernetes_accepts_and_refuses_the_same(kind: str) -> None:
    """The CRD with its cost budget, and every case, by the validation code of Kubernetes 1.30."""
    table = [case for case in cases() if case.kind == kind]
    lines = "".join(json.dumps(case.manifest) + "\n" for case in table)

    done = subprocess.run(
        [tool("crd-check"), CRDS[kind]], input=lines, capture_output=True, text=True, check=False, timeout=600
    )

    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(table)
    for case, answer in zip(table, answers, strict=True):
        if case.refused is None:
            assert answer == "", case.id
        else:
            assert answer, f"{case.id} was accepted"
            assert case.refused in answer, case.id


def test_defaults_are_filled_in_and_replicas_are_not(kube: Kube, namespace: str) -> None:
    least = next(case for case in cases() if str(case) == "ModelDeployment-least")

    spec = dry_run(kube, namespace, least.manifest)["spec"]

    assert spec["source"]["git"] == {"url": least.manifest["spec"]["source"]["git"]["url"], "ref": "HEAD", "path": "."}
    assert spec["environment"] == {"language": "python", "isolation": "Project"}
    assert spec["export"]["timeout"] == "15m"
    assert spec["standby"] == {"fullFor": "10m"}
    assert "serving" not in spec


def manifest_of(name: str, **spec: object) -> dict[str, Any]:
    least = next(case for case in cases() if str(case) == "ModelDeployment-least").manifest
    return {**least, "metadata": {"name": name}, "spec": {**least["spec"], **spec}}


def stored(kube: Kube, namespace: str, manifest: dict[str, Any]) -> str:
    """Create an object that no operator takes for work; returns its name."""
    kube.run("create", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
    return str(manifest["metadata"]["name"])


def test_what_cannot_be_changed_stays(kube: Kube, namespace: str) -> None:
    base = next(case for case in cases() if str(case) == "RetrainJob-least").manifest
    name = stored(kube, namespace, {**base, "metadata": {"name": "unchangeable"}})

    with pytest.raises(KubectlError, match="modelDeployment cannot be changed: create another object"):
        kube.run("patch", "retrainjob", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"modelDeployment":"b"}}')
    kube.run("patch", "retrainjob", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')


def test_scale_is_served_and_does_not_fight_autoscaling(kube: Kube, namespace: str) -> None:
    plain = stored(kube, namespace, manifest_of("scaled"))
    automatic = stored(kube, namespace, manifest_of("automatic", serving={"autoscaling": {"maxReplicas": 3}}))

    kube.run("scale", "modeldeployment", plain, "-n", namespace, "--replicas=3")

    found = kube.get("modeldeployment", plain, namespace)
    assert found is not None
    assert found["spec"]["serving"] == {"replicas": 3}
    with pytest.raises(KubectlError, match="set replicas or autoscaling, not both"):
        kube.run("scale", "modeldeployment", automatic, "-n", namespace, "--replicas=3")


def test_status_is_a_subresource_and_takes_every_field(kube: Kube, namespace: str) -> None:
    name = stored(kube, namespace, manifest_of("told"))
    at = "2026-11-22T23:20:00Z"
    status = {
        "observedGeneration": 1,
        "summary": "Serving",
        "url": "http://told.example.svc",
        "retryOf": "1",
        "source": {"commit": "4f2a", "ref": "v1", "resolvedAt": at, "package": "sha256:00"},
        "steps": [{"name": "Build", "state": "Succeeded", "key": "1f0c", "startedAt": at, "finishedAt": at}],
        "training": {"seconds": 41.2, "metrics": {"roc_auc": 0.71}},
        "export": {"rows": 200, "maxAbsoluteDifference": 2.1e-7, "labelFlips": 0},
        "live": {"content": "3b1f", "revision": 4, "since": at, "commit": "4f2a"},
        "replicas": 2,
        "readyReplicas": 2,
        "selector": "slipway.dev/owner=told",
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": at}
        ],
    }

    def told() -> bool:
        """Write the status and read its row; an operator that runs beside this may write in between."""
        answer = kube.run(
            "patch", "modeldeployment", name, "-n", namespace, "--subresource=status", "--type=merge", "-o", "json",
            "-p", json.dumps({"status": status}),
        )  # fmt: skip
        lines = [line.split() for line in kube.run("get", "md", name, "-n", namespace).splitlines()]
        assert lines[0] == ["NAME", "READY", "STATUS", "REVISION", "CONTENT", "COMMIT", "REPLICAS", "AGE"]
        same = {key: json.loads(answer)["status"].get(key) for key in status if key != "conditions"}
        mine = {key: value for key, value in status.items() if key != "conditions"}
        wanted = ["told", "True", "Serving", "4", "3b1f", "4f2a", "2"]
        return same == mine and lines[1][: len(wanted)] == wanted

    wait_for(told, seconds=60, what="the status that was written")

    assert "URL" in kube.run("get", "mdep", name, "-n", namespace, "-o", "wide")
    assert f"modeldeployment.slipway.dev/{name}" in kube.run("get", "slipway", "-n", namespace, "-o", "name")


def test_explain_reads_well(kube: Kube) -> None:
    tree = kube.run("explain", "modeldeployment.spec", "--recursive")
    for field in ("source", "follow", "interval", "packageList", "maxAbsoluteDifference", "targetCPUUtilization"):
        assert field in tree
    interval = " ".join(kube.run("explain", "md.spec.source.git.follow.interval").split())
    assert "How often a small Job asks where the ref points to now. From 10s to 168h." in interval
