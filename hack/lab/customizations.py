"""What Argo CD makes of an object: its own program evaluates the chart's Lua, with no cluster and no server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chart.__main__ import CHART
from chart.programs import tool
from lab.kube import Manifest

SOURCE = CHART / "files" / "argocd" / "resource_customizations"
PRINT_RESULT = """sh -c 'cat "$1"'"""
"""Argo CD shows what an action changed by a diff program, called with the files before and after: this one shows
the whole of the latter."""


class EvaluationError(RuntimeError):
    """Argo CD refused; the message is what it said."""


def rendered_customizations(values: Path) -> dict[str, str]:
    """Return the entries of Argo CD's ConfigMap ``argocd-cm`` that the chart renders."""
    helm, only = str(tool("helm")), ["--show-only", "templates/argocd.yaml"]
    command = [helm, "template", "slipway", str(CHART), "--values", str(values), *only]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    data: dict[str, str] = yaml.safe_load(done.stdout)["data"]
    return data


def argocd_cm(namespace: str, data: dict[str, str]) -> Manifest:
    """Return ``argocd-cm`` with some entries; Argo CD finds it by name and label."""
    labels = {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}
    metadata = {"name": "argocd-cm", "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@dataclass(frozen=True)
class Evaluator:
    """``argocd admin settings resource-overrides``, with one ConfigMap."""

    program: Path
    config: Path
    scratch: Path
    """Argo CD leaves files in its temporary folder, so it gets one that goes."""

    @classmethod
    def on(cls, program: Path, data: dict[str, str], folder: Path) -> Evaluator:
        """Return an evaluator of some entries of ``argocd-cm``."""
        config = folder / "argocd-cm.yaml"
        config.write_text(json.dumps(argocd_cm("argocd", data)))
        return cls(program, config, folder)

    def health(self, path: Path) -> tuple[str, str]:
        """Return status and message of an object.

        Raises:
            EvaluationError: Argo CD has no health check for it: it ends with 0 all the same.
        """
        said = self._run("health", path)
        found = re.search(r"^STATUS: (\S+)\nMESSAGE: (.*)\Z", said.strip("\n") + "\n", re.MULTILINE | re.DOTALL)
        if found is None:
            raise EvaluationError(said)
        return found[1], found[2].strip()

    def actions(self, path: Path) -> dict[str, bool]:
        """Return each action of an object, and whether it is disabled now."""
        header, *rows = self._run("list-actions", path).strip().splitlines()
        if header.split() != ["NAME", "DISABLED"]:
            raise EvaluationError(header)
        return {name: disabled == "true" for name, disabled in (row.split() for row in rows)}

    def run(self, path: Path, action: str, parameters: dict[str, str] | None = None) -> Manifest:
        """Return the object that an action makes of one."""
        given = [f"--param={name}={value}" for name, value in (parameters or {}).items()]
        said = self._run("run-action", path, action, *given)
        _, found, text = said.partition("Following fields have been changed:\n\n")
        if not found:
            raise EvaluationError(said)
        result: Any = yaml.safe_load(text)
        return dict(result)

    def _run(self, verb: str, path: Path, *arguments: str) -> str:
        command = [str(self.program), "admin", "settings", "resource-overrides", verb, str(path), *arguments]
        environment = {**os.environ, "HOME": str(self.scratch), "TMPDIR": str(self.scratch), "KUBECONFIG": os.devnull}
        done = subprocess.run(
            [*command, "--argocd-cm-path", str(self.config)],
            env={**environment, "KUBECTL_EXTERNAL_DIFF": PRINT_RESULT},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise EvaluationError(done.stderr.strip())
        return done.stdout
