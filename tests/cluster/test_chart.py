"""The chart: what it renders, and, installed in namespaced mode beside whatever runs, what it lets people do."""

import json
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.__main__ import CHART, helm_template
from chart.programs import open_kube, tool
from chart.specs import ROOT, cases
from lab.kube import Kube, KubectlError, wait_for
from slipway_operator.api.crd import all_crds
from slipway_operator.domain.settings import Settings

CI = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))}
IMAGES = ROOT / "build" / "images-values.yaml"


def rendered(mode: str) -> list[dict[str, Any]]:
    # Helm writes 1e-05, which YAML 1.2 reads as a number and PyYAML as text.
    text = helm_template(CI[mode]).replace(" 1e-05", " 1.0e-05")
    return [item for item in yaml.safe_load_all(text) if item]


def one(items: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [item for item in items if item["kind"] == kind and item["metadata"]["name"].endswith(name)]
    return found


# ---- what it renders ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", CI)
def test_the_settings_are_read_as_they_are_meant(mode: str) -> None:
    values = yaml.safe_load(CI[mode].read_text(encoding="utf-8"))

    settings = Settings.model_validate(
        yaml.safe_load(one(rendered(mode), "ConfigMap", "-settings")["data"]["settings.yaml"])
    )

    assert settings.images.runtime == values["images"]["runtime"]
    assert settings.operator_namespace == "slipway-system"
    if mode == "namespaced":
        assert settings.namespaces == ("airline", "railway")
        assert settings.registry.secret_name == "registry"
        assert settings.index.url == "https://index.example.com/simple"
        assert settings.proxy.no == ".example.com,10.0.0.0/8"
        assert settings.ca_bundle == values["caBundle"]
        assert settings.package_lists[0].requirements == values["packageLists"][0]["requirements"]
        assert settings.jobs.memory_limit == "8Gi"
    else:
        assert (settings.registry.secret_name, settings.index.url, settings.ca_bundle) == (None, None, None)


def test_what_argo_cd_is_told_is_the_lua_as_it_lies_there() -> None:
    data = one(rendered("cluster-wide"), "ConfigMap", "-argocd")["data"]

    for health in sorted((CHART / "files" / "argocd" / "resource_customizations").glob("*/*/health.lua")):
        kind = health.parent
        key = f"{kind.parent.name}_{kind.name}"
        actions = yaml.safe_load(data.pop(f"resource.customizations.actions.{key}"))
        assert data.pop(f"resource.customizations.health.{key}") == health.read_text(encoding="utf-8")
        # Helm's toYaml drops the newline at the end of a text.
        assert f"{actions['discovery.lua']}\n" == (kind / "actions" / "discovery.lua").read_text(encoding="utf-8")
        assert {each["name"]: each["action.lua"] for each in actions["definitions"]} == {
            path.parent.name: path.read_text(encoding="utf-8") for path in kind.glob("actions/*/action.lua")
        }
    assert data == {}
    quiet = [item for item in rendered("namespaced") if item["metadata"]["name"].endswith("-argocd")]
    assert quiet == [], "argocd.customizations=false"


def test_the_crds_are_those_of_the_api_and_stay() -> None:
    found = {
        item["metadata"]["name"]: item for item in rendered("cluster-wide") if item["kind"].startswith("CustomRes")
    }

    for crd in all_crds().values():
        item = found.pop(crd["metadata"]["name"])
        assert item["spec"] == crd["spec"]
        assert item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert found == {}
    kept = [
        item["metadata"].get("annotations") for item in rendered("namespaced") if item["kind"].startswith("CustomRes")
    ]
    assert kept == [None, None], "crds.keep=false"


def test_namespaced_mode_has_no_right_beyond_its_namespaces() -> None:
    items = rendered("namespaced")

    assert not [i for i in items if i["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    assert {i["metadata"]["namespace"] for i in items if i["kind"] == "Role"} == {"airline", "railway"}


@pytest.mark.parametrize("mode", CI)
def test_the_policies_compile_on_the_oldest_kubernetes(mode: str) -> None:
    policies = [item for item in rendered(mode) if item["kind"] == "ValidatingAdmissionPolicy"]
    broken = json.dumps(one(policies, "ValidatingAdmissionPolicy", "-requests")).replace(
        "authorizer.group", "authoriser.group"
    )

    def refused(lines: list[str]) -> str:
        done = subprocess.run(
            [tool("crd-check"), "--policies"], input="\n".join(lines), capture_output=True, text=True, check=True
        )
        return done.stdout

    # Older clusters have one more, in the place of what newer ones write.
    assert len(policies) == (5 if mode == "namespaced" else 4)
    assert refused([json.dumps(policy) for policy in policies]) == ""
    assert "undeclared reference to 'authoriser'" in refused([broken])


@pytest.mark.parametrize("mode", CI)
def test_an_upgrade_touches_no_model(mode: str) -> None:
    """What serves belongs to its ModelDeployment: the release holds nothing but rights where it serves."""
    elsewhere = {i["kind"] for i in rendered(mode) if i["metadata"].get("namespace") not in {None, "slipway-system"}}

    assert elsewhere <= {"Role", "RoleBinding"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param("nodeSelectr.a=b", "additional properties 'nodeSelectr' not allowed", id="unknown"),
        pytest.param("images.operator=slipway:latest", "/images/operator", id="tag"),
        pytest.param(
            "images.operator=", "images.operator is not set: pass the values that `make images`", id="no-image"
        ),
        pytest.param("registry.prefix=https://r.example.com/a", "/registry/prefix", id="scheme"),
        pytest.param("registry.prefix=", "registry.prefix is not set", id="no-registry"),
        pytest.param("interpreters=null", "interpreters is empty", id="no-interpreter"),
        pytest.param("modelDelivery=Guess", "/modelDelivery", id="delivery"),
        pytest.param("jobs.memoryLimit=much", "/jobs/memoryLimit", id="quantity"),
        pytest.param("logLevel=LOUD", "/logLevel", id="log-level"),
        pytest.param("serviceAccount.create=false", "set serviceAccount.name", id="account"),
        pytest.param("index.url=https://me:word@index.example.com", "/index/url", id="password-in-url"),
    ],
)
def test_wrong_values_are_refused(setting: str, message: str) -> None:
    done = subprocess.run(
        [tool("helm"), "template", "slipway", CHART, "--values", CI["cluster-wide"], "--set", setting],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert message in done.stderr


def test_another_setting_restarts_the_operator() -> None:
    def stamp(*more: str) -> str:
        done = subprocess.run(
            [tool("helm"), "template", "slipway", CHART, "--values", CI["cluster-wide"], *more],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        items = [item for item in yaml.safe_load_all(done.stdout) if item]
        return str(one(items, "Deployment")["spec"]["template"]["metadata"]["annotations"]["slipway.dev/settings"])

    assert stamp() == stamp()
    assert stamp() != stamp("--set", "jobs.memoryLimit=1Gi")


@pytest.mark.parametrize("mode", CI)
@pytest.mark.parametrize(
    ("settings", "offered"),
    [
        pytest.param("", True, id="default"),
        pytest.param("rbac.rollbackRole=false", False, id="not-asked-for"),
        pytest.param("admissionPolicies.enabled=false", False, id="nothing-narrows-it"),
    ],
)
def test_the_role_to_roll_back_comes_only_with_what_narrows_it(mode: str, settings: str, offered: bool) -> None:
    more = ["--set", settings] if settings else []
    done = subprocess.run(
        [tool("helm"), "template", "slipway", CHART, "--values", CI[mode], *more],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    roles = [i["metadata"]["name"] for i in yaml.safe_load_all(done.stdout) if i and i["kind"].endswith("Role")]

    assert any(name.endswith("-rollback") for name in roles) is offered


# ---- installed ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """The chart, installed in namespaced mode."""

    kube: Kube
    name: str
    home: str
    served: str
    writer: str
    """Who may write the log, by the policies of this release and of a cluster-wide one beside it."""

    @property
    def operator(self) -> str:
        return f"system:serviceaccount:{self.home}:{self.name}"

    def helm(self, *arguments: str) -> str:
        done = subprocess.run(
            [tool("helm"), *arguments, "--namespace", self.home],
            capture_output=True, text=True, check=False,
            env={**os.environ, "KUBECONFIG": str(self.kube.kubeconfig)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def may(self, verb: str, what: str, *more: str) -> bool:
        done = subprocess.run(
            [self.kube.kubectl, "auth", "can-i", verb, what, "--as", self.operator, *more],
            capture_output=True, text=True, check=False,
            env={**os.environ, "KUBECONFIG": str(self.kube.kubeconfig)},
        )  # fmt: skip
        return done.stdout.strip() == "yes"

    def create(self, manifest: dict[str, Any], *more: str) -> None:
        self.kube.run("create", "-n", self.served, *more, "-f", "-", stdin=json.dumps(manifest))


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    kube = open_kube()
    mark = uuid.uuid4().hex[:6]
    name, home = f"dock-{mark}", f"chart-home-{mark}"
    # A cluster-wide release's policy holds in every namespace, in ours too: act as its operator then.
    other = kube.get("validatingadmissionpolicy", "slipway-log")
    writer = "system:serviceaccount:slipway-system:slipway" if other else f"system:serviceaccount:{home}:{name}"
    made = Release(kube, name, home, f"chart-served-{mark}", writer)
    kube.namespace(made.home)
    kube.namespace(made.served)
    # The CRDs are the cluster's: another release, or `make cluster` tests, may have put them there.
    has_crds = kube.get("crd", "modeldeployments.slipway.dev") is not None
    if not has_crds:
        kube.run("apply", "--server-side", "-f", str(ROOT / "crds"))
    made.helm(
        "install", made.name, str(CHART), "--values", str(IMAGES), "--wait", "--timeout", "3m",
        "--set", f"namespaces={{{made.served}}},crds.install=false,rbac.aggregate=false",
        "--set", f"admissionPolicies.logWriters={{{writer}}}",
    )  # fmt: skip
    yield made
    subprocess.run(
        [tool("helm"), "uninstall", made.name, "--namespace", made.home, "--ignore-not-found", "--wait"],
        capture_output=True, check=False, env={**os.environ, "KUBECONFIG": str(kube.kubeconfig)},
    )  # fmt: skip
    kube.delete("namespace", made.home, wait=False)
    kube.delete("namespace", made.served, wait=False)


def test_the_operator_runs_restricted(release: Release) -> None:
    (pod,) = release.kube.list("pods", release.home, f"app.kubernetes.io/instance={release.name}")

    container = pod["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "@sha256:" in container["image"]
    assert pod["status"]["containerStatuses"][0]["ready"] is True
    assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}["Ready"] == "True"


def test_the_commands_of_the_notes_work(release: Release) -> None:
    notes = release.helm("get", "notes", release.name)
    commands = re.findall(r"^  (kubectl .*)$", notes, flags=re.MULTILINE)

    assert len(commands) >= 4
    for command in commands:
        release.kube.run(*shlex.split(command)[1:], timeout=150)


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("watch", "modeldeployments.slipway.dev"),
        ("patch", "modeldeployments.slipway.dev/status"),
        ("create", "jobs.batch"),
        ("delete", "jobs.batch"),
        ("patch", "deployments.apps"),
        ("create", "controllerrevisions.apps"),
        ("patch", "services"),
        ("list", "events"),
        ("create", "events.events.k8s.io"),
    ],
)
def test_the_operator_may(release: Release, verb: str, what: str) -> None:
    resource, _, subresource = what.partition("/")
    more = ["--subresource", subresource] if subresource else []
    assert release.may(verb, resource, "-n", release.served, *more)
    assert not release.may(verb, resource, "-n", "default", *more), "only in the namespaces that it serves"


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        *((verb, "secrets") for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *((verb, "modeldeployments.slipway.dev") for verb in ("create", "update", "patch", "delete")),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "pods/log"),
        ("create", "serviceaccounts"),
        ("create", "serviceaccounts/token"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("list", "namespaces"),
        ("delete", "services"),
        ("*", "*"),
    ],
)
def test_the_operator_may_not(release: Release, verb: str, what: str) -> None:
    resource, _, subresource = what.partition("/")
    more = ["--subresource", subresource] if subresource else []
    assert not release.may(verb, resource, "-n", release.served, *more)


def entry(name: str, **meta: Any) -> dict[str, Any]:
    labels = {"slipway.dev/log": "true", "slipway.dev/owner": "nobody"}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "labels": labels, **meta},
        "data": {"number": 1},
        "revision": 1,
    }


def eventually_refused(act: Any, message: str) -> None:
    """A policy holds a moment after it was created: only the first look waits."""

    said = ""

    def refused() -> bool:
        # At first another may refuse: the API server learns of a right a moment after it was given, too.
        nonlocal said
        try:
            act()
        except KubectlError as error:
            said = str(error)
        return message in said

    try:
        wait_for(refused, seconds=60, what=message)
    except TimeoutError as error:
        raise AssertionError(f"{error}; at last: {said or 'not refused'}") from None


def test_only_the_operator_writes_the_log(release: Release) -> None:
    kube, where = release.kube, ("-n", release.served)
    eventually_refused(
        lambda: release.create(entry("forged"), "--dry-run=server"), "only the operator writes entries of the log"
    )

    release.create(entry("true-1"), "--as", release.writer)

    with pytest.raises(KubectlError, match="only the operator removes entries of the log"):
        kube.run("delete", "controllerrevision", "true-1", *where)
    with pytest.raises(KubectlError, match="only the operator changes entries of the log"):
        kube.run("label", "controllerrevision", "true-1", *where, "slipway.dev/log-")
    orphan = '{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"x"}]}}'
    with pytest.raises(KubectlError, match="only the operator changes entries of the log"):
        kube.run("patch", "controllerrevision", "true-1", *where, "--type=merge", "-p", orphan)
    for change in ('{"revision":2}', '{"metadata":{"labels":{"slipway.dev/log":null}}}'):
        with pytest.raises(KubectlError, match="the number and the labels of an entry of the log cannot be changed"):
            kube.run(
                "patch", "controllerrevision", "true-1", *where, "--type=merge", "-p", change, "--as", release.writer
            )
    kube.run("delete", "controllerrevision", "true-1", *where, "--as", release.writer)


WAYS_AROUND = {
    "a-name-made-by-the-server": ("create", '{"metadata":{"generateName":"true-"}}'),
    "apply": ("apply", '{"data":{"number":9}}'),
    "apply-by-another-manager": (
        "apply --server-side --force-conflicts --field-manager=slipway",
        '{"data":{"number":9}}',
    ),
    "apply-of-a-label": (
        "apply --server-side --force-conflicts",
        '{"metadata":{"labels":{"slipway.dev/owner":"somebody"}}}',
    ),
    "replace": ("replace", '{"data":{"number":9}}'),
    "replace-by-force": ("replace --force", '{"data":{"number":9}}'),
    "delete": ("delete", "{}"),
    "delete-by-force": ("delete --force --grace-period=0", "{}"),
    "delete-and-leave-what-it-owns": ("delete --cascade=orphan", "{}"),
}


@pytest.fixture
def true_entry(release: Release) -> Iterator[str]:
    """An entry that the operator wrote, which must be there unchanged afterwards."""
    eventually_refused(
        lambda: release.create(entry("forged"), "--dry-run=server"), "only the operator writes entries of the log"
    )
    release.create(entry("kept-1"), "--as", release.writer)
    before = release.kube.get("controllerrevision", "kept-1", release.served)
    yield "kept-1"
    assert release.kube.get("controllerrevision", "kept-1", release.served) == before
    release.kube.run("delete", "controllerrevision", "kept-1", "-n", release.served, "--as", release.writer)


@pytest.mark.parametrize("way", WAYS_AROUND)
def test_there_is_no_way_around_the_operator(release: Release, true_entry: str, way: str) -> None:
    """Not even for an administrator, while the policy stands."""
    command, change = WAYS_AROUND[way]
    manifest = entry(true_entry)
    for name, value in json.loads(change).items():
        manifest[name] = {**manifest[name], **value}
    if "generateName" in manifest["metadata"]:
        del manifest["metadata"]["name"]
    refused = (
        r"only the operator (writes|changes|removes) entries of the log|data: Invalid value: .* field is immutable"
    )
    with pytest.raises(KubectlError, match=refused):
        release.kube.run(*command.split(), "-n", release.served, "-f", "-", stdin=json.dumps(manifest))


def test_all_at_once_is_no_way_around_either(release: Release, true_entry: str) -> None:
    """One by one, as kubectl does it, and by one request that names none of them (deletecollection)."""
    everything = f"/apis/apps/v1/namespaces/{release.served}/controllerrevisions"
    for command in (
        ("controllerrevisions", "--all", "-n", release.served),
        ("--raw", everything),
        ("--raw", f"{everything}?labelSelector=slipway.dev%2Flog%3Dtrue"),
    ):
        with pytest.raises(KubectlError, match="only the operator removes entries of the log"):
            release.kube.run("delete", *command)
    assert true_entry


def test_a_revision_does_not_become_an_entry_later(release: Release) -> None:
    release.create(entry("later-1", labels={"slipway.dev/owner": "nobody"}))
    with pytest.raises(KubectlError, match="only the operator changes entries of the log"):
        release.kube.run("label", "controllerrevision", "later-1", "-n", release.served, "slipway.dev/log=true")
    release.kube.run("delete", "controllerrevision", "later-1", "-n", release.served)


def test_other_controller_revisions_are_nobodys_business(release: Release) -> None:
    other = entry("statefulset-1", labels={"app": "database"})

    release.create(other)

    release.kube.run("delete", "controllerrevision", "statefulset-1", "-n", release.served)


def test_the_log_goes_with_its_owner(release: Release) -> None:
    """The garbage collector is let through: nothing hangs."""
    kube = release.kube
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}}
    release.create(owner)
    uid = (kube.get("configmap", "owner", release.served) or {})["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    release.create(entry("owned-1", ownerReferences=[reference]), "--as", release.writer)

    kube.delete("configmap", "owner", release.served)

    wait_for(
        lambda: kube.get("controllerrevision", "owned-1", release.served) is None, seconds=60, what="the collector"
    )


def with_secret(name: str, url: str = "https://git.example.com/a.git") -> dict[str, Any]:
    least = next(case for case in cases() if str(case) == "ModelDeployment-least").manifest
    source = {"git": {"url": url, "secretName": "deploy-key"}}
    return {**least, "metadata": {"name": name}, "spec": {**least["spec"], "source": source}}


def test_who_names_a_secret_must_be_allowed_to_read_it(release: Release) -> None:
    kube, where = release.kube, ("-n", release.served)
    kube.run(
        "create",
        "role",
        "deployer",
        *where,
        "--verb=get,create,update,patch",
        "--resource=modeldeployments.slipway.dev",
    )
    kube.run("create", "rolebinding", "deployer", *where, "--role=deployer", "--user=ann", "--user=ben")
    kube.run("create", "role", "reader", *where, "--verb=get", "--resource=secrets", "--resource-name=deploy-key")
    kube.run("create", "rolebinding", "reader", *where, "--role=reader", "--user=ann")

    eventually_refused(
        lambda: release.create(with_secret("private"), "--as", "ben", "--dry-run=server"),
        f"ben may not read: the verb get on secrets/deploy-key in namespace {release.served} is missing",
    )
    release.create(with_secret("private"), "--as", "ann")

    # Ben may change what has nothing to do with it, and not where its content is sent.
    change = ("patch", "modeldeployment", "private", *where, "--as", "ben", "--type=merge", "-p")
    kube.run(*change, '{"spec":{"serving":{"replicas":2},"source":{"git":{"ref":"v2"}}}}')
    with pytest.raises(KubectlError, match="ben may not read"):
        kube.run(*change, '{"spec":{"source":{"git":{"url":"https://thief.example.com/a.git"}}}}')
    with pytest.raises(KubectlError, match="ben may not read"):
        kube.run(*change, '{"spec":{"source":{"git":{"secretName":"another"}}}}')
    kube.run(*change, '{"spec":{"source":{"git":{"secretName":null}}}}')
    kube.delete("modeldeployment", "private", release.served)


def test_who_names_a_secret_of_serving_must_be_allowed_to_read_it(release: Release) -> None:
    kube, where = release.kube, ("-n", release.served)
    least = next(case for case in cases() if str(case) == "ModelDeployment-least").manifest
    guarded = {**least, "metadata": {"name": "guarded"}}
    guarded["spec"] = {**least["spec"], "serving": {"tls": {"secretName": "tls"}, "apiKeys": {"secretName": "keys"}}}
    who = ("--user=cat", "--user=dan")
    rights = ("--verb=get,create,update,patch", "--resource=modeldeployments.slipway.dev")
    kube.run("create", "role", "server", *where, *rights)
    kube.run("create", "rolebinding", "server", *where, "--role=server", *who)
    readable = ("--resource-name=tls", "--resource-name=keys")
    kube.run("create", "role", "key-reader", *where, "--verb=get", "--resource=secrets", *readable)
    kube.run("create", "rolebinding", "key-reader", *where, "--role=key-reader", "--user=cat")

    eventually_refused(
        lambda: release.create(guarded, "--as", "dan", "--dry-run=server"),
        f"spec.serving names the Secret tls, which dan may not read: the verb get on secrets/tls in namespace "
        f"{release.served} is missing",
    )
    release.create(guarded, "--as", "cat")

    change = ("patch", "modeldeployment", "guarded", *where, "--as", "dan", "--type=merge", "-p")
    kube.run(*change, '{"spec":{"serving":{"replicas":2,"accessLog":true}}}')
    with pytest.raises(KubectlError, match="names the Secret callers, which dan may not read"):
        kube.run(*change, '{"spec":{"serving":{"tls":{"clientCASecretName":"callers"}}}}')
    kube.run(*change, '{"spec":{"serving":{"apiKeys":null}}}')
    kube.delete("modeldeployment", "guarded", release.served)


def test_uninstalling_hangs_on_nothing_and_keeps_the_models(release: Release) -> None:
    kube = release.kube
    kept = with_secret("kept")
    del kept["spec"]["source"]["git"]["secretName"]
    release.create(kept)

    release.helm("uninstall", release.name, "--wait", "--timeout", "2m")

    found = kube.get("modeldeployment", "kept", release.served)
    assert found is not None
    assert "finalizers" not in found["metadata"]
    assert kube.get("crd", "modeldeployments.slipway.dev") is not None
    assert kube.get("validatingadmissionpolicy", f"{release.name}-{release.home}-log") is None

    def nothing_is_left() -> bool:
        left = kube.run("get", "all,configmap,serviceaccount,networkpolicy", "-n", release.home, "-o", "name").split()
        return not [name for name in left if release.name in name]

    wait_for(nothing_is_left, seconds=60, what="the operator's pod to end")
    # Nobody is there to take a finalizer away, and nobody is needed.
    kube.run("delete", "modeldeployment", "kept", "-n", release.served, "--timeout=30s", timeout=60)


def test_the_chart_names_no_path_of_this_machine() -> None:
    for path in sorted(CHART.rglob("*")):
        if path.is_file():
            assert str(Path.home()) not in path.read_text(encoding="utf-8"), path
