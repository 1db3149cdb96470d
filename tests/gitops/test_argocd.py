"""A real Argo CD that syncs and heals by itself: it shows a rollback, and does not undo it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import fleet
from lab.argocd import Application, ArgoCD
from lab.customizations import Evaluator
from lab.install import Lab
from lab.kube import KubectlError, wait_for
from lab.load import Caller
from lab.projects import FLOWER
from lab.record import write_record
from lab.watch import Watch

SYNCS = 10
STATE = (".status.sync.status", ".status.health.status", ".status.sync.revision")
LIVE = (".status.live.revision", ".status.live.commit", ".status.conditions[?(@.type=='Stalled')].reason")


@pytest.fixture(scope="module")
def argocd(
    lab: Lab, namespace: str, customizations: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ArgoCD]:
    """Argo CD, and nothing left of it afterwards."""
    with ArgoCD(lab.kube, tmp_path_factory.mktemp("argocd"), f"{namespace}-argocd") as running:
        running.customize(customizations)
        yield running
        pids = list(running.pids.values())
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    with pytest.raises(KubectlError, match="NotFound"):
        lab.kube.run("get", "namespace", running.namespace)


def click(evaluator: Evaluator, model: fleet.Model, action: str, folder: Path) -> None:
    """Do what Argo CD's API server does for a click: run the Lua on the live object, and patch what it changed."""
    path = folder / f"{action}.json"
    before = model.read()
    path.write_text(json.dumps(before))
    assert evaluator.actions(path)[action] is False, f"{action} is disabled"
    after = evaluator.run(path, action)["metadata"]["annotations"]
    old = before["metadata"].get("annotations", {})
    changed = {key: value for key, value in after.items() if old.get(key) != value}
    patch = json.dumps({"metadata": {"annotations": changed}})
    target = ["modeldeployment", model.name, "-n", model.namespace, "--field-manager=argocd-server"]
    model.kube.run("patch", *target, "--type=merge", "-p", patch)


def stays_as_it_is(application: Application, model: fleet.Model, health: str) -> None:
    """Sync ten times over; neither the application nor what is live changes for a moment."""
    revision = application.state()[2]
    with (
        Watch(model.kube, "application.argoproj.io", application.name, application.namespace, STATE) as shown,
        Watch(model.kube, "modeldeployment", model.name, model.namespace, LIVE) as live,
    ):
        for _ in range(SYNCS):
            application.refresh()
            application.sync()
    write_record(
        application.name, {"syncs": SYNCS, "secondsSyncHealthRevision": shown.changes, "secondsLive": live.changes}
    )
    assert shown.values == [("Synced", health, revision)]
    assert len(live.values) == 1, live.changes


def remove(application: Application, model: fleet.Model) -> None:
    """Make room for the next test; the application first, as it would heal what goes."""
    model.kube.delete("application.argoproj.io", application.name, application.namespace)
    model.delete()


@pytest.mark.parametrize("options", [(), ("ServerSideApply=true",)], ids=["client-side", "server-side"])
def test_a_bad_commit_that_a_person_rejects(
    lab: Lab, argocd: ArgoCD, namespace: str, evaluator: Evaluator, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """By Argo CD's own action; ten syncs later nothing has changed, and the next good commit goes live."""
    name = f"rejected{len(options)}"
    project, model = fleet.start(lab, namespace, name, tmp_path / "project")
    repository = fleet.Fleet(lab.git, f"{namespace}-{name}-fleet", tmp_path / "fleet")
    good, bad, better = (project.commit(strength) for strength in (1.0, 0.001, 2.0))
    first = repository.push(model.manifest(project.spec(good)))
    application = argocd.application(name, repository=repository.url, into=namespace, options=options)
    application.wait("Synced", "Healthy", first, seconds=300)
    assert model.live_commit() == good

    second = repository.push(model.manifest(project.spec(bad)))
    application.refresh()
    application.wait("Synced", "Healthy", second, seconds=300)
    assert model.live_commit() == bad

    click(evaluator, model, "rollback", tmp_path)
    application.wait("Synced", "Suspended", second, seconds=30)
    model.wait("Stalled", "RolledBack", good, seconds=30)
    stays_as_it_is(application, model, "Suspended")

    lab.kube.run("scale", "modeldeployment", name, "-n", namespace, "--replicas=2")
    wait_for(lambda: model.read()["spec"]["serving"]["replicas"] == 1, seconds=30, what="self-healing")
    application.wait("Synced", "Suspended", second, seconds=30)
    model.wait("Stalled", "RolledBack", good, seconds=30)

    third = repository.push(model.manifest(project.spec(better)))
    application.refresh()
    application.wait("Synced", "Healthy", third, seconds=300)
    assert model.live_commit() == better
    application.sync()
    model.is_serving(better, seconds=30)
    assert model.causes() == ["SpecChange", "SpecChange", "Rollback", "SpecChange"]
    remove(application, model)


@pytest.mark.parametrize("way", ["canary", "all at once"])
def test_a_bad_commit_that_a_limit_rejects(lab: Lab, argocd: ArgoCD, namespace: str, tmp_path: Path, way: str) -> None:
    """What is slower than the limit is given up, or rolled back, by the controller; syncs do not start it again."""
    name = f"limited{len(way)}"
    project, model = fleet.start(lab, namespace, name, tmp_path / "project")
    repository = fleet.Fleet(lab.git, f"{namespace}-{name}-fleet", tmp_path / "fleet")
    good, bad, better = (project.commit(strength) for strength in (1.0, 0.001, 2.0))
    first = repository.push(model.manifest(project.spec(good)))
    application = argocd.application(name, repository=repository.url, into=namespace)
    application.wait("Synced", "Healthy", first, seconds=300)

    # No answer comes in a thousandth of a millisecond.
    limits = {"p99LatencyMillis": 0.001, "minimumRequests": 10, "watchFor": "20s"}
    canary = {"canary": {"pods": 1, "for": "10m"}} if way == "canary" else {}
    gone, causes = ("Aborted", ["Abort"]) if canary else ("RolledBack", ["SpecChange", "Rollback"])
    second = repository.push(model.manifest(project.spec(bad, rollout={**canary, "rollBackOn": limits})))
    # What is live must not be watched any more when the limits come, or it is what passes them.
    since = datetime.fromisoformat(model.read()["status"]["live"]["since"])
    wait_for(lambda: (datetime.now(UTC) - since).total_seconds() > 21, seconds=60, what="the first one's watch to end")
    with Caller(f"http://{lab.kube.address(name, namespace)}/predict", {"rows": [FLOWER]}) as caller:
        application.refresh()
        application.wait("Synced", "Suspended", second, seconds=300)
        model.wait("Stalled", gone, good, seconds=30)
        stays_as_it_is(application, model, "Suspended")
    assert len(caller.versions) == 2, "the bad one answered for a while"
    assert caller.failures == []

    third = repository.push(model.manifest(project.spec(better)))
    application.refresh()
    application.wait("Synced", "Healthy", third, seconds=300)
    assert model.live_commit() == better
    assert model.causes() == ["SpecChange", *causes, "SpecChange"]
    remove(application, model)


def test_a_branch_that_is_followed(
    lab: Lab, argocd: ArgoCD, namespace: str, evaluator: Evaluator, tmp_path: Path
) -> None:
    """Git of the fleet never changes; the branch of the project does, and the operator asks it all the time."""
    project, model = fleet.start(lab, namespace, "followed", tmp_path / "project")
    repository = fleet.Fleet(lab.git, f"{namespace}-followed-fleet", tmp_path / "fleet")
    good = project.commit(1.0)
    only = repository.push(model.manifest(project.spec("main", follow=True)))
    application = argocd.application("followed", repository=repository.url, into=namespace)
    application.wait("Synced", "Healthy", only, seconds=300)

    bad = project.commit(0.001)
    model.is_serving(bad)
    application.wait("Synced", "Healthy", only)

    click(evaluator, model, "rollback", tmp_path)
    application.wait("Synced", "Suspended", only, seconds=30)
    model.wait("Stalled", "RolledBack", good, seconds=30)
    stays_as_it_is(application, model, "Suspended")

    better = project.commit(2.0)
    model.is_serving(better)
    application.wait("Synced", "Healthy", only)
    assert model.causes() == ["SpecChange", "SpecChange", "Rollback", "SpecChange"]
    remove(application, model)


def test_the_programs_are_argo_cds_own(argocd: ArgoCD) -> None:
    """Three processes of this machine, no container and no fake."""
    programs = {name: Path(f"/proc/{pid}/exe").readlink().name for name, pid in argocd.pids.items()}

    assert programs == {
        "redis": "redis-check-rdb",  # what Debian's redis-server is a link to
        "repo-server": "argocd",
        "controller": "argocd",
    }
