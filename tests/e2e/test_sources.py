"""Sources on the real cluster: private Git, Subversion, a package, a branch that moves; and a common list."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.git import GitServer
from lab.install import COMMON_LIST, OTHER_LIST, Lab, registry_prefix
from lab.kube import KubectlError, Manifest, condition, wait_for
from lab.ports import free_port
from lab.private import PrivateGit, Subversion
from lab.projects import model_deployment, spec, write_project

Settled = Callable[..., Manifest]


def secret(name: str, namespace: str, **values: str) -> Manifest:
    """Return a Secret for basic authentication."""
    kind = "kubernetes.io/basic-auth"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": namespace},
        "stringData": values,
    }


def test_a_private_repository_opens_with_the_secret_that_the_spec_names(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """Refused without and with a wrong password, served with the right one; the operator never reads the Secret."""
    lab.git.publish("private", write_project(tmp_path))
    with PrivateGit(lab.git.folder, lab.git.address, username="ada", password="s3cret") as server:
        wanted: dict[str, Any] = copy.deepcopy(spec(server.url("private")))
        lab.kube.apply(model_deployment("private", namespace, wanted))
        refused = settled("private", namespace, "Stalled")
        assert condition(refused, "Stalled")["reason"] == "SourceAccessDenied"
        assert "secretName" in condition(refused, "Stalled")["message"]

        lab.kube.apply(secret("reader", namespace, username="ada", password="s3cret"))
        wanted["source"]["git"]["secretName"] = "reader"
        lab.kube.apply(model_deployment("private", namespace, wanted))

        settled("private", namespace)


def test_a_secret_that_the_author_may_not_read_is_refused(lab: Lab, namespace: str) -> None:
    """The admission policy asks the authorizer; an author with no right on Secrets cannot borrow the Job's."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "author", "namespace": namespace}}
    rules = [{"apiGroups": ["slipway.dev"], "resources": ["modeldeployments"], "verbs": ["*"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "author"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}
    lab.kube.apply(
        {**role, "kind": "Role", "rules": rules},
        {**role, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    )
    wanted: dict[str, Any] = copy.deepcopy(spec("https://git.example.com/a.git"))
    wanted["source"]["git"]["secretName"] = "of-somebody-else"

    with pytest.raises(KubectlError, match="of-somebody-else"):
        lab.kube.run(
            "create", "--as=mallory", "-f", "-", stdin=json.dumps(model_deployment("borrow", namespace, wanted))
        )

    wanted["source"]["git"].pop("secretName")
    lab.kube.run("create", "--as=mallory", "-f", "-", stdin=json.dumps(model_deployment("borrow", namespace, wanted)))
    lab.kube.delete("modeldeployment", "borrow", namespace)


def test_subversion_at_a_revision(lab: Lab, namespace: str, settled: Settled, tmp_path: Path) -> None:
    """The status names the revision; the package is made of that revision."""
    tree, folder = tmp_path / "tree", tmp_path / "svn"
    folder.mkdir()
    with Subversion(folder, lab.git.address) as server:
        server.publish(write_project(tree), "trunk/iris")
        wanted = dict(spec("unused"))
        wanted["source"] = {"svn": {"url": server.url, "path": "trunk/iris"}}
        lab.kube.apply(model_deployment("subversion", namespace, wanted))

        resource = settled("subversion", namespace)

    assert resource["status"]["live"]["commit"] == "r1"


def test_a_package_from_a_laptop_is_what_the_cluster_would_have_made(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """`slipway package --push`, then spec.source.package: equal digests, and it serves."""
    lab.git.publish("packaged", write_project(tmp_path / "tree"))
    lab.kube.apply(model_deployment("from-git", namespace, spec(lab.git.url("packaged"))))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", lab.git.url("packaged"), str(clone)], check=True)
    repository = f"{registry_prefix()}/{namespace}/laptop"
    command = ["slipway", "package", str(clone), "--push", f"{repository}:v1", "--insecure"]
    environment = {"PATH": f"{lab.crane.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    venv = Path(__file__).parents[2] / ".venv" / "bin"
    environment["PATH"] = f"{venv}:{environment['PATH']}"
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    digest = subprocess.run(
        [str(lab.crane), "digest", "--insecure", f"{repository}:v1"], capture_output=True, text=True, check=True
    ).stdout.strip()

    wanted = dict(spec("unused"))
    wanted["source"] = {"package": {"image": f"{repository}@{digest}"}}
    lab.kube.apply(model_deployment("from-package", namespace, wanted))

    settled("from-package", namespace)
    from_git = settled("from-git", namespace)
    assert from_git["status"]["source"]["package"] == digest


def test_a_branch_that_moves_is_followed_and_only_when_asked(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """With follow the next commit goes live by itself; without, the commit found first stays."""
    first = lab.git.publish("moving", write_project(tmp_path / "1"))
    pinned = spec(lab.git.url("moving"))
    following: dict[str, Any] = copy.deepcopy(pinned)
    following["source"]["git"]["follow"] = {"interval": "10s"}
    lab.kube.apply(model_deployment("pinned", namespace, pinned), model_deployment("follows", namespace, following))
    assert settled("follows", namespace)["status"]["live"]["commit"] == first
    assert settled("pinned", namespace)["status"]["live"]["commit"] == first

    second = lab.git.publish("moving", write_project(tmp_path / "2", strength=0.3))

    wait_for(
        lambda: (lab.kube.get("modeldeployment", "follows", namespace) or {})["status"]["live"]["commit"] == second,
        seconds=600,
        what="the branch's new commit to be live",
    )
    assert settled("pinned", namespace)["status"]["live"]["commit"] == first


def test_a_common_list_serves_a_project_without_a_lock_file(
    lab: Lab, namespace: str, settled: Settled, tmp_path: Path
) -> None:
    """The platform's published list decides; several lists and versions stand side by side."""
    lab.git.publish("common", write_project(tmp_path, {"requirements.txt": None}))
    lists = {"common-1": (COMMON_LIST, "1"), "common-2": (COMMON_LIST, "2"), "other-1": (OTHER_LIST, "1")}
    for name, (listed, version) in lists.items():
        wanted: dict[str, Any] = copy.deepcopy(spec(lab.git.url("common")))
        wanted["environment"] = {"isolation": "Common", "packageList": {"name": listed, "version": version}}
        lab.kube.apply(model_deployment(name, namespace, wanted))

    environments = {}
    for name in lists:
        live = settled(name, namespace)["status"]["live"]
        entry = lab.kube.get("controllerrevision", f"{name}-{live['revision']}", namespace) or {}
        environments[name] = entry["data"]["digests"]["environment"]

    assert environments["common-1"] != environments["common-2"]
    # The platform publishes the same packages under both names.
    assert environments["other-1"] == environments["common-2"]


def test_a_source_that_is_down_is_waited_for(lab: Lab, namespace: str, settled: Settled, tmp_path: Path) -> None:
    """Not Stalled, a reason and the next try in words; once the server is back it goes on by itself."""
    address, port = lab.git.address, free_port(lab.git.address)
    server = GitServer(tmp_path / "git", address, port)
    server.publish("asleep", write_project(tmp_path / "tree"))
    lab.kube.apply(model_deployment("asleep", namespace, spec(server.url("asleep"))))
    wait_for(lambda: _ready(lab, "asleep", namespace)["reason"] == "SourceUnavailable", seconds=300, what="the reason")
    resource = lab.kube.get("modeldeployment", "asleep", namespace) or {}
    assert condition(resource, "Stalled")["status"] == "False"
    assert condition(resource, "Reconciling")["status"] == "True"

    server.start()
    try:
        settled("asleep", namespace)
    finally:
        server.stop()


def _ready(lab: Lab, name: str, namespace: str) -> Mapping[str, Any]:
    return condition(lab.kube.get("modeldeployment", name, namespace) or {}, "Ready")
