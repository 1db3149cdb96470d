"""What the log names in a real registry, pushed by the builder itself: to disk, compared, installed; and deployed."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.servers import find_program, registry
from slipway_operator.builder import export, package, training
from slipway_operator.builder.laptop import package_folder
from slipway_operator.builder.oci import write_layout
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Limits, Workplace
from slipway_operator.domain.requests import ExportRequest, Registry, TrainRequest

PYTHON = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture(scope="module", autouse=True)
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback, with crane and uv on the PATH."""
    programs = {name: find_program(name) for name in ("docker-registry", "crane", "uv")}
    missing = [name for name, path in programs.items() if path is None]
    assert not missing, f"{missing} are missing: make unit installs them"
    before = os.environ["PATH"]
    os.environ["PATH"] = ":".join([*(str(Path(str(path)).parent) for path in programs.values()), before])
    try:
        with registry(str(programs["docker-registry"]), tmp_path_factory.mktemp("registry")) as found:
            yield found
    finally:
        os.environ["PATH"] = before


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A package index with two versions of one package: its URL, and the hashes by version."""
    hashes = {}
    folder = tmp_path / "index" / "tiny"
    folder.mkdir(parents=True)
    for version in ("1.0", "1.1"):
        path = folder / f"tiny-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny.py", f"VERSION = {version!r}\n")
            info = f"tiny-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        hashes[version] = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    (folder / "index.html").write_text(
        "".join(f'<a href="tiny-{v}-py3-none-any.whl#sha256={h[7:]}">tiny-{v}</a>\n' for v, h in hashes.items())
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "index"))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", hashes
    server.shutdown()
    thread.join()
    server.server_close()


def write_project(folder: Path, version: str, pin: str) -> Path:
    """A project in a plain folder, its lock a hashed requirements.txt."""
    (folder / "data").mkdir(parents=True)
    (folder / "train.py").write_text(f"print({version!r})\n")
    (folder / "data" / "sample.csv").write_text("distance\n1\n")
    (folder / "requirements.txt").write_text(pin)
    return folder


def build(root: Path, project: Path, to: Registry, features: list[str]) -> dict[str, str]:
    """What the Jobs of a cluster do, up to the digests of a content."""
    made = package_folder(project, root / "package.zip")
    layout = root / "layout"
    digest = write_layout(layout, made.artifact())
    RegistryClient(insecure=True).push_layout(layout, f"{to.prefix}/airline/flight-delay:p-{made.sha256[:20]}")
    place = Workplace(
        work=root / "work",
        handover=root / "work",
        settings=root / "settings",
        secrets=root / "secrets",
        variables={"PATH": os.environ["PATH"]},
    )
    (place.work / "trained").mkdir(parents=True)
    (place.work / "model").mkdir()
    (place.work / "trained" / "model.joblib").write_bytes(b"model" + features[-1].encode())
    (place.work / "trained" / "metrics.json").write_text('{"auc": 0.7}')
    (place.work / "train.log").write_text("epoch 1\nepoch 2\n")
    (place.work / "train.json").write_text('{"seconds": 1.5}')
    common: dict[str, Any] = {"namespace": "airline", "name": "flight-delay", "registry": to, "timeout_seconds": 60}
    trained = training.push_trained(
        TrainRequest(**common, command=("python",), model_path="model.joblib", metrics_path="metrics.json"), place
    )
    onnx = b"onnx" + features[-1].encode()
    inputs = [{"name": name, "datatype": "FP32", "shape": [-1, 1], "kind": "number"} for name in features]
    signature = {"inputs": inputs, "outputs": [], "task": "classification", "producer": {"python": PYTHON}}
    certificate = {
        "rows": 3,
        "maxAbsoluteDifference": 0.0,
        "labelFlips": 0,
        "digests": {"model": trained.model, "onnx": f"sha256:{hashlib.sha256(onnx).hexdigest()}"},
    }
    (place.work / "model" / "model.onnx").write_bytes(onnx)
    for name, value in (("signature", signature), ("examples", {}), ("certificate", certificate)):
        (place.work / "model" / f"{name}.json").write_text(json.dumps(value))
    exported = export.push_model(
        ExportRequest(
            **common,
            model_path="model.joblib",
            trained=trained.artifact,
            example="data/sample.csv",
            max_absolute_difference=1e-5,
            max_label_flips=0,
        ),
        place,
    )
    return {
        "commit": "none",
        "package": digest,
        "lock": f"sha256:{hashlib.sha256((project / 'requirements.txt').read_bytes()).hexdigest()}",
        "model": exported.model,
        "onnx": exported.onnx,
        "modelImage": exported.image,
        "artifact": exported.artifact,
        "signature": exported.signature,
        "trained": trained.artifact,
    }


@pytest.fixture
def published(api, make, address, index, tmp_path, monkeypatch):
    """Two revisions, of which all is in the registry; their log entries are on the API server."""
    url, hashes = index
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    to = Registry(prefix=f"{address}/{tmp_path.name.lower()}", insecure=True)
    environment = {"isolation": "Project", "lockFile": "requirements.txt"}
    for number, content, version, features in (
        (1, make.OLD, "1.0", ["distance"]),
        (2, make.NEW, "1.1", ["distance", "carrier"]),
    ):
        root = tmp_path / f"revision-{number}"
        pin = f"tiny=={version} --hash={hashes[version]}\n"
        digests = build(root, write_project(root / "project", version, pin), to, features)
        spec = {"environment": environment, "source": {"git": {"ref": f"v{number}"}}}
        entry = make.entry(number, content, digests=digests, spec=spec, repository=f"{to.prefix}/airline/flight-delay")
        api.put(f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions", make.revision(entry))
    return to


@pytest.mark.usefixtures("published")
def test_pull_brings_what_was_exported(slipway, tmp_path):
    target = tmp_path / "pulled"

    ended = slipway("pull", "flight-delay", "--to", str(target), "--insecure")

    assert ended.code == 0, ended.err
    assert (target / "model.onnx").read_bytes() == b"onnxcarrier"
    assert sorted(path.name for path in target.iterdir()) == [
        "certificate.json",
        "examples.json",
        "model.onnx",
        "signature.json",
    ]
    assert f"sha256:{hashlib.sha256(b'onnxcarrier').hexdigest()}  {target}/model.onnx" in ended.out


def test_a_registry_that_has_another_name_here(published, api, make, slipway, tmp_path):
    """The cluster's own name for it is in the log, and the person's machine knows another one."""
    path = f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions/flight-delay-2"
    api.objects[path]["data"]["repository"] = "registry.cluster.test:5000/models/airline/flight-delay"

    ended = slipway("pull", "flight-delay", "--to", str(tmp_path / "x"), "--registry", published.prefix, "--insecure")

    assert ended.code == 0, ended.err


@pytest.mark.usefixtures("published")
def test_pull_brings_package_training_and_certificate_of_any_revision(slipway, tmp_path):
    target = tmp_path / "pulled"
    for what in ("package", "training", "certificate"):
        ended = slipway("pull", "flight-delay", what, "--revision", "previous", "--to", str(target), "--insecure")
        assert ended.code == 0, ended.err

    assert (
        package.text_of(package.read_package(target / "package.zip", limits=Limits()), "train.py") == b"print('1.0')\n"
    )
    assert (target / "model.joblib").read_bytes() == b"modeldistance"
    assert json.loads((target / "metrics.json").read_text()) == {"auc": 0.7}
    assert json.loads((target / "certificate.json").read_text())["rows"] == 3
    assert not list(target.glob(".*"))


@pytest.mark.usefixtures("published")
def test_a_model_that_is_not_the_logs_is_refused(api, make, slipway, tmp_path):
    path = f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions/flight-delay-2"
    api.objects[path]["data"]["digests"]["onnx"] = make.digest("f")

    ended = slipway("pull", "flight-delay", "--to", str(tmp_path / "pulled"), "--insecure")

    assert ended.code == 1
    assert "the log says sha256:ffff" in ended.err
    assert not list((tmp_path / "pulled").iterdir())


@pytest.mark.usefixtures("published")
def test_a_registry_that_lost_the_model_is_named(api, make, slipway, tmp_path):
    path = f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions/flight-delay-2"
    api.objects[path]["data"]["digests"]["artifact"] = make.digest("e")

    ended = slipway("pull", "flight-delay", "--to", str(tmp_path / "pulled"), "--insecure")
    assert (ended.code, "ImageNotFound" in ended.err) == (1, True)
    examined = slipway("doctor", "flight-delay", "--insecure")
    assert "the model of flight-delay in the registry" in examined.out
    assert examined.code == 4


@pytest.mark.usefixtures("published")
def test_diff_reads_packages_and_schema_from_the_registry(slipway):
    found = json.loads(slipway("diff", "flight-delay", "-o", "json", "--insecure").out)

    assert (found["before"], found["after"], found["problems"]) == (1, 2, [])
    sections = found["sections"]
    assert sections["packages"] == [{"name": "tiny", "before": "1.0", "after": "1.1"}]
    assert sections["features"] == [{"name": "carrier", "before": None, "after": "FP32 number"}]
    assert [change["name"] for change in sections["code"]] == ["requirements.txt", "train.py"]
    assert sections["data"] == []


@pytest.mark.usefixtures("published")
def test_env_is_what_production_installed(slipway, tmp_path):
    target = tmp_path / "env"

    ended = slipway("env", "flight-delay", "--revision", "1", "--to", str(target), "--code", "--insecure")

    assert ended.code == 0, ended.err
    python = target / ".venv" / "bin" / "python"
    said = subprocess.run(
        [python, "-c", "import tiny; print(tiny.VERSION)"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "1.0\n"
    assert (target / "train.py").read_text() == "print('1.0')\n"
    assert f"1 packages of requirements.txt, Python {PYTHON}" in ended.out


@pytest.mark.usefixtures("published")
def test_env_takes_no_file_that_the_lock_does_not_know(index, slipway, tmp_path):
    wheel = tmp_path / "index" / "tiny" / "tiny-1.1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"!")
    page = tmp_path / "index" / "tiny" / "index.html"
    page.write_text(page.read_text().replace(index[1]["1.1"][7:], hashlib.sha256(wheel.read_bytes()).hexdigest()))

    ended = slipway(
        "env", "flight-delay", "--to", str(tmp_path / "env"), "--insecure", UV_CACHE_DIR=str(tmp_path / "c")
    )

    assert ended.code == 1
    assert "uv pip sync failed" in ended.err


@pytest.mark.usefixtures("published")
def test_a_lock_that_is_not_the_logs_makes_no_environment(api, make, slipway, tmp_path):
    path = f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions/flight-delay-2"
    api.objects[path]["data"]["digests"]["lock"] = make.digest("f")

    ended = slipway("env", "flight-delay", "--to", str(tmp_path / "env"), "--insecure")

    assert ended.code == 1
    assert "requirements.txt has changed since revision 2" in ended.err


@pytest.mark.usefixtures("published")
def test_the_log_of_a_training_outlives_its_job(slipway):
    assert slipway("logs", "flight-delay", "train", "--insecure").out == "epoch 1\nepoch 2\n"


MANIFEST = """\
apiVersion: slipway.dev/v1alpha1
kind: ModelDeployment
metadata: {name: flight-delay, labels: {team: air}}
spec:
  source: {git: {url: "https://git.test/delay.git", ref: main}}
  environment: {lockFile: requirements.txt}
  model: {path: model.joblib, example: data/sample.csv}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with its ModelDeployment."""
    project = write_project(tmp_path / "mine", "2.0", "tiny==1.0 --hash=sha256:00\n")
    (project / "modeldeployment.yaml").write_text(MANIFEST)
    return project


def answers(api, make) -> None:
    """Let the operator be ready with whatever was written last."""

    def operator(path: str, manifest: dict[str, Any]) -> None:
        status = make.resource()["status"] | {"observedGeneration": manifest["metadata"]["generation"]}
        api.objects[path] = {**manifest, "status": status}

    api.operator = operator


def test_deploy_packages_pushes_applies_and_follows(folder, api, make, address, slipway):
    del api.objects[f"{make.COLLECTION}/flight-delay"]
    answers(api, make)

    ended = slipway("deploy", str(folder), "--push", f"{address}/mine/delay", "--insecure")

    assert ended.code == 0, ended.err
    ((path, query, content, body),) = api.writes
    image = body["spec"]["source"]["package"]["image"]
    assert (path, query["fieldManager"], content) == (
        f"{make.COLLECTION}/flight-delay",
        "slipway-cli",
        "application/apply-patch+yaml",
    )
    assert set(body["spec"]["source"]) == {"package"}
    assert body["metadata"] == {"labels": {"team": "air"}, "name": "flight-delay", "namespace": "airline"}
    assert RegistryClient(insecure=True).digest(image) == image.partition("@")[2]
    assert "flight-delay: revision 2 answers" in ended.out


def test_deploy_leaves_a_source_in_git_alone_unless_it_is_forced(folder, api, make, address, slipway):
    api.objects[f"{make.COLLECTION}/flight-delay"]["metadata"]["managedFields"] = [
        {"manager": "argocd-controller", "fieldsV1": {"f:spec": {"f:source": {}}}}
    ]
    answers(api, make)
    words = ["deploy", str(folder), "--push", f"{address}/mine/delay", "--insecure"]

    refused = slipway(*words)
    assert refused.code == 1
    assert "takes its project from git https://git.test/delay.git v2 (written by argocd-controller)" in refused.err
    assert api.writes == []

    assert slipway(*words, "--force").code == 0
    merged, applied = api.writes
    assert merged[3]["spec"]["source"] == {"git": None, "svn": None, "package": applied[3]["spec"]["source"]["package"]}
    assert applied[1]["force"] == "true"
    assert set(api.objects[f"{make.COLLECTION}/flight-delay"]["spec"]["source"]) == {"package"}


OURS = '"slipway-cli" using slipway.dev/v1alpha1 at 2026-11-24T12:00:00Z'
IMAGE = ".spec.source.package.image"


def test_deploy_does_not_conflict_with_the_patch_of_a_forced_one(folder, api, make, address, slipway):
    """`deploy --force` leaves the source to two entries of the same manager: of its patch, and of its apply."""
    api.objects[f"{make.COLLECTION}/flight-delay"]["spec"]["source"] = {"package": {"image": "reg.test/x@sha256:00"}}
    api.managers = {IMAGE: OURS}
    answers(api, make)

    ended = slipway("deploy", str(folder), "--push", f"{address}/mine/delay", "--insecure")

    assert ended.code == 0, ended.err
    assert [query["force"] for _, query, *_ in api.writes] == ["false", "true"]


@pytest.mark.parametrize(
    "managers",
    [
        pytest.param({IMAGE: '"argocd-controller"'}, id="another-manager"),
        pytest.param({IMAGE: OURS, ".spec.serving.replicas": '"helm"'}, id="another-manager-too"),
        pytest.param({".metadata.annotations.slipway.dev/paused": OURS}, id="what-somebody-asked-for"),
    ],
)
def test_deploy_takes_nothing_over_unless_it_is_forced(managers, folder, api, make, address, slipway):
    api.objects[f"{make.COLLECTION}/flight-delay"]["spec"]["source"] = {"package": {"image": "reg.test/x@sha256:00"}}
    api.managers = managers

    ended = slipway("deploy", str(folder), "--push", f"{address}/mine/delay", "--insecure")

    assert ended.code == 1
    assert "somebody else manages some of these fields; --force takes them over: Apply failed with" in ended.err
    assert [query["force"] for _, query, *_ in api.writes] == ["false"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda p: (p / "modeldeployment.yaml").unlink(), "has no slipway.yaml or", id="no-manifest"),
        pytest.param(lambda p: (p / "modeldeployment.yaml").write_text("a: ["), "is not YAML", id="no-yaml"),
        pytest.param(lambda p: (p / "modeldeployment.yaml").write_text("a: 1"), "holds 0 ModelDeployments", id="other"),
        pytest.param(
            lambda p: (p / "modeldeployment.yaml").write_text("kind: ModelDeployment"), "has no name", id="no-name"
        ),
    ],
)
def test_a_folder_that_cannot_be_deployed_says_why(change, words, folder, api, slipway):
    change(folder)

    ended = slipway("deploy", str(folder), "--push", "reg.test/x")

    assert (ended.code, words in ended.err) == (1, True), ended.err
    assert api.writes == []
