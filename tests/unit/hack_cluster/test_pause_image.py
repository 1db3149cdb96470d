import hashlib
import io
import json
import tarfile

from cluster.pause_image import archive


def read(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = {entry.name: opened.extractfile(entry) for entry in opened.getmembers()}
        return {name: content.read() for name, content in found.items() if content is not None}


def test_equal_programs_make_equal_images():
    assert archive(b"program", "amd64") == archive(b"program", "amd64")


def test_every_blob_is_named_by_its_digest():
    blobs = {name: content for name, content in read(archive(b"program", "amd64")).items() if "/" in name}

    assert len(blobs) == 3
    assert {name: hashlib.sha256(content).hexdigest() for name, content in blobs.items()} == {
        name: name.rpartition("/")[2] for name in blobs
    }


def test_the_image_is_named_and_does_not_run_as_root():
    files = read(archive(b"program", "arm64"))
    named = json.loads(files["index.json"])["manifests"][0]
    manifest = json.loads(files[f"blobs/sha256/{named['digest'][7:]}"])
    config = json.loads(files[f"blobs/sha256/{manifest['config']['digest'][7:]}"])

    assert named["annotations"]["io.containerd.image.name"].startswith("slipway.local/pause:")
    assert (config["architecture"], config["config"]["User"]) == ("arm64", "65535:65535")
