"""The exporter runs in environments of projects: Python 3.9, and no package that they need not have."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.unit.exporter.conftest import SOURCE
from tests.unit.runtime.test_worker import EXAMPLES, FUNCTION, Pod

from slipway_runtime.engines.worker import WorkerEngine
from slipway_runtime.protocol.signature import read_signature

MODULES = sorted(SOURCE.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_python_39_and_imports_the_standard_library_alone(path: Path) -> None:
    """Other libraries are imported by name, when they are needed (`exporter/foreign.py`)."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        else:
            continue
        assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names, f"line {node.lineno}"


def python39() -> str | None:
    """Find an interpreter: uv's, pyenv's, or the system's."""
    uv = shutil.which("uv")
    if uv is not None:
        command = [uv, "python", "find", "--no-project", "--offline", "3.9"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.strip()
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return next(map(str, versions.glob("3.9.*/bin/python3.9")), None) or shutil.which("python3.9")


@pytest.mark.skipif(python39() is None, reason="there is no Python 3.9 on this machine: `uv python install 3.9`")
async def test_a_worker_of_python_39_answers(tmp_path):
    pod = Pod(tmp_path)
    pod.write(FUNCTION, EXAMPLES)
    (pod.root / "project" / "plain.py").write_text(
        "import sys\n"
        "def predict(rows):\n"
        "    assert sys.version_info[:2] == (3, 9)\n"
        "    return {'twice': [2 * a for a in rows['a']], 'greeting': ['hello ' + name for name in rows['name']]}\n"
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(pod.close)
        await pod.worker(function="plain:predict", program=python39())
        engine = WorkerEngine(
            pod.shared / "worker.sock", read_signature(json.dumps(FUNCTION).encode()), seconds=10, start_seconds=30
        )
        stack.callback(engine._hang_up)
        for count in (1, 50_000):  # through the socket, and by a file
            names = np.full((count, 1), "Ada", dtype=object)
            twice, greeting = engine.run({"a": np.full((count, 1), 1.5), "name": names})

            assert (twice.tolist(), greeting.tolist()) == ([3.0] * count, ["hello Ada"] * count)
