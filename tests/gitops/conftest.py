"""GitOps tools on the local cluster: what they need beside this tree's Slipway, gone when the tests have ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart.__main__ import CHART
from chart.programs import tool
from lab.customizations import Evaluator, rendered_customizations
from lab.install import Lab, lab_of_its_own


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The cluster with Slipway on it, and a Git server of this session's own."""
    with lab_of_its_own(tmp_path_factory.mktemp("git")) as found:
        yield found


@pytest.fixture(scope="module")
def namespace(lab: Lab) -> Iterator[str]:
    """A restricted namespace for one module of tests, gone afterwards."""
    name = f"gitops-{uuid.uuid4().hex[:6]}"
    lab.kube.namespace(name)
    yield name
    lab.kube.delete("namespace", name)


@pytest.fixture(scope="session")
def customizations() -> dict[str, str]:
    """What the chart has Argo CD know."""
    return rendered_customizations(CHART / "ci" / "cluster-wide-values.yaml")


@pytest.fixture(scope="session")
def evaluator(customizations: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """Argo CD's program with what the chart renders, and nothing else."""
    return Evaluator.on(Path(tool("argocd")), customizations, tmp_path_factory.mktemp("evaluator"))
