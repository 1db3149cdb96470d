"""Pure views: words, differences between revisions, findings, completion."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from importlib.metadata import requires
from typing import Any

import pytest
from packaging.requirements import Requirement

from slipway_cli.__main__ import main
from slipway_cli.app import app
from slipway_cli.complete import candidates
from slipway_cli.views import findings
from slipway_cli.views.difference import Change, Side, compare, is_data, lines, versions_of_uv_lock
from slipway_cli.views.overview import pod_word
from slipway_cli.views.verdict import outcome
from slipway_cli.views.words import age, seconds_of
from slipway_cli.views.world import World
from slipway_operator.domain.directives import Verb

NOW = datetime(2026, 11, 24, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (119, "119s"), (125, "2m5s"), (600, "10m"), (7200, "120m"), (5 * 3600 + 60, "5h1m"), (86400, "24h"),
     (3 * 86400, "3d"), (-5, "0s")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds, words):
    assert age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == words


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 m", "-5s", "5y"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=text.replace("-", r"\-") or "^$"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Running"}, "Running"),
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, "CrashLoopBackOff"),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}, "Completed"),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "Init:ImagePullBackOff"),
        ({"initContainerStatuses": [{"state": {"terminated": {"exitCode": 0}}}], "phase": "Pending"}, "Pending"),
        ({"initContainerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}, "Init:137"),
    ],
)
def test_a_pod_in_one_word(status, word):
    assert pod_word({"metadata": {}, "status": status}) == word


LOCK = """
version = 1
[[package]]
name = "delay"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "pandas" }, { name = "scikit-learn", extra = ["plot"] }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "pandas"
version = "2.3.0"
dependencies = [{ name = "numpy" }]
[[package]]
name = "numpy"
version = "2.3.5"
[[package]]
name = "scikit-learn"
version = "1.9.1"
[package.optional-dependencies]
plot = [{ name = "matplotlib" }]
more = [{ name = "nothing" }]
[[package]]
name = "matplotlib"
version = "3.10.0"
[[package]]
name = "nothing"
version = "1"
[[package]]
name = "pytest"
version = "9.0"
"""


def test_only_packages_that_production_installs_are_compared():
    """Neither the project itself, nor its development group, nor extras that nobody asked for."""
    assert versions_of_uv_lock(tomllib.loads(LOCK)) == {
        "pandas": "2.3.0",
        "numpy": "2.3.5",
        "scikit-learn": "1.9.1",
        "matplotlib": "3.10.0",
    }


@pytest.mark.parametrize(
    ("path", "data"),
    [("data/sample.csv", True), ("src/delay/data/load.py", False), ("a.parquet", True), ("train.py", False),
     ("uv.lock", False), ("data/README.md", False), ("data/raw.bin", True), ("Makefile", False)],
)  # fmt: skip
def test_data_and_code(path, data):
    assert is_data(path) is data


SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "carrier", "datatype": "BYTES", "shape": [-1, 1], "kind": "string"}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
    "classes": [0, 1],
    "producer": {"scikit-learn": "1.9.1"},
}


def test_a_comparison_of_all_sections():
    more = {"name": "distance", "datatype": "FP32", "shape": [-1, 1], "kind": "number"}
    before = Side(
        spec={"source": {"git": {"ref": "v1"}}, "model": {"train": {"command": ["python", "train.py"]}}},
        files={"train.py": (10, "a" * 64), "data/a.csv": (5, "b" * 64)},
        packages={"numpy": "2.3.5", "scipy": "1.16"},
        signature=SIGNATURE,
        metrics={"roc_auc": 0.71},
    )
    after = Side(
        spec={"source": {"git": {"ref": "v2"}}, "model": {"train": {"command": ["python", "train.py", "--deep"]}}},
        files={"train.py": (12, "c" * 64), "data/a.csv": (5, "b" * 64)},
        packages={"numpy": "2.4.0"},
        signature={**SIGNATURE, "inputs": [*SIGNATURE["inputs"], more], "classes": [0, 1, 2]},
        metrics={"roc_auc": 0.74, "f1": 0.5},
    )

    found = compare(before, after)

    assert found["spec"] == [
        Change("model.train.command", "python train.py", "python train.py --deep"),
        Change("source.git.ref", "v1", "v2"),
    ]
    assert [change.name for change in found["code"] or ()] == ["train.py"]
    assert found["data"] == []
    assert found["packages"] == [Change("numpy", "2.3.5", "2.4.0"), Change("scipy", "1.16", None)]
    assert found["features"] == [Change("distance", None, "FP32 number")]
    assert [change.name for change in found["schema"] or ()] == ["classes", "input distance"]
    assert found["metrics"] == [Change("f1", None, "0.5"), Change("roc_auc", "0.71", "0.74")]
    shown = lines(found)
    assert "data: equal" in shown
    assert "  ~ roc_auc  0.71 → 0.74" in shown
    assert "  - scipy  1.16" in shown


def test_the_columns_of_a_matrix_are_its_features():
    matrix = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}], "columns": ["a", "b"]}
    other = {**matrix, "columns": ["a", "c"]}

    found = compare(Side(signature=matrix), Side(signature=other))

    assert found["features"] == [Change("b", "FP32", None), Change("c", None, "FP32")]
    assert found["packages"] is None, "what could not be read is not called equal"


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        pytest.param({}, "ok", "answers: revision 2", id="well"),
        pytest.param({"stalled": "BuildFailed"}, "warning", "stands still: BuildFailed", id="stalled"),
        pytest.param({"available": "NoPodAnswers"}, "fault", "answers nothing: NoPodAnswers", id="down"),
        pytest.param({"available": "NothingLive"}, "note", "answers nothing: NothingLive", id="new"),
        pytest.param({"lane": "aaaaaaaaaa"}, "fault", "selects aaaaaaaaaa", id="service-astray"),
        pytest.param({"generation": 3}, "fault", "nobody has looked at", id="operator-away"),
        pytest.param({"crashing": True}, "warning", "was restarted 4 times", id="crashing"),
        pytest.param({"log": "entry 1 is missing"}, "fault", "entry 1 is missing", id="log-broken"),
        pytest.param({"back": "ImageNotFound"}, "warning", "could not be rolled back now", id="no-way-back"),
    ],
)
def test_a_deployment_is_examined(changed, level, words, make):
    """Each fault is found, at its level, and with an advice where somebody must act."""
    conditions = [make.condition("Ready", "True", "Serving"), make.condition("Available", "True", "Serving")]
    if "stalled" in changed:
        stalled = changed["stalled"]
        conditions = [make.condition("Ready", "False", stalled), make.condition("Stalled", "True", stalled)]
        conditions.append(make.condition("Available", "True", "Serving"))
    if "available" in changed:
        conditions = [make.condition("Available", "False", changed["available"])]
    if "back" in changed:
        conditions.append(make.condition("RollbackReady", "False", changed["back"]))
    resource = make.resource(*conditions)
    resource["metadata"]["generation"] = changed.get("generation", 2)
    world = World(
        resource=resource,
        entries=(make.entry(1, make.OLD), make.entry(2, make.NEW)),
        deployments=(make.deployment(make.NEW, 1),),
        pods=(make.pod(make.NEW, 1, ready=not changed.get("crashing")),),
        service=make.service(changed.get("lane", make.NEW)),
    )

    found = findings.of_deployment(world, [changed["log"]] if "log" in changed else [], NOW)

    hits = [finding for finding in found if words in finding.what]
    assert [finding.level for finding in hits] == [level], found
    assert level == "ok" or hits[0].advice


@pytest.mark.parametrize(
    ("version", "level"), [(("1", "36"), "ok"), (("1", "29+"), "fault"), (("1", "30"), "ok"), (("", ""), "note")]
)
def test_versions(version, level):
    major, minor = version
    assert findings.of_version({"major": major, "minor": minor, "gitVersion": "v"})[0].level == level


@pytest.mark.parametrize(
    ("crd", "words"),
    [
        (None, "is not installed"),
        ({"status": {"conditions": []}}, "is not usable"),
        (
            {
                "spec": {"versions": [{"name": "v1", "served": True}]},
                "status": {"conditions": [{"type": "Established", "status": "True"}]},
            },
            "has the versions",
        ),
    ],
)
def test_kinds(crd, words):
    (found,) = findings.of_crd("modeldeployments.slipway.dev", crd)
    assert found.level == "fault"
    assert words in found.what


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ([], "no operator is installed"),
        ([{"spec": {"replicas": 0}}], "scaled to 0"),
        ([{"spec": {"replicas": 1}, "status": {}}], "is not ready"),
        ([{"spec": {"replicas": 1}, "status": {"readyReplicas": 1}}], "is ready"),
    ],
)
def test_operators(operator, words):
    named = [{"metadata": {"namespace": "slipway-system", "name": "slipway"}, **each} for each in operator]
    assert words in findings.of_operators(named, [])[0].what


def test_completion_offers_commands_options_and_steps():
    assert {line.partition("\t")[0] for line in candidates([], "re")[0]} == {"report", "resume"}
    assert all("\t" in line for line in candidates([], "")[0])
    assert "--watch" in {line.partition("\t")[0] for line in candidates(["get"], "--w")[0]}
    assert candidates(["logs", "flight-delay"], "t") == (["train"], ":4")
    assert candidates(["deploy"], "") == ([], ":0")
    assert candidates(["env", "x", "--to"], "") == ([], ":0")


def test_completion_asks_the_cluster_for_names(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    assert candidates(["get"], "fl") == (["flight-delay"], ":4")
    assert candidates(["get", "-n", "airline"], "") == (["flight-delay"], ":4")
    assert [line.partition("\t")[0] for line in candidates(["rollback", "flight-delay"], "")[0]] == [
        "previous",
        "2",
        "1",
    ]
    assert candidates(["get", "--context"], "a") == (["air", "away"], ":4")
    kubeconfig.write_text(kubeconfig.read_text().replace('"current-context": "air", ', ""))
    assert candidates(["get", "--context"], "a") == (["air", "away"], ":4"), "without a current one too"
    assert candidates(["get", "--context", "away"], "") == ([], ":4"), "a cluster that is away is no candidate"


def test_a_rollback_is_done_when_the_service_has_turned(make):
    """The entry alone is the decision: who asks the Service in that moment still gets the old answer."""
    back = make.entry(3, make.OLD, cause="Rollback", requestId="r-1", restores=1)
    entries = [make.entry(1, make.OLD), make.entry(2, make.NEW), back]

    def what(live: int, request: str):
        return outcome(make.resource(live={"revision": live}), entries, Verb.ROLLBACK, request)

    assert what(2, "r-1").state == "Pending"
    assert what(3, "r-1").state == "Done"
    assert what(3, "r-2").state == "Pending"
    assert "revision 3 went live" in what(4, "r-1").sentence


def test_one_id_for_two_verbs_is_two_requests(make):
    entries = [make.entry(1, make.OLD), make.entry(2, make.OLD, cause="Rollback", requestId="ticket-42")]
    row = {"verb": "Rollback", "id": "ticket-42", "state": "Done"}
    resource = make.resource(live={"revision": 2}, requests=[row])

    assert outcome(resource, entries, Verb.ROLLBACK, "ticket-42").state == "Done"
    assert outcome(resource, entries, Verb.RESUME, "ticket-42").state == "Pending"


SLOW = ("kopf", "kubernetes", "pydantic", "yaml", "aiohttp", "sklearn", "slipway_operator.builder.package")


def test_help_imports_nothing_slow():
    """What `kubectl slipway --help` waits for."""
    code = (
        "import sys; from slipway_cli.__main__ import main; main(['--help']); main(['rollback', '--help']); "
        f"print([m for m in {SLOW!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_each_command_has_examples_and_says_all_of_its_options(capsys):
    names = [name for name in app if not name.startswith("-")]
    assert len(names) >= 16
    for name in names:
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"  kubectl slipway {name}" in said, name
        for argument in app[name].assemble_argument_collection(parse_docstring=True):
            assert argument.name == "*" or argument.parameter.help, f"{name}: {argument.name} is not described"


def test_the_distribution_is_small():
    """Neither kopf nor a framework for models comes with it."""
    seen: set[str] = set()
    ahead = ["slipway-cli"]
    while ahead:
        name = ahead.pop()
        for requirement in map(Requirement, requires(name) or ()):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name.lower() not in seen:
                seen.add(requirement.name.lower())
                ahead.append(requirement.name)
    assert seen & {"kopf", "structlog", "scikit-learn", "onnx", "onnxruntime", "numpy", "pandas"} == set()
    assert "kubernetes" in seen
