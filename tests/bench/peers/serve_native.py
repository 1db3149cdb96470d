"""Slipway's two containers on one machine: the worker with the model itself, and the runtime that asks it.

python serve_native.py <folder of the model> <port> <port of gRPC>
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import slipway_operator.exporter

model, port, grpc_port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
shared = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))  # noqa: S108 -- memory, as in a pod
file = model / "model.joblib"
told = {"socket": str(shared / "worker.sock"), "model": str(file), "signature": str(model / "signature.json")}
worker = [sys.executable, str(Path(slipway_operator.exporter.__file__).parent), "serve"]
subprocess.Popen(worker, env={**os.environ, "SLIPWAY_WORKER": json.dumps(told)})
digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
runtime = [sys.executable, "-m", "slipway_runtime", "--model-dir", str(model), "--name", "bench", "--version", "v1"]
runtime += ["--model-digest", digest, "--host", "127.0.0.1", "--port", port, "--grpc-port", grpc_port]
os.execv(sys.executable, [*runtime, "--worker-socket", told["socket"], "--worker-model", file.name])  # noqa: S606 -- no shell is wanted
