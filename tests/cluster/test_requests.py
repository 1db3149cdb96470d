"""Who may ask for what, and in whose name: the chart's policies on a real API server, for newer and older clusters.

They stand on a kind of their own, so that no installation's policies join in. It has other names, too: kubectl
remembers for ten minutes what a name stands for, and would look for ours in a group that is gone.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.__main__ import CHART, NEWER
from chart.programs import open_kube, tool
from lab.kube import Kube, KubectlError, wait_for
from slipway_operator.domain.directives import Stamps
from slipway_operator.domain.settings import Settings

EDITOR, ONCALL, BACKUP = "ed@example.com", "jane@example.com", "backup@example.com"
BOSS = "boss@example.com"
SHOWN = {"written": ["--api-versions", NEWER], "checked": ["--kube-version", "1.35.0"]}
UNSTAMPED = "cannot stamp who asked"
ONLY = "may roll back, abort and pause, and nothing else"


def twin_of_our_kind(group: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "twins", "singular": "twin", "kind": "Twin"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"twins.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def rights(group: str, user: str, *verbs: str) -> list[dict[str, Any]]:
    name = user.partition("@")[0]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    rules = [{"apiGroups": [group], "resources": ["twins"], "verbs": list(verbs)}]
    meta = {"metadata": {"name": name}}
    return [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **meta, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", **meta, "roleRef": role}
        | {"subjects": [subject]},
    ]


@dataclass(frozen=True)
class Desk:
    """A namespace in which the policies hold, and people who want something."""

    kube: Kube
    group: str
    namespace: str

    @property
    def kind(self) -> str:
        return f"twins.{self.group}"

    def create(self, name: str, user: str, annotations: dict[str, str] | None = None) -> None:
        meta = {"name": name, "annotations": annotations or {}}
        made = {"apiVersion": f"{self.group}/v1alpha1", "kind": "Twin", "metadata": meta, "spec": {"a": 1}}
        self.kube.run("create", "-n", self.namespace, f"--as={user}", "-f", "-", stdin=json.dumps(made))

    def patch(self, name: str, user: str, change: dict[str, Any], *more: str) -> None:
        words = ("patch", self.kind, name, "-n", self.namespace, f"--as={user}", "--type=merge", *more)
        self.kube.run(*words, "-p", json.dumps(change))

    def annotate(self, name: str, user: str, *more: str, **annotations: str | None) -> None:
        """``rollback_stamp="…"`` is the annotation ``slipway.dev/rollback-stamp``."""
        named = {f"slipway.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        self.patch(name, user, {"metadata": {"annotations": named}}, *more)

    def annotations(self, name: str) -> dict[str, str]:
        found = self.kube.get(self.kind, name, self.namespace) or {}
        return {key.partition("/")[2]: value for key, value in (found["metadata"].get("annotations") or {}).items()}


def policies(name: str, group: str, namespace: str, shown: str) -> list[dict[str, Any]]:
    """The chart's, on the twin of our kind."""
    done = subprocess.run(
        [
            tool("helm"), "template", name, CHART, "--values", CHART / "ci" / "cluster-wide-values.yaml",
            "--set", f"namespaces={{{namespace}}}", "--set", f"admissionPolicies.logWriters={{{BACKUP}}}",
            "--show-only", "templates/admission-requests.yaml", *SHOWN[shown],
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    twins = {"apiGroups: [slipway.dev]": f"apiGroups: [{group}]", "group('slipway.dev')": f"group('{group}')"}
    twins |= {
        "resources: [modeldeployments]": "resources: [twins]",
        "resource('modeldeployments')": "resource('twins')",
    }
    text = done.stdout
    for old, new in twins.items():
        assert old in text
        text = text.replace(old, new)
    return [item for item in yaml.safe_load_all(text) if item]


# ---- what is rendered ------------------------------------------------------------------------------


def rendered(only: str, *more: str) -> dict[str, Any]:
    values, shown = CHART / "ci" / "cluster-wide-values.yaml", ["--show-only", f"templates/{only}.yaml"]
    command: list[str | Path] = [tool("helm"), "template", "slipway", CHART, "--values", values, *shown, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.parametrize(
    ("more", "stamps"),
    [
        pytest.param(SHOWN["written"], Stamps.WRITTEN, id="newer"),
        pytest.param(SHOWN["checked"], Stamps.CHECKED, id="older"),
        pytest.param([*SHOWN["written"], "--set=admissionPolicies.enabled=false"], Stamps.UNCHECKED, id="no-policy"),
    ],
)
def test_the_operator_is_told_who_sees_to_stamps(more: list[str], stamps: Stamps) -> None:
    settings = yaml.safe_load(rendered("settings", *more)["data"]["settings.yaml"])

    assert Settings.model_validate(settings).stamps is stamps


def test_the_account_of_argo_cd_is_the_one_that_the_values_name() -> None:
    account = "system:serviceaccount:gitops:argocd-server"
    data = rendered("argocd", f"--set=argocd.account={account}")["data"]

    actions = yaml.safe_load(data["resource.customizations.actions.slipway.dev_ModelDeployment"])["definitions"]
    named = {each["name"] for each in actions if f'-stamp"] = id .. " {account}"' in each["action.lua"]}
    assert named == {"rollback", "rollback-to", "resume", "promote", "abort"}
    assert "serviceaccount:argocd:" not in json.dumps(data)


# ---- people ----------------------------------------------------------------------------------------


def open_desk(shown: str) -> Iterator[Desk]:
    kube, mark = open_kube(), uuid.uuid4().hex[:6]
    desk = Desk(kube, f"desk-{mark}.slipway.test", f"desk-{mark}")
    kube.namespace(desk.namespace)
    kube.apply(twin_of_our_kind(desk.group))
    kube.run("wait", "--for=condition=Established", "crd", desk.kind, "--timeout=60s")
    standing = policies(f"desk-{mark}", desk.group, desk.namespace, shown)
    try:
        kube.apply(*standing)
        for user, verbs in (
            (EDITOR, ("get", "create", "update", "patch", "delete")),
            (ONCALL, ("get", "patch", "rollback")),
            (BACKUP, ("get", "create", "update", "patch")),
        ):
            for item in rights(desk.group, user, *verbs):
                kube.apply({**item, "metadata": {**item["metadata"], "namespace": desk.namespace}})
        desk_is_open(desk, shown)
        yield desk
    finally:
        for item in standing:
            kube.delete(item["kind"], item["metadata"]["name"], wait=False)
        kube.delete("crd", desk.kind, wait=False)
        kube.delete("namespace", desk.namespace, wait=False)


def desk_is_open(desk: Desk, shown: str) -> None:
    """A policy holds a moment after it was created, and learns of a kind later than that: only the first look waits."""

    def knows_the_kind() -> bool:
        try:
            desk.create("door", EDITOR)
        except KubectlError as error:
            if "can be a delay" not in str(error):
                raise
            return False
        return True

    wait_for(knows_the_kind, seconds=60, what="the policies to know the kind")

    def holds() -> bool:
        try:
            desk.patch("door", ONCALL, {"metadata": {"labels": {"a": uuid.uuid4().hex}}})
        except KubectlError as error:
            if ONLY not in str(error):
                return False
        else:
            return False
        try:
            desk.annotate("door", EDITOR, abort=f"now@{uuid.uuid4().hex}")
        except KubectlError as error:
            return shown == "checked" and UNSTAMPED in str(error)
        return shown == "written" and EDITOR in desk.annotations("door").get("abort-stamp", "")

    wait_for(holds, seconds=60, what="the policies to hold")


@pytest.fixture(scope="module")
def checked() -> Iterator[Desk]:
    """A cluster before Kubernetes 1.36: it checks stamps."""
    yield from open_desk("checked")


@pytest.fixture(scope="module")
def written() -> Iterator[Desk]:
    """A newer one, which writes them."""
    yield from open_desk("written")


@pytest.fixture(params=["checked", "written"])
def desk(request: pytest.FixtureRequest) -> Desk:
    found: Desk = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def name(desk: Desk) -> str:
    made = f"m-{uuid.uuid4().hex[:6]}"
    desk.create(made, EDITOR)
    return made


@pytest.fixture
def old(checked: Desk) -> str:
    """A ModelDeployment of the older cluster, with a request of Jane's."""
    made = f"m-{uuid.uuid4().hex[:6]}"
    checked.create(made, EDITOR)
    checked.annotate(made, ONCALL, rollback="previous", rollback_stamp=f"1 {ONCALL}")
    return made


# ---- who may do what, on both ----------------------------------------------------------------------


def test_who_may_roll_back_may_ask_for_it_and_give_up_and_pause(desk: Desk, name: str) -> None:
    desk.annotate(name, ONCALL, rollback="previous@a", rollback_stamp=f"a {ONCALL}")
    desk.annotate(name, ONCALL, abort="now@b", abort_stamp=f"b {ONCALL}")
    desk.annotate(name, ONCALL, paused="true")

    found = desk.annotations(name)
    assert found["rollback-stamp"].endswith(f" {ONCALL}")
    assert found["abort-stamp"].endswith(f" {ONCALL}")
    assert found["paused"] == "true"


@pytest.mark.parametrize("value", [None, "false", "", "True"])
def test_who_may_roll_back_may_end_nobodys_pause(desk: Desk, name: str, value: str | None) -> None:
    desk.annotate(name, EDITOR, paused="true")
    with pytest.raises(KubectlError, match=ONLY):
        desk.annotate(name, ONCALL, paused=value)

    desk.annotate(name, ONCALL, abort="now@c", abort_stamp=f"c {ONCALL}")
    desk.annotate(name, EDITOR, paused=value)


def test_who_may_roll_back_may_exchange_no_owner_and_no_finalizer(desk: Desk, name: str) -> None:
    def owners(uid: str) -> dict[str, Any]:
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": desk.namespace, "uid": uid}
        return {"metadata": {"ownerReferences": [owner]}}

    # Kubernetes' own owner is right: the namespace is there, so that the garbage collector keeps what it owns.
    namespace = desk.kube.get("namespace", desk.namespace) or {}
    desk.patch(name, EDITOR, owners(namespace["metadata"]["uid"]))
    desk.patch(name, EDITOR, {"metadata": {"finalizers": ["example.com/a"]}})
    try:
        for change in (
            owners(str(uuid.uuid4())),
            {"metadata": {"finalizers": ["example.com/b"]}},
            {"metadata": {"finalizers": None}},
            {"metadata": {"ownerReferences": None}},
        ):
            with pytest.raises(KubectlError, match=ONLY):
                desk.patch(name, ONCALL, change, "--dry-run=server")
    finally:
        desk.patch(name, EDITOR, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spec": {"a": 2}}, id="spec"),
        pytest.param({"metadata": {"labels": {"a": "b"}}}, id="label"),
        pytest.param({"metadata": {"annotations": {"example.com/a": "b"}}}, id="annotation"),
        pytest.param({"metadata": {"annotations": {"slipway.dev/retry": "1"}}}, id="retry"),
        pytest.param(
            {"metadata": {"annotations": {"slipway.dev/resume": "now", "slipway.dev/resume-stamp": f"1 {ONCALL}"}}},
            id="resume",
        ),
        pytest.param({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]}}, id="owner",
        ),
    ],
)  # fmt: skip
def test_who_may_roll_back_may_do_nothing_else(desk: Desk, name: str, change: dict[str, Any]) -> None:
    with pytest.raises(KubectlError, match=ONLY):
        desk.patch(name, ONCALL, change)


# ---- in whose name ---------------------------------------------------------------------------------


def test_a_newer_cluster_writes_who_asked_whatever_he_says(written: Desk) -> None:
    written.create("signed", EDITOR, {"slipway.dev/spec-stamp": BOSS, "slipway.dev/abort-stamp": f"1 {BOSS}"})
    written.annotate("signed", ONCALL, rollback="previous", rollback_stamp=f"1 {BOSS}")
    written.annotate("signed", ONCALL, rollback_stamp=f"2 {BOSS}")

    found = written.annotations("signed")
    assert found["rollback-stamp"].endswith(f" {ONCALL}")
    assert found["spec-stamp"] == EDITOR
    assert "abort-stamp" not in found


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param({"rollback": "3", "rollback_stamp": None}, id="no-stamp"),
        pytest.param({"rollback": "3", "rollback_stamp": f"2 {BOSS}"}, id="anothers"),
        pytest.param({"rollback_stamp": f"2 {BOSS}"}, id="anothers-beside-the-old-request"),
        pytest.param({"rollback_stamp": None}, id="taken-away-from-the-old-request"),
        pytest.param({"rollback": None, "rollback_stamp": f"2 {BOSS}"}, id="anothers-beside-none"),
        pytest.param({"abort_stamp": f"2 {BOSS}"}, id="anothers-for-later"),
        pytest.param({"rollback_stamp": f"2 {BOSS} on behalf of {ONCALL}"}, id="anothers-before-ones-own"),
        pytest.param({"rollback_stamp": f"2  {ONCALL}"}, id="two-spaces"),
        pytest.param({"rollback_stamp": ONCALL}, id="nothing-before-it"),
        pytest.param({"rollback_stamp": f"2 {ONCALL} "}, id="something-after-it"),
    ],
)
def test_an_older_cluster_lets_nobody_ask_in_anothers_name(
    checked: Desk, old: str, annotations: dict[str, str | None]
) -> None:
    before = checked.annotations(old)

    with pytest.raises(KubectlError, match=UNSTAMPED):
        checked.annotate(old, ONCALL, **annotations)

    assert checked.annotations(old) == before


def test_an_older_cluster_leaves_no_ones_stamp_beside_anothers_request(checked: Desk, old: str) -> None:
    with pytest.raises(KubectlError, match=UNSTAMPED):
        checked.annotate(old, EDITOR, rollback="3")


def test_an_older_cluster_lets_one_ask_again_and_take_it_back(checked: Desk, old: str) -> None:
    checked.annotate(old, ONCALL, rollback_stamp=f"2 {ONCALL}")
    checked.annotate(old, EDITOR, rollback="3@a", rollback_stamp=f"a {EDITOR}")
    # A GitOps tool takes away what Git does not have: the request alone, or both.
    checked.annotate(old, ONCALL, rollback=None)
    checked.annotate(old, EDITOR, rollback_stamp=None)
    checked.annotate(old, ONCALL, rollback="previous@b", rollback_stamp=f"b {ONCALL}")
    checked.annotate(old, EDITOR, rollback=None, rollback_stamp=None)


def test_an_older_cluster_leaves_other_changes_beside_a_request_alone(checked: Desk, old: str) -> None:
    checked.patch(old, EDITOR, {"spec": {"a": 2}, "metadata": {"labels": {"a": "b"}}})
    checked.annotate(old, EDITOR, paused="true")

    assert checked.annotations(old)["rollback-stamp"] == f"1 {ONCALL}"


def test_an_older_cluster_lets_nobody_say_who_changed_the_spec(checked: Desk, old: str) -> None:
    said = "cannot stamp who changed the spec"
    with pytest.raises(KubectlError, match=said):
        checked.annotate(old, EDITOR, spec_stamp=BOSS)
    with pytest.raises(KubectlError, match=said):
        checked.annotate(old, EDITOR, spec_stamp=EDITOR)
    with pytest.raises(KubectlError, match=said):
        checked.create("spec-stamped", EDITOR, {"slipway.dev/spec-stamp": BOSS})


def test_an_older_cluster_takes_no_forged_stamp_on_creation(checked: Desk) -> None:
    with pytest.raises(KubectlError, match=UNSTAMPED):
        checked.create("forged", EDITOR, {"slipway.dev/rollback": "1", "slipway.dev/rollback-stamp": f"1 {BOSS}"})
    with pytest.raises(KubectlError, match=UNSTAMPED):
        checked.create("forged", EDITOR, {"slipway.dev/promote-stamp": f"1 {BOSS}"})

    # Without a stamp it names nobody, and says so; one's own name is one's own.
    checked.create("unsigned", EDITOR, {"slipway.dev/promote": "now"})
    checked.create("signed", EDITOR, {"slipway.dev/promote": "now", "slipway.dev/promote-stamp": f"1 {EDITOR}"})


def test_a_backup_brings_the_stamps_of_others_back(desk: Desk) -> None:
    """The stamp's version makes the request's id: with another one, what was done long ago would be done again."""
    brought = {"slipway.dev/rollback": "1", "slipway.dev/rollback-stamp": f"1 {BOSS}", "slipway.dev/spec-stamp": BOSS}
    desk.create("restored", BACKUP, brought)
    found = desk.annotations("restored")
    assert (found["rollback-stamp"], found["spec-stamp"]) == (f"1 {BOSS}", BOSS)

    # Over what is there, too.
    desk.annotate("restored", BACKUP, rollback="2", rollback_stamp=f"7 {BOSS}")
    desk.annotate("restored", BACKUP, paused="true")
    assert desk.annotations("restored")["rollback-stamp"] == f"7 {BOSS}"


def test_a_backup_s_user_who_asks_for_something_is_named(written: Desk) -> None:
    written.create("asked", BACKUP)
    written.annotate("asked", BACKUP, rollback="previous")

    found = written.annotations("asked")
    assert found["rollback-stamp"].endswith(f" {BACKUP}")
    assert found["spec-stamp"] == BACKUP
