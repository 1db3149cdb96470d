"""Where the checks' programs are: kubectl and the cluster, and the validation of the oldest Kubernetes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from chart.specs import ROOT
from lab.kube import Kube, find_kubectl
from tools import gobuild
from tools.__main__ import ensure
from tools.catalogue import GoTool


@dataclass(frozen=True, kw_only=True)
class _OwnTool(GoTool):
    """A Go program of this repository, with a module of its own."""

    @property
    def module(self) -> Path:
        """Folder of the module."""
        return ROOT / "hack" / self.name


CRD_CHECK = _OwnTool(name="crd-check", version="1.30", programs={"crd-check": "."}, cold="three minutes")


def tool(name: str) -> Path:
    """A pinned program: an own one, or one of hack/tools; built on first use."""
    return gobuild.ensure(CRD_CHECK) / name if name == CRD_CHECK.name else ensure(name)


def open_kube() -> Kube:
    """The API server to try things on.

    ``SLIPWAY_TEST_KUBECONFIG`` names another than the local cluster's: a bare API server is enough for schemas.

    Raises:
        FileNotFoundError: There is no kubeconfig, as no cluster was started.
    """
    named = os.environ.get("SLIPWAY_TEST_KUBECONFIG")
    if named:
        return Kube(Path(named), find_kubectl([Path(os.environ.get("SLIPWAY_TEST_KUBECTL", "kubectl"))]))
    asked = subprocess.run(["make", "-s", "cluster-kubeconfig"], cwd=ROOT, capture_output=True, text=True, check=False)
    path = Path(asked.stdout.strip())
    if asked.returncode != 0 or not path.is_file():
        raise FileNotFoundError("There is no cluster yet: run `make cluster-up` first.")
    return Kube(path, find_kubectl([tool("kubectl")]), os.environ.get("SLIPWAY_CONTEXT"))
