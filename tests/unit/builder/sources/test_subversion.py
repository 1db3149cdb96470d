"""Subversion at a real svnserve: revisions, the files that count, and reasons."""

import pytest

from slipway_operator.builder import package, subversion
from slipway_operator.builder.errors import StepFailed
from slipway_operator.domain.requests import SvnSource


@pytest.mark.parametrize(("revision", "number"), [("HEAD", 3), ("2", 2), ("r2", 2)])
def test_a_revision_is_a_number(revision, number, svn_url, place):
    assert subversion.resolve(SvnSource(url=f"{svn_url}/open", revision=revision), place) == number


def test_a_revision_is_packaged_as_it_was_committed(svn_url, place, tmp_path):
    """Keywords stay as they are, externals stay out, and links are links."""
    source = SvnSource(url=f"{svn_url}/open", revision="2", path="trunk")

    commit, made = subversion.write(source, place, tmp_path / "p.zip")

    assert (commit, made.manifest.source.kind, made.manifest.source.path) == ("r2", "svn", "trunk")
    assert {file.path: file.kind for file in made.manifest.files} == {
        "data/flüge.csv": "file",
        "latest": "link",
        "train.py": "executable",
    }
    assert package.text_of(made, "train.py") == b"print('fit $Revision$')\n"
    assert package.text_of(made, "latest") == "data/flüge.csv".encode()


def test_twice_gives_the_same_bytes(svn_url, place, tmp_path):
    source = SvnSource(url=f"{svn_url}/open", revision="2", path="trunk")

    first = subversion.write(source, place, tmp_path / "1.zip")[1]
    second = subversion.write(source, place, tmp_path / "2.zip")[1]

    assert first.path.read_bytes() == second.path.read_bytes()


def test_head_is_the_newest_revision(svn_url, place, tmp_path):
    commit, made = subversion.write(SvnSource(url=f"{svn_url}/open/trunk"), place, tmp_path / "p.zip")

    assert (commit, list(made.manifest.by_path)) == ("r3", ["train.py"])


def test_a_private_repository_opens_with_its_secret(svn_url, place, secret, tmp_path):
    secret(username="reader", password="p@ss word'\n")

    commit, _ = subversion.write(
        SvnSource(url=f"{svn_url}/private", revision="2", path="trunk"), place, tmp_path / "p.zip"
    )

    assert commit == "r2"


@pytest.mark.parametrize(
    ("repository", "revision", "path", "reason"),
    [
        pytest.param("private", "HEAD", "trunk", "SourceAccessDenied", id="no-secret"),
        pytest.param("absent", "HEAD", "trunk", "RepositoryNotFound", id="no-repository"),
        pytest.param("open", "99", "trunk", "RefNotFound", id="no-revision"),
        pytest.param("open", "main", "trunk", "RefNotFound", id="no-number"),
        pytest.param("open", "2", "branches/x", "PathNotFound", id="no-path"),
        pytest.param("open", "2", "trunk/train.py", "PathNotFound", id="a-file"),
        pytest.param("open", "2", "../private", "UnsafePath", id="out-of-it"),
    ],
)
def test_what_is_not_there(repository, revision, path, reason, svn_url, place, tmp_path):
    source = SvnSource(url=f"{svn_url}/{repository}", revision=revision, path=path)

    with pytest.raises(StepFailed) as failed:
        subversion.write(source, place, tmp_path / "p.zip")

    assert (failed.value.reason, failed.value.retry) == (reason, False), failed.value.message


def test_a_wrong_password_is_refused(svn_url, place, secret):
    secret(username="reader", password="hunter2")

    with pytest.raises(StepFailed) as failed:
        subversion.resolve(SvnSource(url=f"{svn_url}/private"), place)

    assert failed.value.reason == "SourceAccessDenied"
    assert "hunter2" not in failed.value.message


def test_a_server_that_is_down_is_asked_again(closed_port, place):
    with pytest.raises(StepFailed) as failed:
        subversion.resolve(SvnSource(url=f"svn://127.0.0.1:{closed_port}/open"), place)

    assert (failed.value.reason, failed.value.retry) == ("SourceUnavailable", True)


def test_a_revision_before_the_folder_was_deleted_is_found(svn_url, place):
    """A number names the repository as it was then, not what HEAD calls by that name."""
    source = SvnSource(url=f"{svn_url}/open/trunk/data/flüge.csv", revision="2")

    assert subversion.resolve(source, place) == 2


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("svn.corp.test", "", False),
        ("svn.corp.test", "corp.test", True),
        ("svn.corp.test", "localhost, .corp.test", True),
        ("svn.corp.test", "*.corp.test", True),
        ("svn.corp.test", "orp.test", False),
        ("svn.corp.test", "10.0.0.0/8", False),
        ("10.1.2.3", "localhost,10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("svn.corp.test", "*", True),
    ],
)
def test_who_is_no_business_of_the_proxy(host, no_proxy, exempt):
    assert subversion._is_exempt(host, no_proxy) is exempt
