"""Sources as companies have them, on the real cluster: https with a private authority, passwords, ssh, closed doors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab.install import Lab
from lab.kube import Manifest, condition
from lab.projects import model_deployment, trained_spec, write_trained_project
from lab.ssh import SshServer, keypair
from lab.web import PASSWORD, USER, WebServer

Settled = Callable[..., Manifest]
SERVE = {"git-https": 40, "svn-https": 2, "git-ssh": 40, "svn-ssh": 2}
"""What must work, with the length of the commit's name that the status shows."""
REFUSED = {
    "not-trusted": "SourceNotTrusted",
    "no-password": "SourceAccessDenied",
    "wrong-password": "SourceAccessDenied",
    "no-right": "SourceAccessDenied",
    "other-host-key": "HostKeyMissing",
    "other-key": "SourceAccessDenied",
}


@pytest.fixture(scope="module")
def applied(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apply every project at once; Apache and sshd serve until the last test is done."""
    root = tmp_path_factory.mktemp("private")
    with ExitStack() as running:
        web = running.enter_context(WebServer(lab.git.address))
        ssh = running.enter_context(SshServer(lab.git.address))
        tree = write_trained_project(root / "tree")
        lab.git.publish("companys", tree)
        bare = lab.git.folder / "companys.git"
        web.add_git("iris", bare)
        web.add_svn("models", tree)
        svn = web.root / "svn" / "models"
        _, other_host = keypair(root / "other-host")
        other, _ = keypair(root / "other")
        secrets = {
            "web": {"username": USER, "password": PASSWORD, "ca.crt": web.authority},
            "web-ca": {"username": "nobody", "password": "-", "ca.crt": web.authority},
            "web-wrong": {"username": USER, "password": "hunter2", "ca.crt": web.authority},
            "ssh": {"ssh-privatekey": ssh.key, "known_hosts": ssh.known},
            "ssh-other-host": {
                "ssh-privatekey": ssh.key,
                "known_hosts": " ".join([ssh.known.split()[0], *other_host.split()[:2]]),
            },
            "ssh-other-key": {"ssh-privatekey": other, "known_hosts": ssh.known},
        }
        for name, values in secrets.items():
            kind = "kubernetes.io/ssh-auth" if name.startswith("ssh") else "kubernetes.io/basic-auth"
            meta = {"name": name, "namespace": namespace}
            lab.kube.apply({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta, "stringData": values})
        private = web.url("private", "git/iris.git")
        sources: dict[str, dict[str, object]] = {
            "git-https": {"git": {"url": private, "ref": "main", "secretName": "web"}},
            "svn-https": {"svn": {"url": web.url("private", "svn/models"), "path": "trunk", "secretName": "web"}},
            "git-ssh": {"git": {"url": f"{ssh.url}{bare}", "ref": "main", "secretName": "ssh"}},
            "svn-ssh": {"svn": {"url": f"svn+{ssh.url}{svn}", "path": "trunk", "secretName": "ssh"}},
            "not-trusted": {"git": {"url": web.url("open", "git/iris.git"), "ref": "main"}},
            "no-password": {"git": {"url": private, "ref": "main", "secretName": "web-ca"}},
            "wrong-password": {
                "svn": {"url": web.url("private", "svn/models"), "path": "trunk", "secretName": "web-wrong"}
            },
            "no-right": {"git": {"url": web.url("closed", "git/iris.git"), "ref": "main", "secretName": "web"}},
            "other-host-key": {"git": {"url": f"{ssh.url}{bare}", "ref": "main", "secretName": "ssh-other-host"}},
            "other-key": {"svn": {"url": f"svn+{ssh.url}{svn}", "path": "trunk", "secretName": "ssh-other-key"}},
        }
        assert sources.keys() == SERVE.keys() | REFUSED.keys()
        lab.kube.apply(*(model_deployment(name, namespace, trained_spec(source)) for name, source in sources.items()))
        yield namespace


@pytest.mark.parametrize("name", SERVE)
def test_a_project_behind_a_closed_door_serves(applied: str, settled: Settled, name: str) -> None:
    """With the Secret that the spec names, and the authority in it."""
    live = settled(name, applied)["status"]["live"]

    assert len(live["commit"]) == SERVE[name]


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_who_has_no_right_to_read_is_told(applied: str, settled: Settled, name: str, reason: str) -> None:
    """Each with its own reason; a password is in no message."""
    stalled = condition(settled(name, applied, "Stalled"), "Stalled")

    assert stalled["reason"] == reason, stalled["message"]
    assert "hunter2" not in stalled["message"]


def test_a_certificate_that_nobody_trusts_says_where_its_authority_belongs(applied: str, settled: Settled) -> None:
    """In the Secret or at the platform."""
    message = condition(settled("not-trusted", applied, "Stalled"), "Stalled")["message"]

    assert "ca.crt" in message
    assert "caBundle" in message
