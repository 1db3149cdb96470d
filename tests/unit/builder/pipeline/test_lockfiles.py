"""Every kind of lock file becomes the same hash-checked requirements; what is wrong with one is said."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from slipway_operator.builder import package
from slipway_operator.builder.environment import index_access, interpreter_path
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.lockfiles import read_lock
from slipway_operator.builder.package import Found, Package, Provenance
from slipway_operator.builder.requirements import Requirements, from_pylock, parse
from slipway_operator.builder.workplace import Limits
from slipway_operator.domain.requests import PackageList, ProjectLock

PYTHON = interpreter_path(f"{sys.version_info.major}.{sys.version_info.minor}")
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64

PYPROJECT = """
[project]
name = "flights"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["tiny>=1"]
[dependency-groups]
dev = ["other"]
[[tool.uv.index]]
name = "ours"
url = "{url}"
default = true
"""


@pytest.fixture
def uv_project(tmp_path: Path, index) -> dict[str, bytes]:
    """A project that uv has locked against our index."""
    index.add_wheel("tiny", "1.0")
    index.add_wheel("other", "2.0")
    root = tmp_path / "locked"
    root.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT.format(url=index.url))
    environment = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "uv")}
    command = ["uv", "lock", "--quiet", "--no-python-downloads", "--python", str(PYTHON)]
    subprocess.run(command, cwd=root, env=environment, check=True)
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def packaged(folder: Path, files: dict[str, bytes]) -> Package:
    found = [Found(path=path, kind="file", size=len(content)) for path, content in files.items()]
    return package.write_package(
        folder / "p.zip",
        found,
        lambda file: [files[file.path]],
        Provenance(kind="git", commit="0" * 40),
        limits=Limits(),
    )


def test_a_uv_lock_gives_its_packages_without_the_development_group(uv_project, index, place, tmp_path):
    locked = read_lock(ProjectLock(), packaged(tmp_path, uv_project), place, python=PYTHON)

    assert locked.requirements.text() == f"tiny==1.0 --hash={index.hashes['tiny-1.0-py3-none-any.whl']}\n"
    assert locked.requirements.indexes == (index.url,)
    assert locked.requirements.files == {
        digest: f"{index.url}/{name.split('-')[0]}/{name}" for name, digest in index.hashes.items()
    }


def test_a_lock_in_a_folder_of_the_project(uv_project, place, tmp_path):
    files = {f"model/{name}": content for name, content in uv_project.items()}

    locked = read_lock(ProjectLock(lock_file="model/uv.lock"), packaged(tmp_path, files), place, python=PYTHON)

    assert [requirement.name for requirement in locked.requirements.packages] == ["tiny"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"tiny>=1"', b'"tiny>=1", "other"', "LockFileOutdated"),
        (b'"tiny>=1"', b'"tiny>=2"', "LockFileOutdated"),
        (b'">=3.11"', b'">=3.12"', "PythonVersionMismatch"),
    ],
)
def test_a_uv_lock_that_does_not_fit_its_project(uv_project, place, tmp_path, old, new, reason):
    uv_project["pyproject.toml"] = uv_project["pyproject.toml"].replace(old, new)

    with pytest.raises(StepFailed) as failed:
        read_lock(ProjectLock(), packaged(tmp_path, uv_project), place, python=PYTHON)

    assert failed.value.reason == reason, failed.value.message
    assert "uv lock" in failed.value.message


def test_no_code_of_the_project_runs_while_its_lock_is_read(uv_project, place, tmp_path):
    """Metadata that only a build could tell is not computed, however the project asks for it."""
    mark = tmp_path / "ran"
    uv_project["pyproject.toml"] = (
        uv_project["pyproject.toml"]
        .replace(b'version = "1.0"\n', b'dynamic = ["version", "dependencies"]\n')
        .replace(b'dependencies = ["tiny>=1"]\n', b"")
        + b'[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    )
    uv_project["evil.py"] = f"open({str(mark)!r}, 'w')\n".encode()
    uv_project["setup.py"] = uv_project["evil.py"]

    try:
        read_lock(ProjectLock(), packaged(tmp_path, uv_project), place, python=PYTHON)
    except StepFailed as failed:
        assert failed.reason in {"LockFileOutdated", "LockFileInvalid"}  # noqa: PT017  # either outcome is fine

    assert not mark.exists()


def test_a_lock_without_its_project_file(uv_project, place, tmp_path):
    del uv_project["pyproject.toml"]

    with pytest.raises(StepFailed, match="LockFileInvalid"):
        read_lock(ProjectLock(), packaged(tmp_path, uv_project), place, python=PYTHON)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("uv.lock", b"not = [toml", "LockFileInvalid"),
        ("uv.lock", b"version = 99\n", "LockFileInvalid"),
        ("pylock.toml", b"x = \xff", "LockFileInvalid"),
        ("poetry.lock", b"", "LockFileUnsupported"),
        ("requirements.txt", b"tiny\n", "LockFileNotHashed"),
        ("requirements.txt", b"tiny @ git+https://h/x.git --hash=sha256:" + b"a" * 64, "LockFileUnsupported"),
    ],
)
def test_a_lock_that_cannot_be_used(uv_project, place, tmp_path, name, content, reason):
    uv_project[name] = content

    with pytest.raises(StepFailed) as failed:
        read_lock(ProjectLock(lock_file=name), packaged(tmp_path, uv_project), place, python=PYTHON)

    assert failed.value.reason == reason, failed.value.message


def test_a_package_list_that_is_not_published(uv_project, place, tmp_path):
    with pytest.raises(StepFailed, match="science 2026"):
        read_lock(PackageList(name="science", version="2026"), packaged(tmp_path, uv_project), place, python=PYTHON)


def test_order_comments_and_line_breaks_do_not_count():
    one = parse(f"# head\nB_x==1.0 ; python_version < '4' \\\n  --hash={A} \\\n  --hash={B}\na==2 --hash={A}\n", "r")
    two = parse(f"a==2 --hash={A}  # via b\nb-X==1.0;python_version < '4' --hash={B} --hash={A}\r\n", "r")

    assert one.text() == two.text()
    assert one.digest == two.digest


def test_a_file_by_its_url():
    found = parse(
        f"tiny @ https://h/tiny-1.0-py3-none-any.whl --hash={A}\nb @ https://h/b.whl#sha256={'c' * 64}\n", "r"
    )

    assert found.text() == (
        f"b @ https://h/b.whl#sha256={'c' * 64} --hash=sha256:{'c' * 64}\n"
        f"tiny @ https://h/tiny-1.0-py3-none-any.whl --hash={A}\n"
    )


@pytest.mark.parametrize(
    "line", ["./libs/shared", "../shared", "-r other.txt", "-c x.txt", "-e .", "--find-links=/tmp", "-f x"]
)
def test_requirements_that_name_other_sources_are_refused(line):
    with pytest.raises(StepFailed, match="LockFileUnsupported"):
        parse(f"{line}\n", "requirements.txt")


def test_options_that_hashes_make_harmless_are_passed_over():
    found = parse(f"--index-url https://h/simple\n--only-binary :all:\na==1 --hash={A}\n", "r")

    assert found.indexes == ("https://h/simple",)
    assert len(found.packages) == 1


PYLOCK = f"""
lock-version = "1.0"
[[packages]]
name = "Tiny"
version = "1.0"
marker = "python_version < '4'"
index = "https://h/simple"
wheels = [{{ url = "https://h/tiny.whl", hashes = {{ sha256 = "{"a" * 64}" }} }}]
sdist = {{ url = "https://h/tiny.tar.gz", hashes = {{ sha256 = "{"b" * 64}" }} }}
"""


def test_a_pylock_file():
    found = from_pylock(tomllib.loads(PYLOCK), "pylock.toml")

    assert found.text() == f"tiny==1.0 ; python_version < '4' --hash={A} --hash={B}\n"
    assert found.files == {A: "https://h/tiny.whl", B: "https://h/tiny.tar.gz"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("wheels =", "vcs = {}\nwheels =", "LockFileUnsupported"),
        ("sha256", "md5", "LockFileNotHashed"),
        ('version = "1.0"\nmarker', "marker", "LockFileInvalid"),
    ],
)
def test_a_pylock_file_that_cannot_be_used(old, new, reason):
    with pytest.raises(StepFailed) as failed:
        from_pylock(tomllib.loads(PYLOCK.replace(old, new)), "pylock.toml")

    assert failed.value.reason == reason


def test_the_platforms_index_stands_in_for_the_locks_main_one(place):
    (place.secrets / "index").mkdir()
    (place.secrets / "index" / "username").write_text("me\n")
    (place.secrets / "index" / "password").write_text("s3cret\n")
    (place.settings / "ca.crt").write_text("pem")
    found = Requirements(packages=(), indexes=("https://main/simple", "https://extra/simple"))
    with_index = replace(place, variables={**place.variables, "UV_DEFAULT_INDEX": "https://mirror/simple"})
    with index_access(with_index, found) as (options, variables):
        assert "https://main/simple" not in [*options, *variables.values()]
        assert options[-2:] == ["--index", "https://extra/simple"]
        assert variables["UV_DEFAULT_INDEX"] == "platform=https://mirror/simple"
        assert (variables["UV_INDEX_PLATFORM_USERNAME"], variables["UV_INDEX_PLATFORM_PASSWORD"]) == ("me", "s3cret")
        assert variables["SSL_CERT_FILE"] == str(place.settings / "ca.crt")
        assert not any("s3cret" in option for option in options)

    with index_access(place, found) as (_, variables):
        assert variables["UV_DEFAULT_INDEX"] == "https://main/simple"
