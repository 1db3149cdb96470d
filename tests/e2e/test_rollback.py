"""Rollback on the real cluster: by annotation, by a person who may nothing else, by limits; and what stays after it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from lab.install import Lab
from lab.kube import KubectlError, Manifest, condition, wait_for
from lab.load import Caller, GrpcCaller
from lab.log import entries
from lab.projects import FLOWER, model_deployment, spec, write_project

Settled = Callable[..., Manifest]
QUESTION = {"rows": [FLOWER]}
NAME = "iris"
OPERATOR = "system:serviceaccount:slipway-system:slipway"


def resource(lab: Lab, namespace: str) -> Manifest:
    found = lab.kube.get("modeldeployment", NAME, namespace)
    assert found is not None
    return found


def live(lab: Lab, namespace: str) -> str:
    return str(resource(lab, namespace)["status"]["live"]["content"])


def has(lab: Lab, namespace: str, kind: str, reason: str) -> bool:
    found = resource(lab, namespace)
    if found["status"].get("observedGeneration") != found["metadata"]["generation"]:
        return False
    return condition(found, kind)["reason"] == reason


def log(lab: Lab, namespace: str) -> list[Manifest]:
    return entries(lab.kube, NAME, namespace)


def service(lab: Lab, namespace: str) -> str:
    return f"http://{lab.kube.address(NAME, namespace)}/predict"


@pytest.fixture(scope="module")
def commits(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three versions of one project."""
    return [
        lab.git.publish(NAME, write_project(tmp_path_factory.mktemp("iris"), strength=strength))
        for strength in (1.0, 0.5, 0.25)
    ]


def wanted(lab: Lab, namespace: str, ref: str, **fields: object) -> dict[str, object]:
    return model_deployment(NAME, namespace, {**spec(lab.git.url(NAME), ref=ref), **fields})


@pytest.fixture
def two(lab: Lab, namespace: str, commits: list[str], settled: Settled) -> Iterator[tuple[str, str]]:
    """Two contents, the second live; a deployment of this test's own."""
    lab.kube.apply(wanted(lab, namespace, commits[0]))
    settled(NAME, namespace)
    first = live(lab, namespace)
    lab.kube.apply(wanted(lab, namespace, commits[1]))
    settled(NAME, namespace)
    yield first, live(lab, namespace)
    lab.kube.delete("modeldeployment", NAME, namespace)
    wait_for(lambda: not lab.kube.list("controllerrevisions", namespace), seconds=60, what="the log to go")


def annotate(lab: Lab, namespace: str, *pairs: str, user: str | None = None) -> None:
    who = [f"--as={user}"] if user else []
    lab.kube.run("annotate", "modeldeployment", NAME, "-n", namespace, "--overwrite", *pairs, *who)


def test_a_rollback_is_one_annotation_and_nothing_undoes_it(
    lab: Lab, namespace: str, commits: list[str], two: tuple[str, str], settled: Settled
) -> None:
    """The old content answers at once, no request fails, applying Git's state again changes nothing.

    Nor does one over a gRPC channel that was open before, which comes back as well.
    """
    first, second = two
    url = service(lab, namespace)
    grpc = f"{url.split('/')[2]}:8081"
    with Caller(url, QUESTION) as caller, GrpcCaller(grpc, NAME, FLOWER) as streams:
        wait_for(lambda: caller.versions[second] > 20, seconds=90, what="answers of the second content")
        wait_for(lambda: streams.versions[second] > 20, seconds=90, what="its answers over gRPC")
        annotate(lab, namespace, "slipway.dev/rollback=previous@e2e-1 wrong units")
        began = time.monotonic()
        wait_for(lambda: caller.versions[first] > 0, seconds=60, what="an answer of the first content", every=0.05)
        took = time.monotonic() - began
        wait_for(lambda: has(lab, namespace, "Ready", "RolledBack"), seconds=90, what="RolledBack")
        for _ in range(5):
            lab.kube.apply(wanted(lab, namespace, commits[1]))
            time.sleep(1)  # a sync of a GitOps tool, and what the operator makes of it
        late = streams.versions[first]
        wait_for(lambda: streams.versions[first] > late + 20, seconds=60, what="the open channel to have moved")
    assert caller.failures == []
    assert streams.failures == []
    for asked in (caller, streams):
        assert asked.last_sent[second] < began + 30, "what was rolled back answers nobody any more"
    # Another journey may have killed the operator at this moment, and then another has to start.
    assert took < 60, "measured by make bench-rollback; here only that it is not a matter of minutes"
    found = resource(lab, namespace)
    assert found["status"]["live"]["content"] == first
    assert found["status"]["summary"].startswith("ROLLED BACK 2→1")
    assert {c["type"]: c["status"] for c in found["status"]["conditions"]}.items() >= {
        "Available": "True",
        "Ready": "False",
        "Stalled": "True",
        "Reconciling": "False",
        "LogIntact": "True",
    }.items()
    entry = log(lab, namespace)[-1]
    assert (entry["cause"], entry["requestId"], entry["why"], entry["whoBy"]) == (
        "Rollback",
        "e2e-1",
        "wrong units",
        "Admission",
    )
    pods = lab.kube.list("pods", namespace, f"slipway.dev/lane={second}")
    assert all("deletionTimestamp" in p["metadata"] for p in pods), "what was rolled back has no pods"

    lab.kube.apply(wanted(lab, namespace, commits[2]))
    settled(NAME, namespace)
    assert [e["cause"] for e in log(lab, namespace)] == ["SpecChange", "SpecChange", "Rollback", "SpecChange"]

    # Who may write the log may break it, too; that is said, and what is live stays.
    before = live(lab, namespace)
    lab.kube.run("delete", "controllerrevision", f"{NAME}-2", "-n", namespace, f"--as={OPERATOR}")
    wait_for(
        lambda: condition(resource(lab, namespace), "LogIntact")["status"] == "False",
        seconds=90,
        what="LogIntact=False",
    )
    told = condition(resource(lab, namespace), "LogIntact")
    assert (told["reason"], "missing" in told["message"]) == ("LogBroken", True), told
    assert lab.kube.list("events", namespace, fields=f"involvedObject.name={NAME},reason=LogBroken")
    assert live(lab, namespace) == before
    assert condition(resource(lab, namespace), "Available")["status"] == "True"


def test_a_person_who_may_roll_back_may_do_nothing_else(lab: Lab, namespace: str, two: tuple[str, str]) -> None:
    """The chart's role: rollback, abort and pause; no spec, no label, no resume; and nobody's name but one's own."""
    first, _ = two
    user = "on-call@example.com"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "on-call", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "slipway-rollback"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    lab.kube.apply(binding)
    refused = r"may roll back, abort and pause, and nothing else|cannot (delete|patch)"
    for change in (
        ["patch", "modeldeployment", NAME, "--type=merge", "-p", json.dumps({"spec": {"serving": {"replicas": 5}}})],
        ["label", "modeldeployment", NAME, "team=mine"],
        ["annotate", "modeldeployment", NAME, "slipway.dev/resume=now"],
        ["annotate", "modeldeployment", NAME, "slipway.dev/retry=1"],
        ["annotate", "modeldeployment", NAME, "example.com/a=b"],
        ["delete", "modeldeployment", NAME],
        ["scale", "modeldeployment", NAME, "--replicas=3"],
    ):
        with pytest.raises(KubectlError, match=refused):
            lab.kube.run(*change, "-n", namespace, f"--as={user}")
    with pytest.raises(KubectlError, match="cannot get"):
        annotate(lab, namespace, "slipway.dev/rollback=previous", user="passer-by@example.com")

    annotate(
        lab, namespace, "slipway.dev/rollback=previous", "slipway.dev/rollback-stamp=1 boss@example.com", user=user
    )
    wait_for(lambda: live(lab, namespace) == first, seconds=90, what="the rollback")
    entry = log(lab, namespace)[-1]
    assert (entry["cause"], entry["who"], entry["whoBy"]) == ("Rollback", user, "Admission")


def test_a_canary_answers_its_share_then_is_promoted_or_given_up(
    lab: Lab, namespace: str, commits: list[str], two: tuple[str, str], settled: Settled
) -> None:
    """One pod of three; abort holds it, resume begins anew, promote ends it; no request fails."""
    _, second = two
    canary = {"serving": {"replicas": 2}, "rollout": {"canary": {"pods": 1, "for": "1h"}}}
    lab.kube.apply(wanted(lab, namespace, commits[1], **canary))
    settled(NAME, namespace)
    with Caller(service(lab, namespace), QUESTION) as caller:
        lab.kube.apply(wanted(lab, namespace, commits[2], **canary))
        wait_for(lambda: has(lab, namespace, "Ready", "Canary"), seconds=180, what="the canary")
        third = resource(lab, namespace)["status"]["rollout"]["content"]
        wait_for(lambda: caller.versions[third] > 5, seconds=90, what="answers of the canary")
        wait_for(
            lambda: resource(lab, namespace)["status"]["rollout"].get("requests", 0) > 0,
            seconds=90,
            what="the canary's figures in status",
        )
        assert live(lab, namespace) == second

        annotate(lab, namespace, "slipway.dev/abort=now@e2e-2 not yet")
        wait_for(lambda: has(lab, namespace, "Ready", "Aborted"), seconds=90, what="Aborted")
        annotate(lab, namespace, "slipway.dev/resume=now@e2e-3")
        wait_for(lambda: has(lab, namespace, "Ready", "Canary"), seconds=60, what="the canary again")
        annotate(lab, namespace, "slipway.dev/paused=true")
        wait_for(lambda: has(lab, namespace, "Ready", "Paused"), seconds=90, what="Paused")
        annotate(lab, namespace, "slipway.dev/paused-", f"slipway.dev/promote={third}@e2e-4 good")
        settled(NAME, namespace)
    assert live(lab, namespace) == third
    assert caller.failures == []
    assert [(e["cause"], e.get("requestId")) for e in log(lab, namespace)][2:] == [
        ("Abort", "e2e-2"),
        ("Resume", "e2e-3"),
        ("SpecChange", "e2e-4"),
    ]


def test_a_limit_that_is_passed_rolls_back_by_itself(
    lab: Lab, namespace: str, commits: list[str], two: tuple[str, str]
) -> None:
    """Measured from the new content's own pods; the log has the figures."""
    _, second = two
    limits = {"rollout": {"rollBackOn": {"p99LatencyMillis": 0.0001, "minimumRequests": 20, "watchFor": "15s"}}}
    # What is live must not be watched any more, or it is what goes back.
    since = datetime.fromisoformat(resource(lab, namespace)["status"]["live"]["since"])
    wait_for(lambda: (datetime.now(UTC) - since).total_seconds() > 16, seconds=90, what="the watch to end")
    with Caller(service(lab, namespace), QUESTION) as caller:
        lab.kube.apply(wanted(lab, namespace, commits[2], **limits))
        wait_for(lambda: has(lab, namespace, "Ready", "RolledBack"), seconds=240, what="RolledBack")
    assert caller.failures == []
    assert live(lab, namespace) == second
    entry = log(lab, namespace)[-1]
    assert (entry["cause"], entry["who"]) == ("Rollback", "slipway")
    assert "p99LatencyMillis" in entry["why"]
    assert "requests" in entry["why"]


def test_the_log_brings_everything_back(lab: Lab, namespace: str, two: tuple[str, str], settled: Settled) -> None:
    """From the log alone: the status, and all of it in an empty namespace; the same content serves, nothing is built.

    `make test-restore` does the second into another cluster.
    """
    _, second = two
    before, made = resource(lab, namespace)["status"], jobs_that_make(lab, namespace)
    whole = ["patch", "modeldeployment", NAME, "-n", namespace, "--subresource=status", "--type=json"]
    lab.kube.run(*whole, "-p", '[{"op": "remove", "path": "/status"}]')
    after = settled(NAME, namespace)["status"]
    assert (after["live"], after["url"]) == (before["live"], before["url"])
    assert {k: v for k, v in after["standby"].items() if k != "readyReplicas"} == {
        k: v for k, v in before["standby"].items() if k != "readyReplicas"
    }
    assert jobs_that_make(lab, namespace) == made

    saved = [resource(lab, namespace), *lab.kube.list("controllerrevisions", namespace, "slipway.dev/log=true")]
    other = f"{namespace}-restored"
    lab.kube.namespace(other)
    try:
        for item in (*saved[1:], saved[0]):
            meta = item["metadata"]
            kept = {"name": meta["name"], "namespace": other, "labels": meta.get("labels", {})}
            # A backup's user is one of admissionPolicies.logWriters; here the operator's own name does.
            writer = [f"--as={OPERATOR}"] if item is not saved[0] else []
            text = json.dumps({**{k: v for k, v in item.items() if k != "status"}, "metadata": kept})
            lab.kube.run("create", "-f", "-", *writer, stdin=text)
        wait_for(
            lambda: condition(lab.kube.get("modeldeployment", NAME, other) or {}, "Ready")["status"] == "True",
            seconds=120,
            what="the restored one to be Ready",
        )
        found = lab.kube.get("modeldeployment", NAME, other)
        assert found is not None
        assert found["status"]["live"]["content"] == second
        assert jobs_that_make(lab, other) == set(), "nothing is made; only the registry is asked"
    finally:
        lab.kube.delete("namespace", other, wait=False)


def jobs_that_make(lab: Lab, namespace: str) -> set[str]:
    """Jobs of a namespace but those that only ask the registry."""
    found = lab.kube.list("jobs", namespace)
    return {j["metadata"]["name"] for j in found if j["metadata"]["labels"]["slipway.dev/step"] != "verify"}
