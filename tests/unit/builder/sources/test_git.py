"""Git over the wire: exact commits, exact bytes, and a reason for each thing that goes wrong."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from slipway_operator.builder import git, package
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Package, Provenance
from slipway_operator.builder.workplace import Limits, Workplace
from slipway_operator.domain.requests import GitSource


def packaged(source: GitSource, place: Workplace, target: Path) -> Package:
    with git.fetched(source, place) as (repository, commit), repository.contents() as contents:
        return package.write_package(
            target,
            repository.files(commit, source.path),
            contents.read,
            Provenance(kind="git", commit=commit, path=source.path),
            limits=place.limits,
        )


@pytest.mark.parametrize(
    ("ref", "names"),
    [
        pytest.param("HEAD", "main", id="default-branch"),
        pytest.param("main", "main", id="branch"),
        pytest.param("feature/delay", "feature/delay", id="branch-with-slash"),
        pytest.param("refs/heads/main", "main", id="full-ref"),
        pytest.param("v1.0.0", "v1.0.0", id="annotated-tag"),
        pytest.param("refs/tags/v1.0.0", "v1.0.0", id="full-ref-of-an-annotated-tag"),
    ],
)
def test_a_ref_is_resolved_and_fetched_as_one_commit(ref, names, git_url, commit_of, place):
    source = GitSource(url=f"{git_url}/flights", ref=ref)

    resolved = git.resolve(source, place)
    with git.fetched(source, place) as (_, commit):
        assert {resolved, commit} == {commit_of(names)}


@pytest.mark.parametrize("digits", [40, 10])
def test_a_commit_in_the_middle_of_a_branch_is_found(digits, git_url, commit_of, place):
    commit = commit_of("feature/delay~1")
    source = GitSource(url=f"{git_url}/flights", ref=commit[:digits])

    assert git.resolve(source, place) == commit
    with git.fetched(source, place) as (_, fetched):
        assert fetched == commit


def test_files_are_the_commits_own_bytes(git_url, place, tmp_path):
    """No attribute of the project (line ends, idents, export-ignore) changes or hides anything."""
    made = packaged(GitSource(url=f"{git_url}/flights"), place, tmp_path / "p.zip")

    assert package.text_of(made, "README.md") == b"flights\n"
    assert package.text_of(made, "v.ident") == b"$Id$\n"
    assert package.text_of(made, "secret") == b"is part of the commit"
    assert package.text_of(made, "model/data/flüge.bin") == bytes(range(256)) * 500
    kinds = {file.path: file.kind for file in made.manifest.files}
    assert (kinds["model/train.py"], kinds["model/latest"], kinds["README.md"]) == ("executable", "link", "file")


def test_a_folder_of_the_repository_is_a_project_of_its_own(git_url, place, tmp_path):
    made = packaged(GitSource(url=f"{git_url}/flights", path="model"), place, tmp_path / "p.zip")

    assert sorted(made.manifest.by_path) == ["data/flüge.bin", "empty", "latest", "train.py", "uv.lock"]
    assert made.manifest.source.path == "model"
    assert set(made.manifest.locks) == {"uv.lock"}


def test_every_transport_gives_the_same_package(git_url, web, place, tmp_path):
    by_git = packaged(GitSource(url=f"{git_url}/flights"), place, tmp_path / "git.zip")
    by_http = packaged(GitSource(url=f"{web.url}/open/flights/.git"), place, tmp_path / "http.zip")

    assert by_git.path.read_bytes() == by_http.path.read_bytes()


def test_a_private_repository_opens_with_its_secret(web, commit_of, place, secret):
    secret(username="reader", password="p@ss word'")
    source = GitSource(url=f"{web.url}/private/flights/.git", ref="main")

    assert git.resolve(source, place) == commit_of("main")
    with git.fetched(source, place) as (_, commit):
        assert commit == commit_of("main")


def test_a_password_does_not_follow_a_redirect_to_another_server(web, other_web, place, secret):
    secret(username="reader", password="p@ss word'")
    web.elsewhere = other_web.url

    with pytest.raises(StepFailed) as failed:
        git.resolve(GitSource(url=f"{web.url}/elsewhere/flights/.git"), place)

    assert failed.value.reason == "SourceAccessDenied"
    assert other_web.seen, "the redirect was not followed at all"
    assert set(other_web.seen) == {None}


@pytest.mark.parametrize(
    ("area", "reason", "retry"),
    [
        pytest.param("private/flights/.git", "SourceAccessDenied", False, id="no-secret"),
        pytest.param("403/flights/.git", "SourceAccessDenied", False, id="forbidden"),
        pytest.param("open/absent/.git", "RepositoryNotFound", False, id="no-repository"),
        pytest.param("503/flights/.git", "SourceUnavailable", True, id="server-broken"),
    ],
)
def test_what_a_web_server_answers(area, reason, retry, web, place):
    with pytest.raises(StepFailed) as failed, git.fetched(GitSource(url=f"{web.url}/{area}"), place):
        pass

    assert (failed.value.reason, failed.value.retry) == (reason, retry), failed.value.message


def test_a_wrong_password_is_refused_and_not_shown(web, place, secret):
    secret(username="reader", password="hunter2")

    with pytest.raises(StepFailed) as failed:
        git.resolve(GitSource(url=f"{web.url}/private/flights/.git"), place)

    assert failed.value.reason == "SourceAccessDenied"
    assert "hunter2" not in failed.value.message


@pytest.mark.parametrize(
    ("repository", "ref", "reason"),
    [
        pytest.param("flights", "no-such-branch", "RefNotFound", id="no-branch"),
        pytest.param("flights", "0" * 39 + "1", "RefNotFound", id="no-commit"),
        pytest.param("flights", "deadbee", "RefNotFound", id="no-short-commit"),
        pytest.param("empty", "HEAD", "RefNotFound", id="no-commit-at-all"),
        pytest.param("absent", "main", "RepositoryNotFound", id="no-repository"),
        pytest.param("flights", "--upload-pack=touch", "RefNotFound", id="option"),
        pytest.param("flights", "main:refs/heads/x", "RefNotFound", id="refspec"),
        pytest.param("flights", "main@{1}", "RefNotFound", id="reflog"),
    ],
)
def test_what_is_not_there(repository, ref, reason, git_url, place):
    source = GitSource(url=f"{git_url}/{repository}", ref=ref)

    with pytest.raises(StepFailed) as failed, git.fetched(source, place):
        pass

    assert (failed.value.reason, failed.value.retry) == (reason, False), failed.value.message


def test_a_server_that_is_down_is_asked_again(closed_port, place):
    with pytest.raises(StepFailed) as failed:
        git.resolve(GitSource(url=f"git://127.0.0.1:{closed_port}/flights"), place)

    assert (failed.value.reason, failed.value.retry) == ("SourceUnavailable", True)


@pytest.mark.parametrize("path", ["absent", "README.md", "model/train.py"])
def test_a_path_that_is_no_folder(path, git_url, place):
    with (
        git.fetched(GitSource(url=f"{git_url}/flights", path=path), place) as (repository, commit),
        pytest.raises(StepFailed, match="PathNotFound"),
    ):
        repository.files(commit, path)


def test_submodules_are_refused_by_name(repo, place):
    commit = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib/shared")
    repo.git("commit", "--quiet", "-m", "submodule")
    repository = git.Repository(folder=repo.root / ".git", variables=place.base_variables(repo.root))

    with pytest.raises(StepFailed, match="SubmodulesUnsupported: 'lib/shared'"):
        repository.files(repo.git("rev-parse", "HEAD"), ".")


def test_a_file_name_that_is_not_utf8_is_refused(repo, place):
    blob = repo.git("hash-object", "-w", "--stdin", given=b"x")
    tree = repo.git("mktree", "-z", given=f"100644 blob {blob}\tfl".encode() + b"\xfcge.csv\x00")
    commit = repo.git("commit-tree", "-m", "latin", tree)
    repository = git.Repository(folder=repo.root / ".git", variables=place.base_variables(repo.root))

    with pytest.raises(StepFailed, match="FileNameNotUtf8") as failed:
        repository.files(commit, ".")

    assert r"\xfc" in failed.value.message


def test_a_repository_over_the_limit_is_refused_before_its_files_are_read(repo, place):
    repository = git.Repository(folder=repo.root / ".git", variables=place.base_variables(repo.root))
    files = repository.files(repo.git("rev-parse", "HEAD"), ".")

    with pytest.raises(StepFailed, match="RepositoryTooLarge") as failed:
        package.refuse_unfit(files, Limits(project_bytes=1000))

    assert r"model/data/fl\xfcge.bin" in failed.value.message, "the largest file is not named"


def test_a_fetch_over_the_limit_is_ended(git_url, place, fake_program):
    """What arrives is measured while it arrives: a server cannot fill the volume."""
    fake_program(
        "git",
        "import os, sys, time\n"
        "folder = next((a[10:] for a in sys.argv if a.startswith('--git-dir=')), None)\n"
        "if folder is None: os.makedirs(sys.argv[-1]); sys.exit()\n"
        "open(folder + '/pack', 'wb').write(bytes(5000))\n"
        "time.sleep(60)\n",
    )
    small = replace(place, limits=Limits(project_bytes=1000), variables={"PATH": os.environ["PATH"]})

    with (
        pytest.raises(StepFailed, match="RepositoryTooLarge"),
        git.fetched(GitSource(url=f"{git_url}/flights"), small),
    ):
        pass
