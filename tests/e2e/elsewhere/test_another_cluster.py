"""A backup of the resources and the log, restored into another cluster with the same registry (`make test-restore`).

Two local clusters cannot run at once on one machine, as both would have its address and ports. So the first one is
stopped, its registry's files are given to a second one, which is new in everything else (keys, etcd, node), and
afterwards the first one goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.choice import choose
from cluster.layout import Layout
from lab.install import NAMESPACE, ROOT, Lab, install, open_lab
from lab.kube import Manifest, condition, post, wait_for
from lab.log import entries
from lab.projects import FLOWER, locked_by, model_deployment, trained_spec, write_trained_project

NAME = "restored"
OTHER = Path("/var/lib/slipway-cluster-restored")
OPERATOR = f"system:serviceaccount:{NAMESPACE}:slipway"
FOLDER = "SLIPWAY_CLUSTER_DIR"
"""Names the folder of the cluster that all commands mean."""


def cluster(command: str) -> None:
    """Run one of the cluster's commands."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "hack")}
    done = subprocess.run(
        [sys.executable, "-m", "cluster", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def shared(source: str, target: str) -> None:
    """Copy a file of a registry; its blobs, which are never written into, as links."""
    (os.link if Path(source).name == "data" else shutil.copy2)(source, target)


@pytest.fixture
def another(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Lab]]:
    """Exchange the cluster for a new one with the same registry; the first one is back afterwards."""
    del lab
    if choose().kind != "local":
        pytest.skip("only the local cluster can be stopped and put aside")
    first = Layout.of_machine()

    def exchange() -> Lab:
        cluster("down")
        monkeypatch.setenv(FOLDER, str(OTHER))
        cluster("purge")
        shutil.copytree(first.root / "registry", OTHER / "registry", copy_function=shared)
        cluster("up")
        return open_lab()

    try:
        yield exchange
    finally:
        monkeypatch.setenv(FOLDER, str(OTHER))
        cluster("purge")
        monkeypatch.setenv(FOLDER, str(first.root))
        cluster("up")


def test_the_log_brings_everything_back_elsewhere(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], another: Callable[[], Lab], tmp_path: Path
) -> None:
    """The same content serves and answers the same, what was held is held, and nothing is built."""
    for number in (1, 2):
        files = {"README.md": f"version {number}\n", **locked_by("pylock.toml")}
        ref = lab.git.publish(NAME, write_trained_project(tmp_path / str(number), files))
        source = {"git": {"url": lab.git.url(NAME), "ref": ref}}
        lab.kube.apply(model_deployment(NAME, namespace, trained_spec(source, "pylock.toml")))
        settled(NAME, namespace)
    lab.kube.run("annotate", "modeldeployment", NAME, "-n", namespace, "slipway.dev/rollback=previous@before-backup")
    before = until(lab, namespace, "RolledBack")
    answer = answered(lab, namespace)
    backup = lab.kube.list("controllerrevisions", namespace, "slipway.dev/log=true")
    log = entries(lab.kube, NAME, namespace)
    assert [entry["cause"] for entry in log] == ["SpecChange", "SpecChange", "Rollback"]
    lab.git.stop()

    new = another()
    assert new.kube.get("namespace", namespace) is None, "another cluster, which knows nothing"
    install(new)
    new.kube.namespace(namespace)
    for entry in backup:
        bare(new, namespace, entry, f"--as={OPERATOR}")
    bare(new, namespace, before)
    after = until(new, namespace, "RolledBack")

    assert after["status"]["live"]["content"] == before["status"]["live"]["content"]
    assert [held["content"] for held in after["status"]["held"]] == [h["content"] for h in before["status"]["held"]]
    assert answered(new, namespace) == answer
    assert entries(new.kube, NAME, namespace) == log
    steps = {job["metadata"]["labels"]["slipway.dev/step"] for job in new.kube.list("jobs", namespace)}
    assert steps <= {"verify"}, "nothing is made; only the registry is asked"


def bare(lab: Lab, namespace: str, item: Manifest, *more: str) -> None:
    """Create an object of a backup, as tools for backups do: without what the other cluster knew of it."""
    meta = item["metadata"]
    kept = {key: meta[key] for key in ("name", "labels", "annotations") if key in meta} | {"namespace": namespace}
    text = json.dumps({**{k: v for k, v in item.items() if k != "status"}, "metadata": kept})
    lab.kube.run("create", "-f", "-", *more, stdin=text)


def until(lab: Lab, namespace: str, reason: str) -> Manifest:
    """Wait until Ready has a reason."""

    def look() -> Manifest | None:
        found = lab.kube.get("modeldeployment", NAME, namespace) or {}
        return found if condition(found, "Ready")["reason"] == reason else None

    return wait_for(look, seconds=180, what=reason)


def answered(lab: Lab, namespace: str) -> dict[str, Any]:
    """Ask the Service, once the node routes it."""
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"

    def ask() -> dict[str, Any] | None:
        try:
            found = dict(post(url, {"rows": [FLOWER]}))
        except OSError:
            return None
        return {name: value for name, value in found.items() if name != "id"}

    return wait_for(ask, seconds=30, what="an answer")
