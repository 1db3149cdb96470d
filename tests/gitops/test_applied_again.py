"""kubectl, Helm and Flux apply what the files say, over and over: none of them undoes a rollback."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pytest

from chart.programs import tool
from lab import fleet
from lab.install import Lab
from lab.kube import Manifest, wait_for
from lab.record import write_record
from lab.watch import Watch

TIMES = 10
LIVE = (".status.live.revision", ".status.live.commit", ".status.conditions[?(@.type=='Stalled')].reason")
ROLLBACK = "slipway.dev/rollback"
PAUSED = "slipway.dev/paused"


@dataclass(frozen=True)
class Way(ABC):
    """A way to bring what a file says to the cluster."""

    lab: Lab
    folder: Path

    @abstractmethod
    def apply(self, manifest: Manifest) -> str:
        """Apply a manifest once and return what was said."""

    def run(self, command: list[str], stdin: str | None = None) -> str:
        """Run a program on the cluster, and fail with its words."""
        environment = {**os.environ, "KUBECONFIG": str(self.lab.kube.kubeconfig)}
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Kubectl(Way):
    """Client-side apply: what it sent last is in an annotation."""

    def apply(self, manifest: Manifest) -> str:
        return self.lab.kube.run("apply", "-f", "-", stdin=json.dumps(manifest))


class ServerSide(Way):
    """Server-side apply by kubectl."""

    def apply(self, manifest: Manifest) -> str:
        return self.lab.kube.run("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))


class Helm(Way):
    """A chart with the one resource."""

    def apply(self, manifest: Manifest) -> str:
        templates = self.folder / "chart" / "templates"
        templates.mkdir(parents=True, exist_ok=True)
        (templates.parent / "Chart.yaml").write_text("apiVersion: v2\nname: models\nversion: 1.0.0\n")
        (templates / "model.json").write_text(json.dumps(manifest))
        metadata = manifest["metadata"]
        context = ["--kube-context", self.lab.kube.context] if self.lab.kube.context else []
        release = ["upgrade", "--install", metadata["name"], str(templates.parent), "-n", metadata["namespace"]]
        return self.run([str(self.lab.helm), *release, *context])


class Flux(Way):
    """Flux's own library, with the options of its kustomize-controller."""

    def apply(self, manifest: Manifest) -> str:
        return self.run([str(tool("flux-apply"))], json.dumps(manifest))


@pytest.mark.parametrize("kind", [Kubectl, ServerSide, Helm, Flux], ids=lambda kind: kind.__name__.lower())
def test_applied_again_and_again_it_stays_rolled_back(
    lab: Lab, namespace: str, tmp_path: Path, kind: type[Way]
) -> None:
    """Good, bad, rolled back by `kubectl annotate`; ten times applied again; then the next good one."""
    way, name = kind(lab, tmp_path), f"by-{kind.__name__.lower()}"
    project, model = fleet.start(lab, namespace, name, tmp_path / "project")
    good, bad, better = (project.commit(strength) for strength in (1.0, 0.001, 2.0))
    way.apply(model.manifest(project.spec(good)))
    model.is_serving(good)
    way.apply(model.manifest(project.spec(bad)))
    model.is_serving(bad)

    lab.kube.run("annotate", "modeldeployment", name, "-n", namespace, f"{ROLLBACK}=previous")
    model.wait("Stalled", "RolledBack", good, seconds=30)
    with Watch(lab.kube, "modeldeployment", name, namespace, LIVE) as live:
        said = [way.apply(model.manifest(project.spec(bad))) for _ in range(TIMES)]
    write_record(name, {"times": TIMES, "said": said, "secondsLive": live.changes})
    assert len(live.values) == 1, live.changes
    model.wait("Stalled", "RolledBack", good, seconds=30)

    way.apply(model.manifest(project.spec(better)))
    model.is_serving(better)
    way.apply(model.manifest(project.spec(better)))
    model.is_serving(better, seconds=30)
    assert model.causes() == ["SpecChange", "SpecChange", "Rollback", "SpecChange"]
    model.delete()


def test_flux_takes_from_kubectl_and_leaves_to_others(lab: Lab, namespace: str, tmp_path: Path) -> None:
    """What `kubectl annotate` wrote goes with the next apply; what another manager wrote stays: as the docs say."""
    way = Flux(lab, tmp_path)
    model = fleet.Model(lab.kube, "annotated", namespace)
    manifest = model.manifest(fleet.start(lab, namespace, "annotated", tmp_path)[0].spec("main"))
    way.apply(manifest)
    target = ["modeldeployment", "annotated", "-n", namespace]
    lab.kube.run("annotate", *target, f"{PAUSED}=true")
    lab.kube.run("annotate", *target, "--field-manager=slipway-cli", f"{ROLLBACK}=previous@0123456789ab")
    assert {PAUSED, ROLLBACK} <= set(model.read()["metadata"]["annotations"])

    assert "configured" in way.apply(manifest)

    def kept() -> set[str]:
        return {PAUSED, ROLLBACK} & set(model.read()["metadata"].get("annotations", {}))

    assert kept() == {ROLLBACK}
    assert wait_for(lambda: "unchanged" in way.apply(manifest), seconds=10, what="an apply that changes nothing")
    model.delete()
