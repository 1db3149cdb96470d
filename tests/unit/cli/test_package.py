"""``slipway package`` on a laptop: the cluster's bytes, and sentences instead of traces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slipway_cli.__main__ import main
from slipway_operator.builder import package
from slipway_operator.builder.git import Repository
from slipway_operator.builder.package import Provenance
from slipway_operator.builder.workplace import Limits

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@airline.test",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@airline.test",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], env=ENVIRONMENT, check=True, capture_output=True)
    return done.stdout.decode().strip()


def write(root: Path, path: str, content: str | bytes) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode() if isinstance(content, str) else content)
    return target


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with one commit: a project in ``model``, and attributes that change files on their way to the disk."""
    root = tmp_path / "clone"
    write(root, ".gitattributes", "*.md text eol=crlf\n*.csv ident\n")
    write(root, ".gitignore", "*.log\n")
    write(root, "model/README.md", "flights\n")
    write(root, "model/data/flüge.csv", "$Id$\n1,2\n")
    write(root, "model/uv.lock", "version = 1\n")
    write(root, "model/train.py", "print('fit')\n").chmod(0o755)
    (root / "model" / "latest").symlink_to("data/flüge.csv")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "first")
    # As a fresh clone has them: line ends and idents of the attributes.
    git(root, "rm", "--quiet", "-r", "--cached", ".")
    git(root, "reset", "--quiet", "--hard")
    return root


def built(clone: Path, tmp_path: Path, path: str) -> bytes:
    """What a build in the cluster makes of the clone's commit."""
    other = tmp_path / "cluster.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), str(other))
    repository = Repository(folder=other, variables=ENVIRONMENT)
    commit = git(clone, "rev-parse", "HEAD")
    with repository.contents() as contents:
        made = package.write_package(
            tmp_path / "cluster.zip",
            repository.files(commit, path),
            contents.read,
            Provenance(kind="git", commit=commit, path=path),
            limits=Limits(),
        )
    return made.path.read_bytes()


def names(path: Path) -> set[str]:
    return set(package.read_package(path, limits=Limits()).manifest.by_path)


@pytest.mark.parametrize("path", [".", "model", "model/data"])
def test_a_clone_gives_the_bytes_of_the_cluster(path, clone, tmp_path, capsys):
    target = tmp_path / "laptop.zip"

    code = main(["package", str(clone / path), "-o", str(target)])

    assert code == 0, capsys.readouterr().err
    assert target.read_bytes() == built(clone, tmp_path, path)


def test_the_disk_of_a_clone_differs_from_its_commit(clone):
    """Or the test above would prove nothing."""
    assert (clone / "model" / "README.md").read_bytes() == b"flights\r\n"


def test_what_git_does_not_know_and_times_do_not_count(clone, tmp_path, capsys):
    write(clone, "model/notes.txt", "mine")
    write(clone, "model/run.log", "mine")
    os.utime(clone / "model" / "uv.lock", (0, 0))

    assert main(["package", str(clone), "-o", str(tmp_path / "laptop.zip")]) == 0, capsys.readouterr().err
    assert (tmp_path / "laptop.zip").read_bytes() == built(clone, tmp_path, ".")


def test_another_repository_in_the_environment_does_not_lead_astray(clone, tmp_path, monkeypatch, capsys):
    """As in a hook, where git sets these for the repository that it runs in."""
    write(tmp_path / "other", "x", "x")
    git(tmp_path / "other", "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other" / "index"))

    assert main(["package", str(clone), "-o", str(tmp_path / "laptop.zip")]) == 0, capsys.readouterr().err
    monkeypatch.undo()
    assert (tmp_path / "laptop.zip").read_bytes() == built(clone, tmp_path, ".")


def test_edited_files_are_packaged_only_when_asked_for(clone, tmp_path, capsys):
    write(clone, "model/train.py", "print('fit again')\n")
    (clone / "model" / "uv.lock").unlink()
    target = tmp_path / "laptop.zip"

    assert main(["package", str(clone / "model"), "-o", str(target)]) == 1
    said = capsys.readouterr()
    assert "train.py" in said.err
    assert "--dirty" in said.err
    assert not target.exists()

    assert main(["package", str(clone / "model"), "-o", str(target), "--dirty"]) == 0
    made = package.read_package(target, limits=Limits())
    assert made.manifest.source.commit == f"dirty-{git(clone, 'rev-parse', 'HEAD')}"
    assert package.text_of(made, "train.py") == b"print('fit again')\n"
    assert set(made.manifest.by_path) == {"README.md", "data/flüge.csv", "latest", "train.py"}


def test_an_edit_elsewhere_in_the_repository_does_not_matter(clone, tmp_path, capsys):
    write(clone, "other.txt", "x")
    write(clone, ".gitignore", "")

    assert main(["package", str(clone / "model"), "-o", str(tmp_path / "laptop.zip")]) == 0, capsys.readouterr().err


def test_a_repository_without_a_commit_says_so(tmp_path, capsys):
    write(tmp_path / "new", "train.py", "x")
    git(tmp_path / "new", "init", "--quiet")

    assert main(["package", str(tmp_path / "new")]) == 1
    assert "commit" in capsys.readouterr().err


def test_a_folder_outside_git_is_packaged_without_what_tools_leave(tmp_path, capsys):
    root = tmp_path / "plain"
    write(root, "train.py", "x")
    write(root, "data/a.csv", "x")
    for litter in (".venv/bin/python", "__pycache__/train.pyc", "old.pyc", ".DS_Store", ".ipynb_checkpoints/a.ipynb"):
        write(root, litter, "x")

    for _ in range(2):
        assert main(["package", str(root), "-o", str(root / "package.zip")]) == 0, capsys.readouterr().err
        assert names(root / "package.zip") == {"train.py", "data/a.csv"}


def test_it_tells_a_program_what_it_made(clone, tmp_path, capsys):
    target = tmp_path / "laptop.zip"

    assert main(["package", str(clone / "model"), "--json", "-o", str(target)]) == 0

    facts = json.loads(capsys.readouterr().out)
    made = package.read_package(target, limits=Limits())
    assert (facts["sha256"], facts["files"], facts["bytes"]) == (made.sha256, 5, target.stat().st_size)
    assert (facts["commit"], facts["path"]) == (git(clone, "rev-parse", "HEAD"), "model")


def test_it_tells_a_person_what_it_made(clone, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    assert main(["package", str(clone / "model")]) == 0

    said = capsys.readouterr().out
    assert git(clone, "rev-parse", "HEAD") in said
    assert "5 files" in said
    assert "\x1b" not in said


def with_a_pipe(root: Path) -> Path:
    root.mkdir()
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize(
    ("prepare", "word"),
    [
        pytest.param(lambda root: root, "PathNotFound", id="no-folder"),
        pytest.param(lambda root: write(root, "a.txt", "x") and root / "a.txt", "PathNotFound", id="a-file"),
        pytest.param(lambda root: root.mkdir() or root, "SourceEmpty", id="empty"),
        pytest.param(
            lambda root: root.mkdir() or (root / "out").symlink_to("/etc/passwd") or root,
            "SymlinkOutsideProject",
            id="link-out",
        ),
        pytest.param(lambda root: write(root, "a\\b", "x") and root, "UnsafePath", id="backslash"),
        pytest.param(
            lambda root: write(root, "A", "x") and write(root, "a", "x") and root, "FileNamesCollide", id="case"
        ),
        pytest.param(with_a_pipe, "UnsafePath", id="pipe"),
    ],
)
def test_what_no_build_would_take_is_refused_in_one_line(prepare, word, tmp_path, capsys):
    folder = prepare(tmp_path / "project")

    assert main(["package", str(folder), "-o", str(tmp_path / "p.zip")]) == 1

    said = capsys.readouterr().err
    assert said.startswith(f"slipway: {word}: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "p.zip").exists()


def test_an_output_that_cannot_be_written_is_a_sentence(clone, tmp_path, capsys):
    assert main(["package", str(clone), "-o", str(tmp_path / "absent" / "p.zip")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_push_names_the_reference_for_the_spec(clone, tmp_path, capsys, monkeypatch):
    crane = write(
        tmp_path / "bin",
        "crane",
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(json.dumps(sys.argv[1:]))\n"
        "index = json.loads((pathlib.Path(sys.argv[2]) / 'index.json').read_text())\n"
        "print('reg.test/airline/flight@' + index['manifests'][0]['digest'])\n",
    )
    crane.chmod(0o755)
    monkeypatch.setenv("PATH", f"{crane.parent}{os.pathsep}{os.environ['PATH']}")

    assert main(["package", str(clone), "--push", "reg.test/airline/flight", "--json", "--insecure"]) == 0

    facts = json.loads(capsys.readouterr().out)
    asked = json.loads((tmp_path / "asked").read_text())
    assert facts["image"] == f"reg.test/airline/flight@{facts['digest']}"
    assert (asked[0], asked[2:]) == (
        "push",
        [f"reg.test/airline/flight:package-{facts['sha256'][:20]}", "--insecure"],
    )


@pytest.mark.parametrize("place", ["flight", "reg.test/x@sha256:00", "-x/y", ""])
def test_a_place_that_is_no_repository_is_refused(place, clone, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: "crane")

    assert main(["package", str(clone), f"--push={place}"]) == 1
    assert "InvalidReference" in capsys.readouterr().err


def test_a_push_without_crane_says_what_is_missing(clone, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["package", str(clone), "--push", "reg.test/airline/flight"]) == 1
    assert "CraneMissing" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    assert main(["package", "--help"]) == 0
    assert "slipway package . --push" in " ".join(capsys.readouterr().out.split())


def test_a_word_that_it_does_not_know_is_an_error(capsys):
    assert main(["package", ".", "--bogus"]) == 2
    assert "--bogus" in "".join(capsys.readouterr())
