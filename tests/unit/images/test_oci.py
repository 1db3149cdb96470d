"""Layouts hold one manifest, whose digest depends on its content alone."""

import hashlib
import json
from pathlib import Path

from slipway_operator.builder import oci
from slipway_operator.builder.layers import write_layer


def read(folder: Path, digest: str) -> bytes:
    content = (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def test_artifact(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"onnx")
    artifact = oci.Artifact(
        layers=[oci.Blob(path=file, media_type="application/x", annotations={"b": "2", "a": "1"})],
        artifact_type="application/vnd.cncf.model.manifest.v1+json",
        annotations={"z": "1"},
    )

    digests = {oci.write_layout(tmp_path / name, artifact) for name in ("one", "two")}

    assert len(digests) == 1
    manifest = json.loads(read(tmp_path / "one", digests.pop()))
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert read(tmp_path / "one", manifest["config"]["digest"]) == b"{}"
    assert read(tmp_path / "one", manifest["layers"][0]["digest"]) == b"onnx"
    assert manifest["layers"][0]["size"] == 4
    assert json.loads((tmp_path / "one/index.json").read_text())["manifests"][0]["size"] > 0


def test_an_image_says_what_it_runs_on_and_what_its_layers_hold(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_text("1")
    layer = tmp_path / "layer.tar.gz"
    digests = write_layer(tmp_path / "tree", "", layer)

    digest = oci.write_image(tmp_path / "image", [(layer, digests)], {"User": "65532:65532"})

    manifest = json.loads(read(tmp_path / "image", digest))
    config = json.loads(read(tmp_path / "image", manifest["config"]["digest"]))
    assert config["os"] == "linux"
    assert config["architecture"]
    assert config["rootfs"]["diff_ids"] == [digests.diff_id]
    assert config["config"] == {"User": "65532:65532"}
    assert "created" not in config
    assert manifest["layers"][0]["digest"] == digests.digest


def test_a_repeated_layer_is_stored_once(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1")
    blob = oci.Blob(path=file, media_type="application/x")

    oci.write_layout(tmp_path / "out", oci.Artifact(layers=[blob, blob]))

    assert len(list((tmp_path / "out/blobs/sha256").iterdir())) == 3
