"""A build's three containers against a real Git server, package index and registry."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slipway_operator.builder import build, package
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.export import model_image
from slipway_operator.builder.images import push_artifact
from slipway_operator.builder.layers import write_layer
from slipway_operator.builder.registry import RegistryClient
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.requests import (
    BuildRequest,
    Built,
    GitSource,
    Interpreter,
    PackageList,
    PackageSource,
    ProjectLock,
    Registry,
)

from .conftest import registry_in

CLIENT = RegistryClient(insecure=True)


@pytest.fixture(scope="session")
def interpreter(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    """A stand-in for the platform's interpreter: two images of one small file each."""
    root = tmp_path_factory.mktemp("interpreter")
    images = []
    for name in ("base", "tools"):
        tree = root / name
        tree.mkdir()
        (tree / name).write_text(name)
    base = push_artifact(
        CLIENT, model_image(root / "base", root / "base.tgz"), f"{registry}/slipway/base:1", root / "base.layout"
    )
    images.append(f"{registry}/slipway/base@{base}")
    write_layer(root / "tools", "opt/slipway", root / "tools.tgz")
    tools = CLIENT.append(images[0], [root / "tools.tgz"], f"{registry}/slipway/tools:1")
    return Interpreter(python="3.11", base=images[0], tools=f"{registry}/slipway/tools@{tools}")


Run = Callable[..., Built]


@pytest.fixture
def building(registry, interpreter, index, origin, place) -> tuple[Callable[..., BuildRequest], Run]:
    """A function that makes a request, and one that runs the three containers in fresh volumes."""
    counter = iter(range(100))

    def request(**changes) -> BuildRequest:
        asked = BuildRequest(
            namespace="team",
            name=origin.name,
            source=GitSource(url=origin.url, ref="main"),
            lock=ProjectLock(lock_file="requirements.txt"),
            interpreter=interpreter,
            registry=Registry(prefix=f"{registry}/{origin.name}", insecure=True),
        )
        return asked.model_copy(update=changes)

    def run(**changes) -> Built:
        asked = request(**changes)
        here = _fresh(place, next(counter), UV_DEFAULT_INDEX=index.url)
        build.fetch(asked, here)
        build.run(asked, replace(here, handover=Path("/nonexistent"), secrets=Path("/nonexistent")))
        return build.push(asked, here)

    return request, run


def _fresh(place: Workplace, number: int, **variables: str) -> Workplace:
    root = place.work.parent / str(number)
    for name in ("work", "handover"):
        (root / name).mkdir(parents=True)
    return replace(
        place, work=root / "work", handover=root / "handover", variables={**os.environ, **place.variables, **variables}
    )


def layers(image: str) -> list[str]:
    return [layer["digest"] for layer in CLIENT.manifest(image)["layers"]]


def files(image: str, number: int) -> dict[str, tarfile.TarInfo]:
    """The entries of one layer of an image."""
    blob = CLIENT.blob(f"{image.rpartition('@')[0]}@{layers(image)[number]}")
    with tarfile.open(fileobj=io.BytesIO(blob)) as layer:
        return {member.name: member for member in layer}


def test_from_a_commit_to_images(building, origin, index, registry):
    digest = index.add_wheel("tiny", "1.0")
    origin.write("requirements.txt", f"tiny==1.0 --hash={digest}\n")
    origin.write("src/app.py", "import tiny\n")
    commit = origin.commit()
    _, run = building

    built = run()

    assert built.commit == commit
    assert not built.reused
    project = f"{registry}/{origin.name}/team/{origin.name}"
    image, export = f"{project}@{built.image}", f"{project}@{built.export_image}"
    environment = f"{registry}/{origin.name}/environments@{built.environment}"
    # Each image is the one before and one layer more.
    assert layers(environment) == layers(image)[:2] == layers(export)[:2]
    assert layers(image) == layers(export)[:3]
    assert len(layers(export)) == 4
    config = CLIENT.config(export)
    assert len(config["rootfs"]["diff_ids"]) == 4
    assert config["config"]["WorkingDir"] == "/opt/project"
    assert config["config"]["User"] == "65532:65532"
    assert "PYTHONPATH=/opt/project/src:/opt/project" in config["config"]["Env"]
    code = files(image, 2)
    assert code["opt/project/src/app.py"].uid == 65532
    assert code["opt/project/src/app.py"].mtime == 0
    installed = files(environment, 1)
    site = "opt/env/lib/python3.11/site-packages"
    assert f"{site}/tiny.py" in installed
    assert f"{site}/__pycache__/tiny.cpython-311.pyc" in installed
    assert installed["opt/env/bin/python"].issym()
    assert "opt/env/bin/tiny-run" in installed
    artifact = CLIENT.manifest(f"{project}@{built.package}")
    assert artifact["artifactType"] == package.ARTIFACT_TYPE


def test_a_script_starts_without_a_shell(building, origin, index, registry):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    _, run = building

    environment = f"{registry}/{origin.name}/environments@{run().environment}"

    blob = CLIENT.blob(f"{environment.rpartition('@')[0]}@{layers(environment)[1]}")
    with tarfile.open(fileobj=io.BytesIO(blob)) as layer:
        script = layer.extractfile("opt/env/bin/tiny-run")
        assert script is not None
        assert script.read().startswith(b"#!/opt/env/bin/python\n")


def test_a_code_change_moves_only_the_code(building, origin, index, registry):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.write("app.py", "x = 1\n")
    origin.commit()
    _, run = building
    first = run()
    origin.write("app.py", "x = 2\n")
    origin.commit()

    second = run()

    assert second.reused
    assert second.environment == first.environment
    project = f"{registry}/{origin.name}/team/{origin.name}"
    before, after = layers(f"{project}@{first.export_image}"), layers(f"{project}@{second.export_image}")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]


@pytest.fixture
def cleaned(building, origin, index, tmp_path_factory):
    """A project on a registry that lets Slipway delete, built once, and what a second build's first container found."""
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    request, run = building
    with registry_in(tmp_path_factory.mktemp("deleting"), deletes=True) as address:
        asked = request(registry=Registry(prefix=f"{address}/models", insecure=True))
        built = run(registry=asked.registry)
        yield asked, f"{asked.registry.prefix}/environments@{built.environment}"


def test_an_environment_that_is_cleaned_up_during_a_build_is_made_again(cleaned, place, index):
    asked, environment = cleaned
    here = _fresh(place, 50, UV_DEFAULT_INDEX=index.url)
    build.fetch(asked, here)
    CLIENT.delete(environment)

    with pytest.raises(StepFailed, match="EnvironmentMissing") as failed:
        build.push(asked, here)

    assert failed.value.retry
    again = _fresh(place, 51, UV_DEFAULT_INDEX=index.url)
    build.fetch(asked, again)
    assert not build.push(asked, again).reused
    assert CLIENT.exists(environment)


def test_an_environment_that_goes_after_the_push_is_noticed(cleaned, place, index, monkeypatch):
    asked, environment = cleaned
    here = _fresh(place, 50, UV_DEFAULT_INDEX=index.url)
    build.fetch(asked, here)
    append = RegistryClient.append

    def append_then_lose(self, *arguments, **named):
        pushed = append(self, *arguments, **named)
        CLIENT.delete(environment)
        return pushed

    monkeypatch.setattr(RegistryClient, "append", append_then_lose)

    with pytest.raises(StepFailed, match="EnvironmentMissing"):
        build.push(asked, here)


def test_two_builds_of_one_commit_give_one_digest(building, origin, index):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.write("app.py", "x = 1\n")
    origin.commit()
    request, run = building
    first = run()
    elsewhere = request().registry.model_copy(update={"prefix": request().registry.prefix + "/again"})

    second = run(registry=elsewhere)

    assert not second.reused
    assert second.model_dump() == first.model_dump()


def test_two_projects_with_one_lock_share_the_environment(building, origin, index):
    origin.write("requirements.txt", f"# one\ntiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    _, run = building
    first = run()
    origin.write("requirements.txt", f"tiny==1.0 \\\n    --hash={index.hashes['tiny-1.0-py3-none-any.whl']}\n")
    origin.commit()

    second = run(name="another")

    assert second.reused
    assert second.environment == first.environment
    assert second.lock != first.lock


def test_a_package_in_the_registry_builds_as_its_commit_does(building, origin, index, registry):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    commit = origin.commit()
    _, run = building
    first = run()
    reference = f"{registry}/{origin.name}/team/{origin.name}@{first.package}"

    second = run(source=PackageSource(image=reference), name="from-package")

    assert second.package == first.package
    assert second.environment == first.environment
    assert second.commit == first.package
    assert commit == first.commit


def test_an_image_is_no_package(building, interpreter):
    _, run = building

    with pytest.raises(StepFailed, match="PackageInvalid"):
        run(source=PackageSource(image=interpreter.base))


def test_a_common_package_list(building, origin, index, place):
    (place.settings / "package-list.txt").write_text(f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.write("app.py")
    origin.commit()
    _, run = building

    assert run(lock=PackageList(name="default", version="1")).environment.startswith("sha256:")


SDIST = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": """
import pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "fromsource-2.0-py3-none-any.whl"
    info = "fromsource-2.0.dist-info"
    files = {"fromsource.py": "VERSION = 2\\n",
             info + "/METADATA": "Metadata-Version: 2.1\\nName: fromsource\\nVersion: 2.0\\n",
             info + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
             info + "/RECORD": ""}
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
""",
}


def sdist(index, **changes: str) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in {**SDIST, **{k.replace("_py", ".py"): v for k, v in changes.items()}}.items():
            entry = tarfile.TarInfo(f"fromsource-2.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return index.add("fromsource", "fromsource-2.0.tar.gz", out.getvalue())


def test_what_exists_only_as_source_is_built_and_not_shared(building, origin, index, registry):
    wheel = index.add_wheel("tiny")
    origin.write("requirements.txt", f"fromsource==2.0 --hash={sdist(index)}\ntiny==1.0 --hash={wheel}\n")
    origin.commit()
    _, run = building

    built = run()

    project = f"{registry}/{origin.name}/team/{origin.name}"
    installed = files(f"{project}@{built.environment}", 1)
    site = "opt/env/lib/python3.11/site-packages"
    assert {f"{site}/fromsource.py", f"{site}/tiny.py"} <= set(installed)
    origin.write("app.py", "x = 1\n")
    origin.commit()
    again = run()
    assert again.reused
    assert again.environment == built.environment


def test_a_source_that_needs_a_compiler_says_so(building, origin, index):
    broken = "def build_wheel(*_):\n    raise SystemExit(\"error: command 'gcc' failed: No such file or directory\")\n"
    origin.write("requirements.txt", f"fromsource==2.0 --hash={sdist(index, backend_py=broken)}\n")
    origin.commit()
    _, run = building

    with pytest.raises(StepFailed) as failed:
        run()

    assert failed.value.reason == "CompilerMissing"
    assert "fromsource" in failed.value.message


def test_a_link_that_code_left_behind_is_not_followed(building, origin, index, place):
    origin.write("requirements.txt", f"fromsource==2.0 --hash={sdist(index)}\n")
    origin.commit()
    request, _ = building
    here = _fresh(place, 50, UV_DEFAULT_INDEX=index.url)
    build.fetch(request(), here)
    secret = place.work.parent / "credential"
    secret.mkdir()
    (secret / "token").write_text("hunter2")
    environment = here.work / "rootfs" / "opt" / "env"
    environment.rename(here.work / "moved")
    environment.symlink_to(secret)

    with pytest.raises(StepFailed, match="EnvironmentMissing"):
        build.push(request(), here)


@pytest.mark.parametrize(
    ("lines", "reason", "retry"),
    [
        pytest.param("tiny==1.0\n", "LockFileNotHashed", False, id="unhashed"),
        pytest.param("-r other.txt\n", "LockFileUnsupported", False, id="include"),
        pytest.param("tiny==1.0 --hash=sha256:" + "0" * 64, "HashMismatch", False, id="other-bytes"),
        pytest.param("tiny==9.9 --hash={tiny}", "PackageNotAvailable", False, id="no-such-version"),
        pytest.param("absent==1.0 --hash={tiny}", "PackageNotAvailable", False, id="no-such-package"),
        pytest.param("mac==1.0 --hash={mac}", "PackageNotAvailable", False, id="other-platform"),
        pytest.param("-e ./x --hash={tiny}", "LockFileUnsupported", False, id="editable"),
    ],
)
def test_what_is_wrong_with_a_lock_has_its_reason(building, origin, index, lines, reason, retry):
    hashes = {"tiny": index.add_wheel("tiny"), "mac": index.add_wheel("mac", tag="cp311-cp311-macosx_11_0_arm64")}
    origin.write("requirements.txt", lines.format(**hashes) if "{" in lines else lines)
    origin.commit()
    _, run = building

    with pytest.raises(StepFailed) as failed:
        run()

    assert (failed.value.reason, failed.value.retry) == (reason, retry), failed.value.message


def test_a_missing_lock_file_says_which_ones_are_there(building, origin):
    origin.write("poetry.lock")
    origin.write("app.py")
    origin.commit()
    _, run = building

    with pytest.raises(StepFailed, match=r"poetry\.lock") as failed:
        run(lock=ProjectLock())

    assert failed.value.reason == "LockFileMissing"


def test_a_file_that_the_spec_names_is_missed_before_the_build(building, origin):
    origin.write("app.py")
    origin.commit()
    _, run = building

    with pytest.raises(StepFailed, match=r"data/sample\.csv") as failed:
        run(required_files=("data/sample.csv",))

    assert failed.value.reason == "RequiredFileMissing"


def test_an_index_that_is_down_is_asked_again(building, origin, index, place):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    request, _ = building
    here = _fresh(place, 60, UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_HTTP_RETRIES="0")

    with pytest.raises(StepFailed) as failed:
        build.fetch(request(), here)

    assert (failed.value.reason, failed.value.retry) == ("IndexUnavailable", True)


def test_a_registry_that_is_down_is_asked_again(building, origin, index, place):
    origin.write("requirements.txt", f"tiny==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    request, _ = building
    here = _fresh(place, 70, UV_DEFAULT_INDEX=index.url)

    with pytest.raises(StepFailed) as failed:
        build.fetch(request(registry=Registry(prefix="127.0.0.1:9/x", insecure=True)), here)

    assert (failed.value.reason, failed.value.retry) == ("RegistryUnavailable", True)


def test_no_password_of_an_index_is_shown(building, origin, index, place):
    origin.write("requirements.txt", f"absent==1.0 --hash={index.add_wheel('tiny')}\n")
    origin.commit()
    request, _ = building
    (place.secrets / "index").mkdir()
    (place.secrets / "index" / "username").write_text("me")
    (place.secrets / "index" / "password").write_text("hunter2\n")
    here = _fresh(place, 80, UV_DEFAULT_INDEX=index.url)

    with pytest.raises(StepFailed) as failed:
        build.fetch(request(), here)

    assert "hunter2" not in json.dumps([failed.value.reason, failed.value.message])
