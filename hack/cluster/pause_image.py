"""The image of the container that holds a pod's namespaces: one static program, imported into containerd.

Nothing is pulled for it, so pods start on a machine that reaches no registry at all.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from cluster.layout import PAUSE_IMAGE, Layout
from tools.refusal import Refused

OCI = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(program: bytes, architecture: str) -> bytes:
    """Return an OCI layout as tar, with the one image; equal input gives equal bytes."""
    layer = _tar({"pause": (program, 0o755)})
    packed = gzip.compress(layer, mtime=0)
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": _descriptor(config, f"{OCI}.config.v1+json"),
            "layers": [_descriptor(packed, f"{OCI}.layer.v1.tar+gzip")],
        }
    )
    named = _descriptor(manifest, f"{OCI}.manifest.v1+json")
    named["annotations"] = {"io.containerd.image.name": PAUSE_IMAGE}
    index = _json({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [named]})
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": (blob, 0o644) for blob in (packed, config, manifest)}
    version = _json({"imageLayoutVersion": "1.0.0"})
    return _tar({"oci-layout": (version, 0o644), "index.json": (index, 0o644), **blobs})


def ensure(layout: Layout, ctr: str, program: Path, machine: str) -> None:
    """Import the image unless containerd has it.

    Raises:
        Refused: containerd does not take it.
    """
    base = [ctr, "--address", str(layout.containerd_socket), "--namespace", "k8s.io", "images"]
    listed = subprocess.run(
        [*base, "list", "--quiet", f"name=={PAUSE_IMAGE}"], capture_output=True, text=True, check=False
    )
    if PAUSE_IMAGE in listed.stdout:
        return
    image = archive(program.read_bytes(), ARCHITECTURES.get(machine, machine))
    done = subprocess.run([*base, "import", "--local", "-"], input=image, capture_output=True, check=False)
    if done.returncode != 0:
        raise Refused(f"containerd does not take the pause image: {done.stderr.decode(errors='replace').strip()}")


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
