"""`kubectl slipway` on the real cluster: by the real kubectl, as a person's shell would."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.git import git
from lab.install import NAMESPACE, Lab
from lab.kube import post, wait_for
from lab.projects import FLOWER, TRAIN, model_deployment, spec, write_project

ROOT = Path(__file__).resolve().parents[2]
PLANTED = "planted-in-the-environment-4711"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Slipway:
    """The plugin in one namespace."""

    lab: Lab
    namespace: str

    def __call__(self, *words: str, seconds: float = 300, **variables: str) -> Ended:
        """Run `kubectl slipway <words>`."""
        command = [str(self.lab.kube.kubectl), "slipway", *words, "-n", self.namespace]
        command += ["--context", self.lab.kube.context] if self.lab.kube.context else []
        started = time.monotonic()
        done = subprocess.run(
            command, env=self.environment(**variables), capture_output=True, text=True, timeout=seconds, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def on_a_terminal(self, *words: str, until: str, seconds: float = 60) -> str:
        """Run a command that does not end by itself on a terminal of its own, until that shows some text; all of it."""
        command = [str(self.lab.kube.kubectl), "slipway", *words, "-n", self.namespace]
        command += ["--context", self.lab.kube.context] if self.lab.kube.context else []
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, 160))
        environment = self.environment(TERM="xterm-256color")
        process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown, deadline = "", time.monotonic() + seconds
        try:
            while until not in shown and time.monotonic() < deadline:
                if select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 65536).decode(errors="replace")
        finally:
            process.terminate()
            process.wait(timeout=10)
            os.close(ours)
        return shown

    def environment(self, **variables: str) -> dict[str, str]:
        """With the plugin and crane on the PATH, whoever runs the tests."""
        folders = [Path(sys.executable).parent, self.lab.crane.parent, *uv_folders()]
        path = ":".join([*map(str, folders), os.environ["PATH"]])
        return {**os.environ, "KUBECONFIG": str(self.lab.kube.kubeconfig), "PATH": path, "PYTHONUTF8": "1", **variables}

    def get(self, name: str) -> dict[str, Any]:
        """`get NAME -o json`."""
        ended = self("get", name, "-o", "json")
        assert ended.code == 0, ended.err
        found: dict[str, Any] = json.loads(ended.out)
        return found

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The log, newest first."""
        found: list[dict[str, Any]] = json.loads(self("history", name, "-o", "json").out)
        return found


def uv_folders() -> list[Path]:
    """Where the project's own uv is; `make` puts it on the PATH."""
    cache = Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway")
    return [path.parent for path in sorted(cache.glob("uv-*/bin/uv"))[-1:]]


@pytest.fixture(scope="module")
def slipway(lab: Lab, namespace: str) -> Slipway:
    return Slipway(lab, namespace)


def asked(lab: Lab, name: str, namespace: str, *, by: Callable[[str], bool] = bool) -> Any:
    """Ask the Service until who is meant answers; nodes learn of it, and of a switch, up to a second later."""
    url = f"http://{lab.kube.address(name, namespace)}/predict"

    def answer() -> Any:
        try:
            found = post(url, {"rows": [FLOWER]})
        except OSError:
            return None
        return found if by(found["model_version"]) else None

    return wait_for(answer, seconds=15, what=f"an answer of {name}")


@pytest.fixture(scope="module")
def iris(lab: Lab, namespace: str, slipway: Slipway, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two revisions of a project, the second one with another regularisation, and a variable of its own."""
    name = "cli-iris"
    for number, strength in ((1, 1.0), (2, 0.01)):
        tree = write_project(tmp_path_factory.mktemp(f"iris-{number}"), strength=strength)
        commit = lab.git.publish(name, tree)
        wanted = spec(lab.git.url(name), ref=commit)
        wanted["model"]["train"]["env"] = [{"name": "REGION", "value": PLANTED}]  # type: ignore[index]
        lab.kube.apply(model_deployment(name, namespace, wanted))
        ended = slipway("status", name, "--wait", "--timeout", "8m", seconds=500)
        assert ended.code == 0, ended.out + ended.err
    return name


def test_status_follows_kstatus(iris: str, slipway: Slipway) -> None:
    ended = slipway("status", iris)

    assert ended.code == 0
    assert "Ready=True" in ended.out
    assert slipway("status", "nobody").code == 1


def test_get_shows_contents_pods_and_shares(iris: str, slipway: Slipway, lab: Lab) -> None:
    view = slipway.get(iris)
    text = slipway("get", iris).out

    live = next(content for content in view["contents"] if content["role"] == "live")
    assert live["content"] == asked(lab, iris, slipway.namespace)["model_version"]
    assert live["share"] == 1.0
    assert [pod["ready"] for pod in live["pods"]] == [True]
    assert {content["role"] for content in view["contents"]} == {"live", "standby"}
    assert re.search(rf"✔ {live['content']}  live  100%  revision 2  1/1 pods ready  commit [0-9a-f]{{12}}", text), text
    assert iris in slipway("get").out


def test_watching_tells_of_a_pod_that_goes(iris: str, slipway: Slipway, lab: Lab) -> None:
    live = slipway.get(iris)["live"]["content"]
    command = [str(lab.kube.kubectl), "slipway", "get", iris, "-w", "-n", slipway.namespace]
    process = subprocess.Popen(command, env=slipway.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert iris in process.stdout.readline()
        lab.kube.run("delete", "pod", "-n", slipway.namespace, "-l", f"slipway.dev/content={live}", "--wait=false")
        assert any("Terminating" in process.stdout.readline() for _ in range(60))
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert slipway("status", iris, "--wait", "--timeout", "2m").code == 0


def test_history_is_the_log(iris: str, slipway: Slipway) -> None:
    rows = slipway("history", iris).out.splitlines()

    assert rows[1].split()[:3] == ["2", slipway.get(iris)["live"]["content"], "live"]
    assert [entry["number"] for entry in slipway.entries(iris)] == [2, 1]


def test_diff_names_what_changed(iris: str, slipway: Slipway) -> None:
    found = json.loads(slipway("diff", iris, "1", "2", "-o", "json").out)

    assert found["problems"] == []
    sections = found["sections"]
    assert [change["name"] for change in sections["code"]] == ["train.py"]
    assert sections["packages"] == sections["features"] == sections["data"] == []
    assert "source.git.ref" in [change["name"] for change in sections["spec"]]
    assert "accuracy" in [change["name"] for change in sections["metrics"]]


def test_logs_of_steps_and_of_what_answers(iris: str, slipway: Slipway, lab: Lab) -> None:
    asked(lab, iris, slipway.namespace)

    assert "trained on 150 flowers" in slipway("logs", iris, "train").out
    build = slipway("logs", iris, "build")
    assert [line for line in build.out.splitlines() if line.startswith("==>")] == ["==> fetch", "==> run", "==> push"]
    assert slipway("logs", iris).code == 0


def test_pull_brings_the_model_that_answers(iris: str, slipway: Slipway, tmp_path: Path) -> None:
    ended = slipway("pull", iris, "model", "--to", str(tmp_path))

    assert ended.code == 0, ended.err
    digest = f"sha256:{hashlib.sha256((tmp_path / 'model.onnx').read_bytes()).hexdigest()}"
    assert digest == slipway.entries(iris)[0]["digests"]["onnx"]
    assert slipway("pull", iris, "package", "--revision", "1", "--to", str(tmp_path)).code == 0
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        assert package.read("project/train.py").decode() == TRAIN.format(strength=1.0)


def test_design_and_production_are_the_same(iris: str, slipway: Slipway, tmp_path: Path) -> None:
    """The environment of a revision on this machine trains the same model: the same number to its last digit."""
    target = tmp_path / "design"
    ended = slipway("env", iris, "--to", str(target), "--code")
    assert ended.code == 0, ended.err

    subprocess.run([target / ".venv" / "bin" / "python", "train.py"], cwd=target, check=True, capture_output=True)

    assert slipway("pull", iris, "training", "--to", str(tmp_path / "production")).code == 0
    production = json.loads((tmp_path / "production" / "metrics.json").read_text())
    assert json.loads((target / "metrics.json").read_text()) == production


def test_rollback_and_resume(iris: str, slipway: Slipway, lab: Lab) -> None:
    """One command back, and what it says is what answers; held until it is released."""
    first = slipway.entries(iris)[-1]["content"][7:17]

    back = slipway("rollback", iris, "--why", "delays of zero")

    assert back.code == 0, back.err
    assert f"revision 3 is live: content {first}, that of revision 1" in back.out
    asked(lab, iris, slipway.namespace, by=lambda content: content == first)
    assert slipway("status", iris, "--wait", "--timeout", "1m").code == 6
    newest = slipway.entries(iris)[0]
    assert (newest["cause"], newest["why"], newest["undoes"]) == ("Rollback", "delays of zero", 2)
    assert "ROLLED BACK 2→1" in slipway("get").out

    assert slipway("rollback", iris, "99").code == 1
    refused = slipway("promote", iris)
    assert refused.code == 4, refused.out + refused.err

    resumed = slipway("resume", iris)
    assert resumed.code == 0, resumed.err
    assert slipway("status", iris, "--wait", "--timeout", "3m").code == 0
    asked(lab, iris, slipway.namespace, by=lambda content: content != first)


def test_a_request_with_an_id_happens_once(iris: str, slipway: Slipway) -> None:
    words = ("rollback", iris, "--id", "ticket-42")
    assert slipway(*words).code == 0
    number = slipway.entries(iris)[0]["number"]
    assert slipway("resume", iris).code == 0
    assert slipway("status", iris, "--wait", "--timeout", "3m").code == 0

    again = slipway(*words)

    assert again.code == 0
    assert f"revision {number} went live" in again.out
    assert slipway.get(iris)["live"]["revision"] > number


def test_a_canary_is_held_followed_given_up_and_promoted(iris: str, slipway: Slipway, lab: Lab, tmp_path: Path) -> None:
    """Nothing goes live while it is paused; then its share is in the tree, and it ends as a person says."""
    before = slipway.get(iris)["live"]
    assert slipway("pause", iris).code == 0
    commit = lab.git.publish(iris, write_project(tmp_path, strength=0.5))
    canary = {"rollout": {"canary": {"pods": 1, "for": "1h"}}}
    lab.kube.apply(model_deployment(iris, slipway.namespace, {**spec(lab.git.url(iris), ref=commit), **canary}))

    paused = slipway("status", iris, "--wait", "--timeout", "5m", seconds=330)

    assert paused.code == 7, paused.out + paused.err
    assert slipway.get(iris)["live"] == before
    assert slipway("pause", iris, "--off").code == 0
    shares = wait_for(lambda: shares_of(slipway, iris).get("canary"), seconds=90, what="the canary's share")
    assert shares == 0.5, "one pod of two"
    screen = slipway.on_a_terminal("get", iris, "-w", until="canary  50%")
    assert "canary  50%" in screen, screen
    assert "\x1b[" in screen, "a person's tree is drawn in place, with colours"
    assert "sha256:" in slipway("get", iris, "-o", "wide").out
    narrow, wide = (set(slipway("get", *more).out.splitlines()[0].split()) for more in ((), ("-o", "wide")))
    assert wide > narrow

    gave_up = slipway("abort", iris, "--why", "not yet")
    assert gave_up.code == 0, gave_up.err
    assert slipway("status", iris, "--wait", "--timeout", "1m").code == 6
    assert slipway.get(iris)["live"]["content"] == before["content"]
    assert [entry["why"] for entry in slipway.entries(iris) if entry["cause"] == "Abort"] == ["not yet"]

    assert slipway("resume", iris).code == 0
    wait_for(lambda: shares_of(slipway, iris).get("canary"), seconds=90, what="the canary again")
    promoted = slipway("promote", iris)
    assert promoted.code == 0, promoted.err
    assert slipway("status", iris, "--wait", "--timeout", "3m").code == 0
    assert slipway.get(iris)["live"]["commit"] == commit


def shares_of(slipway: Slipway, name: str) -> dict[str, float]:
    """Each role's share of the requests."""
    return {content["role"]: content["share"] for content in slipway.get(name)["contents"] if content.get("share")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project in a Git clone of its own, with its ModelDeployment."""
    tree = write_project(tmp_path / "project", strength=0.25)
    wanted = model_deployment("cli-deployed", "unused", spec("https://git.example.com/x.git"))
    wanted["metadata"] = {"name": "cli-deployed"}
    (tree / "slipway.yaml").write_text(json.dumps(wanted))
    git("init", "-q", cwd=tree)
    git("add", "--all", cwd=tree)
    git("commit", "-q", "-m", "first", cwd=tree)
    return tree


def test_deploy_brings_a_folder_to_production(folder: Path, slipway: Slipway, lab: Lab) -> None:
    ended = slipway("deploy", str(folder), "--timeout", "8m", seconds=500)

    assert ended.code == 0, ended.out + ended.err
    entry = slipway.entries("cli-deployed")[0]
    image = re.search(r"pushed (\S+)@(sha256:[0-9a-f]{64})", ended.out)
    assert image is not None
    assert entry["digests"]["package"] == image[2]
    assert asked(lab, "cli-deployed", slipway.namespace)["predictions"][0]["label"] == 0
    managers = _managers(lab, "cli-deployed", slipway.namespace)
    assert "slipway-cli" in managers
    again = slipway("deploy", str(folder))
    assert again.code == 0
    assert len(slipway.entries("cli-deployed")) == 1, "the same bytes are the same content"


def _managers(lab: Lab, name: str, namespace: str) -> set[str]:
    found = json.loads(
        lab.kube.run("get", "modeldeployment", name, "-n", namespace, "-o", "json", "--show-managed-fields")
    )
    return {str(field["manager"]) for field in found["metadata"]["managedFields"]}


@pytest.fixture
def broken(lab: Lab, namespace: str) -> Iterator[str]:
    """A deployment whose ref nobody has pushed."""
    name = "cli-broken"
    lab.kube.apply(model_deployment(name, namespace, spec(lab.git.url("cli-iris"), ref="no-such-ref")))
    yield name
    lab.kube.delete("modeldeployment", name, namespace)


@pytest.mark.usefixtures("iris")
def test_doctor_finds_what_is_wrong(broken: str, slipway: Slipway) -> None:
    # Another journey may be killing the operator at this moment, or upgrading it, which tries again what failed.
    operator = ("deployment/slipway", "-n", NAMESPACE, "--timeout=120s")

    def examined() -> Ended | None:
        slipway.lab.kube.run("rollout", "status", *operator)
        waited = slipway("status", broken, "--wait", "--timeout", "3m")
        assert waited.code == 4, waited.out + waited.err
        said = slipway("doctor")
        ready = "the operator slipway-system/slipway is ready" in said.out
        return said if ready and f"{broken} is on its way" not in said.out else None

    ended = wait_for(examined, seconds=300, what="the doctor to find the operator ready and nothing on its way")

    assert ended.code == 4, ended.out + ended.err
    assert "✖ cli-broken answers nothing" in ended.out
    assert "RefNotFound" in ended.out
    assert "the registry holds the live model of cli-iris" in ended.out


def test_a_report_holds_no_secret(iris: str, slipway: Slipway, tmp_path: Path) -> None:
    """The value that the spec gives the training's environment is in Jobs and pods, and in no file of the bundle."""
    target = tmp_path / "bundle.zip"

    ended = slipway("report", iris, "--to", str(target))

    assert ended.code == 0, ended.err
    with zipfile.ZipFile(target) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert PLANTED not in "".join(texts.values())
    assert "REGION" in texts[f"objects/{iris}/controllerrevisions.json"]
    assert any(name.startswith("logs/") for name in texts)
    assert json.loads(texts["versions.json"])["kubernetes"].startswith("v1.")


def test_completion_by_kubectl_itself(iris: str, slipway: Slipway, lab: Lab) -> None:
    command = [str(lab.kube.kubectl), "__complete", "slipway", "rollback", "-n", slipway.namespace, ""]
    done = subprocess.run(command, env=slipway.environment(), capture_output=True, text=True, check=True)

    assert iris in done.stdout.split()


def test_pipx_installs_it(tmp_path: Path, slipway: Slipway) -> None:
    """Wheels of the two distributions, nothing else of this tree."""
    environment = slipway.environment(PIPX_HOME=str(tmp_path / "home"), PIPX_BIN_DIR=str(tmp_path / "bin"))
    dist = tmp_path / "dist"
    for package in ("slipway-operator", "slipway-cli"):
        build = ["uv", "build", "--quiet", "--wheel", "--package", package, "--out-dir", str(dist)]
        subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = dist.glob("slipway_cli-*.whl")
    install = [sys.executable, "-m", "pipx", "install", str(wheel), f"--pip-args=--find-links {dist}"]
    subprocess.run(install, env=environment, check=True, capture_output=True)

    programs = {path.name: path for path in (tmp_path / "bin").iterdir()}
    assert set(programs) == {"slipway", "kubectl-slipway", "kubectl_complete-slipway"}
    listing = [str(programs["kubectl-slipway"]), "get", "-n", slipway.namespace]
    assert subprocess.run(listing, env=environment, capture_output=True, text=True, check=True).stdout
    python = next((tmp_path / "home").glob("venvs/slipway-cli/bin/python"))
    heavy = "import importlib.util as u; print([m for m in ('kopf', 'sklearn', 'numpy') if u.find_spec(m)])"
    found = subprocess.run([python, "-c", heavy], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
