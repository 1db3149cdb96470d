"""Requests that follow the OpenAPI document, and requests that break it: ``make fuzz-runtime`` (schemathesis).

    uv run python tests/fuzz/fuzz_openapi.py [--examples 200]

A real runtime; schemathesis reads ``/openapi.json`` from it. Every answer must be one that the
document describes, in status, media type and schema, and none a 5xx. What the document does not
allow must be refused, but for rows (``/predict``): of their numbers the runtime takes more than the
document says, true and false as 1 and 0, and what only rounding brings within FP32.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.runtime.conftest import echo, linear

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
RUNS = (
    ("--include-path", "/predict", "--checks", CHECKS),
    ("--exclude-path", "/predict", "--checks", f"{CHECKS},negative_data_rejection"),
)


def checked(files: object, folder: Path, examples: int) -> int:
    """Serve one model and have it checked."""
    files.write(folder)  # type: ignore[attr-defined]  # as the fixtures' parts are
    digest = "sha256:" + hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", digest]
    command = [sys.executable, "-m", "slipway_runtime", *options, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as runtime:
        try:
            for _ in range(400):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            tool = [str(Path(sys.executable).parent / "st"), "run", f"http://127.0.0.1:{port}/openapi.json"]
            tool += ["--max-examples", str(examples), "--seed", "1", "--warnings", "off"]
            tool += ["--suppress-health-check", "all", "--continue-on-failure", "--no-color"]
            return max(subprocess.run([*tool, *one], check=False, timeout=500, cwd=folder).returncode for one in RUNS)
        finally:
            runtime.kill()


def main() -> int:
    """Check a model of columns and one of a matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--examples", type=int, default=200)
    arguments = parser.parse_args()
    codes = []
    for files in (echo(), linear()):
        with tempfile.TemporaryDirectory() as name:
            codes.append(checked(files, Path(name), arguments.examples))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
