"""Git and Subversion over ssh at a real sshd: our key, the Secret's host keys, and no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ssh import SshServer, keypair
from slipway_operator.builder import git, subversion
from slipway_operator.builder.errors import StepFailed
from slipway_operator.domain.requests import GitSource, SvnSource

from .conftest import program


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    for needed in ("sshd", "ssh-keygen", "svnserve"):
        program(needed)
    with SshServer("127.0.0.1") as running:
        yield running


def secret(place, **keys: str) -> None:
    folder = place.secrets / "source"
    folder.mkdir()
    for name, text in keys.items():
        (folder / name.replace("ssh_privatekey", "ssh-privatekey")).write_text(text)


def test_a_repository_over_ssh_opens_with_its_key(server, origin, place):
    origin.write("a.py")
    commit = origin.commit()
    # As a mounted Secret has it: without the last newline, and readable by the group.
    secret(place, ssh_privatekey=server.key.rstrip("\n"), known_hosts=server.known)
    source = GitSource(url=f"{server.url}{origin.bare}", ref="main")

    assert git.resolve(source, place) == commit
    with git.fetched(source, place) as (repository, fetched):
        assert fetched == commit
        assert [file.path for file in repository.files(commit, ".")] == ["a.py"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A Subversion repository of one revision."""
    root, tree = tmp_path_factory.mktemp("svn") / "models", tmp_path_factory.mktemp("tree")
    (tree / "a.py").write_text("x")
    subprocess.run(["svnadmin", "create", str(root)], check=True)
    subprocess.run(["svn", "import", "--quiet", "-m", "first", str(tree), f"file://{root}/trunk"], check=True)
    return root


@pytest.fixture(params=["git", "svn"])
def resolve(request, server, origin, models):
    """Asks what a repository's branch, or revision, is now; by Git or by Subversion."""

    def ask(place, path: str = "") -> str | int:
        if request.param == "git":
            return git.resolve(GitSource(url=f"{server.url}{path or origin.bare}", ref="main"), place)
        return subversion.resolve(SvnSource(url=f"svn+{server.url}{path or models}"), place)

    return ask


def test_a_subversion_repository_over_ssh_opens_with_its_key(server, models, place, tmp_path):
    secret(place, ssh_privatekey=server.key, known_hosts=server.known)

    commit, made = subversion.write(SvnSource(url=f"svn+{server.url}{models}", path="trunk"), place, tmp_path / "p.zip")

    assert (commit, list(made.manifest.by_path)) == ("r1", ["a.py"])


def test_a_server_with_another_host_key_is_refused(server, resolve, place, tmp_path):
    _, other = keypair(tmp_path / "other")
    known = server.known.split(" ", 1)[0] + " " + other
    secret(place, ssh_privatekey=server.key, known_hosts=known)

    with pytest.raises(StepFailed) as failed:
        resolve(place)

    assert failed.value.reason == "HostKeyMissing", failed.value.message


def test_another_key_is_refused(server, resolve, place, tmp_path):
    key, _ = keypair(tmp_path / "other")
    secret(place, ssh_privatekey=key, known_hosts=server.known)

    with pytest.raises(StepFailed) as failed:
        resolve(place)

    assert failed.value.reason == "SourceAccessDenied", failed.value.message


@pytest.mark.parametrize(
    ("left_out", "reason"), [("known_hosts", "HostKeyMissing"), ("ssh_privatekey", "SourceAccessDenied")]
)
def test_a_secret_that_lacks_a_key(server, resolve, place, left_out, reason):
    keys = {"ssh_privatekey": server.key, "known_hosts": server.known}
    del keys[left_out]
    secret(place, **keys)

    with pytest.raises(StepFailed) as failed:
        resolve(place)

    assert failed.value.reason == reason


def test_a_repository_that_is_not_there(server, resolve, place):
    secret(place, ssh_privatekey=server.key, known_hosts=server.known)

    with pytest.raises(StepFailed) as failed:
        resolve(place, "/nowhere")

    assert failed.value.reason == "RepositoryNotFound", failed.value.message
