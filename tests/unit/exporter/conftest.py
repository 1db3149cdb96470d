"""The exporter as its images run it: a copied directory, a request, and the files that it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import slipway_operator.exporter
from slipway_operator.exporter import export
from slipway_operator.exporter.failure import Failure, encode
from slipway_operator.exporter.request import Places, export_request
from slipway_operator.exporter.worker import Worker

EXPORT = {
    "modelPath": "model.joblib",
    "trained": None,
    "example": "sample.csv",
    "maxAbsoluteDifference": 1e-5,
    "maxLabelFlips": 0,
    "timeoutSeconds": 100,
}

SOURCE = Path(slipway_operator.exporter.__file__).parent


@dataclass
class Station:
    """A Job's pod on this machine: volumes, and how a container ended."""

    root: Path
    status: int | None = None
    output: str = ""

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def message(self) -> dict[str, Any]:
        return json.loads((self.root / "termination").read_text(encoding="utf-8"))

    def environment(self, request: dict[str, Any]) -> dict[str, str]:
        base = {"namespace": "team", "name": "model", "registry": {"prefix": "registry.example.com/x"}}
        return {
            **os.environ,
            "SLIPWAY_REQUEST": json.dumps(base | request),
            "SLIPWAY_WORK": str(self.work),
            "SLIPWAY_PROJECT": str(self.project),
            "SLIPWAY_TOOLS": str(self.root / "slipway" / "tools"),
            "SLIPWAY_TERMINATION_LOG": str(self.root / "termination"),
            "PYTHONPATH": str(self.project),
        }

    def command(self, name: str) -> list[str]:
        return [sys.executable, str(self.root / "slipway" / "exporter"), name]

    def run(self, name: str, request: dict[str, Any]) -> Station:
        ended = subprocess.run(
            self.command(name),
            env=self.environment(request),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=120,
        )
        self.status, self.output = ended.returncode, ended.stdout.decode("utf-8", "replace")
        return self

    def train(self, *command: str, **request: Any) -> Station:
        return self.run("train", {"command": command, "timeoutSeconds": 60, "modelPath": "model.joblib"} | request)

    def export_in_container(self, **request: Any) -> Station:
        """Export as the image does: two processes, each of which imports everything anew."""
        return self.run("export", EXPORT | request)

    def export(self, **request: Any) -> Station:
        """Export in this process, which has the libraries already."""
        area = self.root / "area"
        area.mkdir(exist_ok=True)
        places = Places(self.work, self.project, self.root / "slipway" / "tools")
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("SLIPWAY_REQUEST", json.dumps(EXPORT | request))
            asked = export_request()
        try:
            Worker(asked, places, export._fetch_model(asked, places, area), area).run()
        except Failure as failure:
            (self.root / "termination").write_text(encode(failure), encoding="utf-8")
            self.status, self.output = 1, failure.message
            return self
        (self.work / "model").mkdir(exist_ok=True)
        for name in export.RESULTS:
            (area / name).replace(self.work / "model" / name)
        self.status = 0
        return self

    def result(self, name: str) -> dict[str, Any]:
        assert self.status == 0, self.output
        return json.loads((self.work / "model" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def station(tmp_path):
    """A pod with empty volumes and the exporter where its image has it."""
    for folder in ("work", "project", "slipway/tools"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copytree(SOURCE, tmp_path / "slipway" / "exporter", ignore=shutil.ignore_patterns("__pycache__"))
    return Station(tmp_path)
