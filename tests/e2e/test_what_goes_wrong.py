"""What users get wrong, on the real cluster: each has a reason of its own and a sentence that says what to change.

All faults are applied at once and settle side by side, as they would for several teams.
"""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.git import git
from lab.install import ROOT, SMALL_PACKAGE, Lab
from lab.kube import Manifest, condition, wait_for
from lab.projects import LOCK, TRAIN, model_deployment, spec, write_project

Tree = Callable[[Path], object]
Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what the status must say of it."""

    name: str
    reason: str
    says: str
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)
    tree: Tree | None = None
    repository: Callable[[Path], object] | None = None
    change: Change | None = None
    passes: bool = False
    """True: it goes on by itself once somebody has helped, so it is not Stalled at once."""


def at(*path: str, value: object) -> Change:
    """Set one field of the spec."""

    def change(wanted: dict[str, Any]) -> None:
        inner = wanted
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value

    return change


def train_with(code: str) -> dict[str, str]:
    """Replace the training program."""
    return {"train.py": code}


def escape(tree: Path) -> None:
    """Link out of the project."""
    (tree / "secrets").symlink_to("/etc/passwd")


def name_in_latin_1(tree: Path) -> None:
    """Name a file in bytes that are not UTF-8."""
    Path(os.fsdecode(os.fsencode(tree) + b"/donn\xe9es.csv")).write_text("1")


def name_with_a_backslash(tree: Path) -> None:
    """Name a file as another system would write a path."""
    (tree / "data\\sample.csv").write_text("1")


def too_many_files(repository: Path) -> None:
    """Commit 65,536 files that are three objects: a folder of 256 folders that are one."""
    blob = _object(repository, "hash-object", "-w", "--stdin")
    inner = _object(repository, "mktree", given="".join(f"100644 blob {blob}\t{n}\n" for n in range(256)))
    outer = _object(repository, "mktree", given="".join(f"040000 tree {inner}\t{n}\n" for n in range(256)))
    commit = git("commit-tree", "-m", "Large", outer, cwd=repository)
    git("update-ref", "refs/heads/main", commit, cwd=repository)


def _object(repository: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(["git", *command], cwd=repository, input=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def lock_of_yesterday() -> dict[str, bytes]:
    """A uv.lock that lacks what its pyproject.toml asks for."""
    project = (ROOT / "examples" / "flight-delay" / "pyproject.toml").read_bytes()
    changed = project.replace(b"dependencies = [\n", b'dependencies = [\n  "six>=1.16",\n', 1)
    return {"pyproject.toml": changed, "uv.lock": (ROOT / "examples" / "flight-delay" / "uv.lock").read_bytes()}


def without_hashes() -> str:
    """The lock's versions without its hashes."""
    lines = [each.rstrip(" \\") for each in LOCK.read_text().splitlines() if "==" in each and not each.startswith("#")]
    return "\n".join(lines) + "\n"


def with_wrong_hash() -> str:
    """The lock with every hash off by its last digit."""
    lines = LOCK.read_text().splitlines()
    flipped = [each[:-3] + "abc" if "--hash=" in each and not each.endswith("\\") else each for each in lines]
    return (
        "\n".join(each if "--hash=" not in each or not each.endswith(" \\") else _off(each) for each in flipped) + "\n"
    )


def _off(line: str) -> str:
    digest = line.removesuffix(" \\")
    return digest[:-3] + ("abc" if not digest.endswith("abc") else "def") + " \\"


NO_SUCH_PACKAGE = "slipway-no-such-package==9.9.9 --hash=sha256:" + "0" * 64 + "\n"
FOR_WINDOWS = "pywin32==311 --hash=sha256:0502d1facf1fed4839a9a51ccbcc63d952cf318f78ffc00a7e78528ac27d7a2b\n"
ANOTHER_SIX = "six==1.16.0 --hash=sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254\n"
NOT_A_MODEL = 'import joblib\njoblib.dump({"weights": [1, 2]}, "model.joblib")\nopen("metrics.json", "w").write("{}")\n'
CANNOT_BE_EXPORTED = """\
import joblib
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

rows, species = load_iris(return_X_y=True)
joblib.dump(make_pipeline(SplineTransformer(), LogisticRegression(max_iter=500)).fit(rows, species), "model.joblib")
open("metrics.json", "w").write("{}")
"""
FROM_ANOTHER_VERSION = """\
import joblib
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(rows, species)
# What a pickle says of the version that made it is what the estimator says when it is pickled.
import sklearn.base
sklearn.base.__version__ = "0.24.2"
joblib.dump(model, "model.joblib")
open("metrics.json", "w").write("{}")
"""
HOG = "blocks = []\nwhile True:\n    blocks.append(bytearray(16 << 20))\n"

FAULTS = [
    Fault(
        "unknown-host",
        "SourceHostUnknown",
        "host",
        change=at("source", "git", "url", value="https://git.invalid/a.git"),
    ),
    Fault("unknown-repository", "RepositoryNotFound", "repository", change=lambda s: _append(s, "-none")),
    Fault("unknown-ref", "RefNotFound", "v99", change=at("source", "git", "ref", value="v99")),
    Fault("unknown-path", "PathNotFound", "models/nowhere", change=at("source", "git", "path", value="models/nowhere")),
    Fault("lock-missing", "LockFileMissing", "requirements.txt", files={"requirements.txt": None}),
    Fault("lock-without-hashes", "LockFileNotHashed", "hash", files={"requirements.txt": without_hashes()}),
    Fault(
        "lock-outdated",
        "LockFileOutdated",
        "uv lock",
        files=lock_of_yesterday(),
        change=at("environment", "lockFile", value="uv.lock"),
    ),
    Fault("hash-mismatch", "HashMismatch", "lock file", files={"requirements.txt": with_wrong_hash()}),
    Fault(
        "package-absent", "PackageNotAvailable", "slipway-no-such-package", files={"requirements.txt": NO_SUCH_PACKAGE}
    ),
    Fault("other-platform", "PackageNotAvailable", "pywin32", files={"requirements.txt": FOR_WINDOWS}),
    Fault("no-solution", "NoSolution", "six", files={"requirements.txt": SMALL_PACKAGE + ANOTHER_SIX}),
    Fault("too-large", "RepositoryTooLarge", "files", repository=too_many_files),
    Fault("path-trick", "UnsafePath", "backslash", tree=name_with_a_backslash),
    Fault("symlink-out", "SymlinkOutsideProject", "secrets", tree=escape),
    Fault("name-not-utf-8", "FileNameNotUtf8", "UTF-8", tree=name_in_latin_1),
    Fault(
        "training-fails", "TrainingFailed", "no such column", files=train_with('raise SystemExit("no such column")\n')
    ),
    Fault(
        "training-hangs",
        "TrainingTimedOut",
        "timeout",
        files=train_with("import time\nwhile True:\n    time.sleep(1)\n"),
        change=at("model", "train", "timeout", value="3s"),
    ),
    Fault(
        "training-out-of-memory",
        "TrainingOutOfMemory",
        "memory",
        files=train_with(HOG),
        change=at("model", "train", "resources", value={"requests": {"memory": "64Mi"}, "limits": {"memory": "192Mi"}}),
    ),
    Fault(
        "writes-no-model",
        "ModelFileMissing",
        "model.joblib",
        files=train_with('open("metrics.json","w").write("{}")\n'),
    ),
    Fault("not-a-model", "ModelTypeUnsupported", "dict", files=train_with(NOT_A_MODEL)),
    Fault("cannot-be-exported", "ConversionUnsupported", "SplineTransformer", files=train_with(CANNOT_BE_EXPORTED)),
    Fault("another-version", "ModelVersionMismatch", "0.24.2", files=train_with(FROM_ANOTHER_VERSION)),
    Fault("not-equal", "ParityFailed", "difference", change=at("export", "parity", "maxAbsoluteDifference", value=0)),
    Fault(
        "example-missing", "RequiredFileMissing", "data/none.csv", change=at("model", "example", value="data/none.csv")
    ),
    Fault("interpreter", "InterpreterNotOffered", "3.9", change=at("environment", "python", value="3.9")),
    Fault(
        "package-list",
        "PackageListNotFound",
        "no-such-list",
        change=at(
            "environment", value={"isolation": "Common", "packageList": {"name": "no-such-list", "version": "1"}}
        ),
    ),
    Fault(
        "secret-missing",
        "SecretNotFound",
        "no-such-secret",
        passes=True,
        change=at("source", "git", "secretName", value="no-such-secret"),
    ),
]


def _append(wanted: dict[str, Any], suffix: str) -> None:
    wanted["source"]["git"]["url"] = wanted["source"]["git"]["url"].removesuffix(".git") + suffix + ".git"


@pytest.fixture(scope="module")
def faults(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Apply every fault at once."""
    for fault in FAULTS:
        tree = write_project(tmp_path_factory.mktemp(fault.name), fault.files)
        if fault.tree is not None:
            fault.tree(tree)
        lab.git.publish(fault.name, tree)
        if fault.repository is not None:
            fault.repository(lab.git.folder / f"{fault.name}.git")
        wanted = copy.deepcopy(spec(lab.git.url(fault.name)))
        if fault.change is not None:
            fault.change(wanted)
        lab.kube.apply(model_deployment(fault.name, namespace, wanted))
    return namespace


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in FAULTS])
def test_a_fault_has_its_own_reason_and_says_what_to_change(lab: Lab, faults: str, fault: Fault) -> None:
    """Ready=False with one reason, a sentence with the name of what is wrong, nothing live; Stalled if it stays so."""
    resource: Manifest = {}

    def has_settled() -> bool:
        resource.update(lab.kube.get("modeldeployment", fault.name, faults) or {})
        stalled = condition(resource, "Stalled")["status"] == "True"
        return condition(resource, "Ready").get("reason") == fault.reason and (stalled or fault.passes)

    with contextlib.suppress(TimeoutError):
        wait_for(has_settled, seconds=600, what=fault.reason)

    ready, stalled = condition(resource, "Ready"), condition(resource, "Stalled")
    assert (ready["status"], ready["reason"]) == ("False", fault.reason), ready["message"]
    assert stalled["status"] == "True" or fault.passes
    assert fault.says.lower() in ready["message"].lower()
    assert "Traceback" not in ready["message"]
    assert condition(resource, "Available")["status"] == "False"


JOURNEY = [
    pytest.param(at("source", "git", "ref", value="v99"), "RefNotFound", id="source"),
    pytest.param(at("environment", "lockFile", value="uv.lock"), "LockFileMissing", id="lock"),
    pytest.param(at("model", "train", "command", value=["python", "none.py"]), "TrainingFailed", id="training"),
    pytest.param(at("export", "parity", "maxAbsoluteDifference", value=0), "ParityFailed", id="parity"),
]


@pytest.fixture(scope="module")
def live(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Apply a project that works."""
    lab.git.publish("steady", write_project(tmp_path_factory.mktemp("steady")))
    lab.kube.apply(model_deployment("steady", namespace, spec(lab.git.url("steady"))))
    return "steady"


@pytest.mark.parametrize(("change", "reason"), JOURNEY)
def test_what_is_live_keeps_serving_whatever_is_wrong_with_the_next_one(
    lab: Lab, namespace: str, live: str, settled: Callable[..., Manifest], change: Change, reason: str
) -> None:
    """Each bad edit stalls, the content that is live stays, and taking the edit back makes no Job."""
    good = spec(lab.git.url("steady"))
    lab.kube.apply(model_deployment(live, namespace, good))
    before = settled(live, namespace)
    bad = copy.deepcopy(good)
    change(bad)

    lab.kube.apply(model_deployment(live, namespace, bad))
    stalled = settled(live, namespace, "Stalled")

    assert condition(stalled, "Stalled")["reason"] == reason
    assert condition(stalled, "Available")["status"] == "True"
    assert stalled["status"]["live"] == before["status"]["live"]

    lab.kube.apply(model_deployment(live, namespace, good))
    after = settled(live, namespace)
    assert after["status"]["live"] == before["status"]["live"]


def test_the_repository_is_what_git_serves(lab: Lab, faults: str) -> None:
    """The faults are those of the projects and not of the lab's Git server."""
    assert faults
    assert git("ls-remote", lab.git.url("training-fails"), cwd=lab.git.folder).endswith("refs/heads/main")
    assert TRAIN
