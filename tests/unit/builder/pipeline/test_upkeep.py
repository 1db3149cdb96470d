"""Asking a real registry for a content, and deleting from it what nothing needs any more."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.ports import free_port
from slipway_operator.builder import __main__ as slipway_builder
from slipway_operator.builder import answers, export, oci, training
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.layers import write_layer
from slipway_operator.builder.registry import RegistryClient, faults_in
from slipway_operator.builder.remove import remove
from slipway_operator.builder.verify import verify
from slipway_operator.builder.workplace import Workplace
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import (
    ExportRequest,
    LiveModel,
    Message,
    Registry,
    RemoveRequest,
    TrainRequest,
    Verified,
    VerifyRequest,
)

from .conftest import add_secret, make_place, registry_in

CLIENT = RegistryClient(insecure=True)
SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "distance", "datatype": "FP32", "shape": [-1, 1], "kind": "number"}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
    "columns": ["distance"],
    "classes": [0, 1],
}


@dataclass(frozen=True)
class Store:
    """A registry that can be damaged, with one project's things in it."""

    root: Path
    prefix: str

    @property
    def registry(self) -> Registry:
        return Registry(prefix=self.prefix, insecure=True)

    @property
    def own(self) -> str:
        return f"{self.prefix}/team/flights"

    def lose_blob(self, digest: str) -> None:
        """What a disk loses, or a garbage collection that went wrong."""
        hexes = digest.removeprefix("sha256:")
        shutil.rmtree(self.root / "data/docker/registry/v2/blobs/sha256" / hexes[:2] / hexes)

    def image(self, name: str, target: str) -> str:
        """Push an image with one file that holds its name."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        (folder / "tree").mkdir()
        (folder / "tree" / "name").write_text(name)
        layers = [(folder / "layer.gz", write_layer(folder / "tree", "", folder / "layer.gz"))]
        oci.write_image(folder / "image", layers)
        return CLIENT.push_layout(folder / "image", target)

    def content(self, word: str, *, shared: bool = True, signature: Any = None) -> Content:
        """Push all that makes a content, by the verbs that do so in a Job where there are any."""
        folder = self.root / word
        place = make_place(folder)
        environment = self.image(
            f"environment {word}",
            f"{self.prefix}/environments:{word}" if shared else f"{self.own}:environment-{word}",
        )
        train = TrainRequest(
            namespace="team",
            name="flights",
            registry=self.registry,
            command=("python",),
            timeout_seconds=1,
            model_path="model.joblib",
        )
        (place.work / "trained").mkdir()
        (place.work / "trained" / "model.joblib").write_text(word)
        (place.work / "train.json").write_text('{"seconds": 1}')
        trained = training.push_trained(train, place)
        (place.work / "model").mkdir()
        for name, text in (
            ("model.onnx", f"onnx {word}"),
            ("signature.json", json.dumps(signature or SIGNATURE)),
            ("examples.json", "{}"),
        ):
            (place.work / "model" / name).write_text(text)
        certificate = {
            "rows": 1,
            "maxAbsoluteDifference": 0,
            "labelFlips": 0,
            "digests": {"model": trained.model, "onnx": oci.file_digest(place.work / "model" / "model.onnx")},
        }
        (place.work / "model" / "certificate.json").write_text(json.dumps(certificate))
        exported = export.push_model(
            ExportRequest(
                namespace="team",
                name="flights",
                registry=self.registry,
                model_path="model.joblib",
                trained=trained.artifact,
                example="x.csv",
                max_absolute_difference=0,
                max_label_flips=0,
            ),
            place,
        )
        return Content(
            commit=word,
            package=self.image(f"package {word}", f"{self.own}:package-{word}"),
            lock="sha256:" + "0" * 64,
            environment=environment,
            image=self.image(f"project {word}", f"{self.own}:project-{word}"),
            model=exported.model,
            onnx=exported.onnx,
            model_image=exported.image,
            artifact=exported.artifact,
            signature=exported.signature,
            runtime=f"{self.prefix}/slipway/runtime@{self.image('runtime', f'{self.prefix}/slipway/runtime:1')}",
            trained=trained.artifact,
        )

    def here(self, content: Content) -> Content:
        """A content that was pushed when the registry had another address."""
        return content.model_copy(
            update={"runtime": f"{self.prefix}/slipway/runtime@{content.runtime.rpartition('@')[2]}"}
        )

    def asking(self, content: Content, *, live: Content | None = None) -> VerifyRequest:
        return VerifyRequest(
            namespace="team",
            name="flights",
            registry=self.registry,
            content=content,
            live=LiveModel(repository=self.own, model_image=live.model_image, signature=live.signature)
            if live is not None
            else None,
        )

    def removing(self, *digests: str, environments: tuple[str, ...] = ()) -> RemoveRequest:
        return RemoveRequest(
            namespace="team", name="flights", registry=self.registry, digests=digests, environments=environments
        )

    def has(self, reference: str) -> bool:
        return CLIENT.exists(reference)


@pytest.fixture(scope="session")
def stock(registry: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Content, Content]:
    """A registry's files with two contents in them, pushed once (the shared registry puts crane on the PATH)."""
    del registry
    root = tmp_path_factory.mktemp("stock")
    with registry_in(root) as address:
        store = Store(root, f"{address}/models")
        return root / "data", store.content("a"), store.content("b")


@pytest.fixture
def store(stock: tuple[Path, Content, Content], tmp_path: Path) -> Iterator[Store]:
    """A registry of this test's own, with its own copy of the files, that lets Slipway delete."""
    shutil.copytree(stock[0], tmp_path / "data")
    with registry_in(tmp_path, deletes=True) as address:
        yield Store(tmp_path, f"{address}/models")


@pytest.fixture
def old(stock: tuple[Path, Content, Content], store: Store) -> Content:
    return store.here(stock[1])


@pytest.fixture
def new(stock: tuple[Path, Content, Content], store: Store) -> Content:
    return store.here(stock[2])


def layers_of(reference: str) -> list[str]:
    return [layer["digest"] for layer in CLIENT.manifest(reference)["layers"]]


@pytest.mark.parametrize("name", ["sp-500", "route-401", "payment-timeout"])
def test_a_registry_that_has_nothing_says_so_whatever_the_model_is_called(registry: str, name: str):
    assert not CLIENT.exists(f"{registry}/models/team-403/{name}:environment-ab")


def test_a_whole_content_is_there(store: Store, old: Content, place: Workplace):
    assert verify(store.asking(old), place) == Verified(asked=7, schema_fits=True)


def test_an_environment_with_built_packages_is_the_projects_own(store: Store, place: Workplace):
    content = store.content("c", shared=False)

    assert not store.has(f"{store.prefix}/environments@{content.environment}")
    assert verify(store.asking(content), place).missing == ()


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("image", "project image"),
        ("model_image", "model image"),
        ("artifact", "ModelPack artifact"),
        ("package", "package"),
        ("trained", "training artifact"),
    ],
)
def test_says_what_was_deleted(store: Store, old: Content, place: Workplace, field: str, name: str):
    digest = getattr(old, field)
    CLIENT.delete(f"{store.own}@{digest}")

    answer = verify(store.asking(old), place)

    assert answer.missing == (f"{name} {digest[:19]}",)


def test_a_deleted_environment_is_missing(store: Store, old: Content, place: Workplace):
    CLIENT.delete(f"{store.prefix}/environments@{old.environment}")

    assert verify(store.asking(old), place).missing == (f"environment image {old.environment[:19]}",)


def test_a_deleted_runtime_is_missing(store: Store, old: Content, place: Workplace):
    CLIENT.delete(old.runtime)

    (missing,) = verify(store.asking(old), place).missing
    assert missing.startswith("runtime image sha256:")


def test_a_manifest_without_its_layer_is_not_there(store: Store, old: Content, place: Workplace):
    store.lose_blob(layers_of(f"{store.own}@{old.model_image}")[0])

    answer = verify(store.asking(old), place)

    assert answer.missing == (f"model image {old.model_image[:19]} (one of its layers)",)


def test_a_manifest_without_its_config_is_not_there(store: Store, old: Content, place: Workplace):
    store.lose_blob(CLIENT.manifest(f"{store.own}@{old.image}")["config"]["digest"])

    assert verify(store.asking(old), place).missing == (f"project image {old.image[:19]} (its config)",)


def test_an_artifact_without_its_layers_is_not_there(store: Store, old: Content, place: Workplace):
    layers = layers_of(f"{store.own}@{old.artifact}")
    for digest in layers:
        store.lose_blob(digest)

    assert verify(store.asking(old), place).missing == (f"ModelPack artifact {old.artifact[:19]} (4 of its layers)",)


def test_the_answer_fits_a_termination_message_when_all_is_gone(store: Store, old: Content, place: Workplace):
    shutil.rmtree(store.root / "data")

    answer = verify(store.asking(old, live=old), place)

    assert len(answer.missing) == 7
    assert (answer.schema_fits, answer.schema_difference) == (
        None,
        "the schema is not compared: the target's model is gone",
    )
    assert len(answers.text_of(answer)) < 1024


def test_the_schema_of_equal_signatures_fits(store: Store, old: Content, new: Content, place: Workplace):
    assert verify(store.asking(old, live=new), place).schema_fits is True


def test_a_schema_that_does_not_fit_is_said(store: Store, old: Content, place: Workplace):
    carrier = {"name": "carrier", "datatype": "BYTES", "shape": [-1, 1]}
    more = {**SIGNATURE, "inputs": [*SIGNATURE["inputs"], carrier]}
    live = store.content("b", signature=more)

    answer = verify(store.asking(old, live=live), place)

    assert (answer.missing, answer.schema_fits) == ((), False)
    assert answer.schema_difference == 'callers send "carrier", which the target does not take'


def test_the_signature_is_read_from_the_model_image_where_the_artifact_is_gone(
    store: Store, old: Content, new: Content, place: Workplace
):
    CLIENT.delete(f"{store.own}@{old.artifact}")
    store.lose_blob(old.signature)

    answer = verify(store.asking(old, live=new), place)

    assert answer.schema_fits is True
    assert [text.split(" sha")[0] for text in answer.missing] == ["ModelPack artifact"]


def test_without_the_live_model_nothing_is_said_of_the_schema(store: Store, old: Content, place: Workplace):
    live = store.content("b", signature={**SIGNATURE, "task": "classification"})
    store.lose_blob(live.signature)
    CLIENT.delete(f"{store.own}@{live.model_image}")

    answer = verify(store.asking(old, live=live), place)

    assert (answer.missing, answer.schema_fits) == ((), None)
    assert "live" in answer.schema_difference


def test_a_signature_of_another_form_is_said(store: Store, new: Content, place: Workplace):
    odd = store.content("a", signature={"inputs": [], "outputs": []})

    answer = verify(store.asking(odd, live=new), place)

    assert answer.schema_fits is None
    assert "cannot be read at inputs" in answer.schema_difference


def test_long_names_in_a_difference_are_cut(store: Store, old: Content, place: Workplace):
    names = [f"{'é' * 4000}{number}" for number in range(3)]
    wide = {**SIGNATURE, "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in names]}

    answer = verify(store.asking(old, live=store.content("b", signature=wide)), place)

    assert answer.schema_fits is False
    assert len(answers.text_of(answer)) < 1024


def test_a_registry_that_is_down_proves_nothing(store: Store, old: Content, place: Workplace):
    down = Registry(prefix=f"127.0.0.1:{free_port()}/models", insecure=True)

    with pytest.raises(StepFailed) as failed:
        verify(store.asking(old).model_copy(update={"registry": down}), place)

    assert (failed.value.reason, failed.value.retry) == ("RegistryUnavailable", True)


def test_another_registry_that_does_not_answer_is_not_held_against_a_content(
    store: Store, old: Content, place: Workplace
):
    elsewhere = old.model_copy(update={"runtime": f"127.0.0.1:{free_port()}/runtime@{old.runtime.rpartition('@')[2]}"})

    answer = verify(store.asking(elsewhere), place)

    assert (answer.asked, answer.missing, answer.unasked) == (6, (), ("runtime image",))


LAYERS = "validating layers: layer does not exist"
GONE = "GET http://r/v2/a/blobs/sha256:x: BLOB_UNKNOWN: blob unknown to registry"


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("failed to read image r/a@x: GET http://r/v2/: MANIFEST_UNKNOWN: unknown", "all of it"),
        (LAYERS, "one of its layers"),
        (f"{LAYERS}\nlayer does not exist\n\nvalidating config: {GONE}", "2 of its layers, its config"),
        ("validating config: error verifying sha256 checksum after reading 5 bytes", "its config"),
        (f"validating children: {GONE}", "a part of it"),
    ],
)
def test_what_is_missing_by_what_is_said(said: str, lacks: str):
    assert faults_in("r/a@x", f"2026/11/24 12:00:00 pulling\nError: {said}\n") == lacks


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        # One question was not answered: that another one was is no reason to say that something is missing.
        (f"{LAYERS}\n\nvalidating config: GET http://r: unexpected status code 503", "RegistryUnavailable"),
        ("validating layers: HEAD http://r: unexpected status code 500\nlayer does not exist", "RegistryUnavailable"),
        (f"{LAYERS}\n\nvalidating config: GET http://r: UNAUTHORIZED: no", "RegistryAccessDenied"),
        ("something new", "RegistryRefused"),
        ("", "RegistryRefused"),
    ],
)
def test_an_answer_that_did_not_come_is_no_proof(said: str, reason: str):
    with pytest.raises(StepFailed) as failed:
        faults_in("r/a@x", f"Error: {said}\n")

    assert failed.value.reason == reason


def test_removes_by_digest_and_says_how_many(store: Store, old: Content, new: Content, place: Workplace):
    digests = (old.image, old.model_image, old.artifact, old.package, str(old.trained))

    answer = remove(store.removing(*digests, environments=(old.environment,)), place)

    assert (answer.removed, answer.gone, answer.refused) == (6, 0, "")
    assert not any(store.has(f"{store.own}@{digest}") for digest in digests)
    assert not store.has(f"{store.prefix}/environments:a")
    assert verify(store.asking(new), place).missing == ()


def test_removing_again_finds_all_gone(store: Store, old: Content, place: Workplace):
    request = store.removing(old.image, "sha256:" + "ab" * 32)
    remove(request, place)

    answer = remove(request, place)

    assert (answer.removed, answer.gone) == (0, 2)


def test_what_has_the_digest_in_another_repository_stays(store: Store, place: Workplace):
    own = store.image("x", f"{store.own}:x")
    other = store.image("x", f"{store.prefix}/team/other:x")
    shared = store.image("x", f"{store.prefix}/environments:x")
    assert own == other == shared

    remove(store.removing(own), place)

    assert not store.has(f"{store.own}@{own}")
    assert store.has(f"{store.prefix}/team/other@{own}")
    assert store.has(f"{store.prefix}/environments@{own}")


@pytest.mark.parametrize(
    ("namespace", "name"), [("team", "../other"), ("..", "flights"), ("team/x", "flights"), ("team", "")]
)
def test_no_name_leads_out_of_the_repository(store: Store, place: Workplace, namespace: str, name: str):
    digest = store.image("x", f"{store.own}:x")
    request = store.removing(digest).model_copy(update={"namespace": namespace, "name": name})

    with pytest.raises(StepFailed, match="InvalidRequest"):
        remove(request, place)

    assert store.has(f"{store.own}@{digest}")


@pytest.mark.parametrize("digest", ["latest", "sha256:abc", "other@sha256:" + "a" * 64, "sha256:" + "a" * 64 + "/x"])
def test_only_digests_are_removed(tmp_path: Path, digest: str):
    request = {"namespace": "team", "name": "flights", "registry": {"prefix": "r.test"}, "digests": [digest]}

    answer = run_verb(tmp_path, "remove", json.dumps(request))

    assert answer["reason"] == "InvalidRequest"


def test_a_registry_that_deletes_nothing_is_said_and_not_asked_again(registry: str, place: Workplace, tmp_path: Path):
    store = Store(tmp_path, f"{registry}/keeps")
    digest = store.image("x", f"{store.own}:x")

    answer = remove(store.removing(digest, "sha256:" + "ab" * 32), place)

    assert answer.removed == 0
    assert "does not let anybody delete" in answer.refused
    assert "cleanUp.registry" in answer.refused
    assert store.has(f"{store.own}@{digest}")


def test_a_registry_that_is_down_removes_nothing_and_is_tried_again(store: Store, place: Workplace):
    down = Registry(prefix=f"127.0.0.1:{free_port()}/models", insecure=True)

    with pytest.raises(StepFailed) as failed:
        remove(store.removing("sha256:" + "ab" * 32).model_copy(update={"registry": down}), place)

    assert (failed.value.reason, failed.value.retry) == ("RegistryUnavailable", True)


@pytest.fixture
def closed(stock: tuple[Path, Content, Content], tmp_path: Path) -> Iterator[Store]:
    """The same registry, which asks for a name and a password: ``slipway`` and ``secret``."""
    shutil.copytree(stock[0], tmp_path / "data")
    users = "slipway:$2b$04$5bhcNaMnfMYjF3xWM2MVSu/tqcDPdxHW2Aj7CrPULmEQk.7cZ9Rym\n"
    with registry_in(tmp_path, deletes=True, users=users) as address:
        yield Store(tmp_path, f"{address}/models")


def test_without_the_registrys_secret_nothing_is_known_and_nothing_removed(
    closed: Store, stock: tuple[Path, Content, Content], place: Workplace
):
    content = closed.here(stock[1])

    with pytest.raises(StepFailed, match="RegistryAccessDenied") as failed:
        verify(closed.asking(content), place)
    assert not failed.value.retry
    with pytest.raises(StepFailed, match="credentials that may delete"):
        remove(closed.removing(content.image), place)


def test_the_registrys_secret_opens_it_for_both(closed: Store, stock: tuple[Path, Content, Content], place: Workplace):
    content = closed.here(stock[1])
    login = base64.b64encode(b"slipway:secret").decode()
    host = closed.prefix.partition("/")[0]
    add_secret(place, "registry", config_dot_json=json.dumps({"auths": {host: {"auth": login}}}))

    assert verify(closed.asking(content, live=closed.here(stock[2])), place) == Verified(asked=7, schema_fits=True)
    assert remove(closed.removing(content.image), place).removed == 1


def run_verb(folder: Path, verb: str, request: str | Message) -> dict[str, Any]:
    """Run a verb as its container does; gives its termination message."""
    text = request if isinstance(request, str) else request.model_dump_json(by_alias=True, exclude_none=True)
    place = make_place(folder / "container")
    variables = {
        "SLIPWAY_REQUEST": text,
        "SLIPWAY_WORK": str(place.work),
        "SLIPWAY_SETTINGS": str(place.settings),
        "SLIPWAY_SECRETS": str(place.secrets),
        "SLIPWAY_TERMINATION_LOG": str(folder / "message"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        code = slipway_builder.main([verb])
    answer: dict[str, Any] = json.loads((folder / "message").read_bytes())
    assert code == (0 if answer["ok"] else 1)
    return answer


def test_both_verbs_are_told_by_the_command(store: Store, old: Content, tmp_path: Path):
    verified = run_verb(tmp_path, "verify", store.asking(old))
    removed = run_verb(tmp_path, "remove", store.removing(old.image))

    assert Verified.model_validate(verified).missing == ()
    assert (removed["removed"], removed["gone"]) == (1, 0)
    assert (tmp_path / "message").stat().st_size < 1024
