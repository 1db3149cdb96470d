"""``make chart-check``: lint, schemas, kube-score and checkov over the chart, in both of its modes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from chart.programs import tool
from chart.schemas import write_schemas
from chart.specs import ROOT

CHART = ROOT / "charts" / "slipway"
CHECKOV = "checkov==3.3.30"
"""Big, with pins of its own: it gets an environment of its own, beside the workspace."""
OLDEST = "v1.30"


NEWER = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
"""What newer clusters have; helm knows of it only from a cluster, or when it is told."""


def helm_template(values: Path, release: str = "slipway", namespace: str = "slipway-system") -> str:
    """What `helm template` prints for a file of values: for a newer cluster, or in namespaced mode for the oldest."""
    newer = [] if "namespaced" in values.name else ["--api-versions", NEWER]
    done = subprocess.run(
        [tool("helm"), "template", release, CHART, "--namespace", namespace, "--values", values, *newer],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def run(title: str, command: Sequence[str | Path], stdin: str | None = None) -> bool:
    """Run one check; print what it said only where it failed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=_environment())
    print(f"{'✓' if done.returncode == 0 else '✗'} {title}", flush=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode == 0


def _environment() -> dict[str, str]:
    # checkov asks its maker's service for guidelines otherwise: nothing leaves this machine unasked.
    return {**os.environ, "BC_SKIP_MAPPING": "TRUE", "CKV_IGNORE_HIDDEN_DIRECTORIES": "True"}


def main() -> int:
    """Run all checks and say how many failed."""
    good = []
    checkov: list[str | Path] = [
        tool("uv"),
        "tool",
        "run",
        "--python",
        "3.11",
        "--from",
        CHECKOV,
        "checkov",
        "--framework",
        "kubernetes",
    ]
    checkov += ["--config-file", CHART / ".checkov.yaml"]
    with tempfile.TemporaryDirectory() as folder:
        schemas = Path(folder)
        write_schemas(schemas)
        location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        for values in sorted((CHART / "ci").glob("*.yaml")):
            mode = values.name.removesuffix("-values.yaml")
            text = helm_template(values)
            rendered = schemas / f"{mode}.rendered.yaml"
            rendered.write_text(text, encoding="utf-8")
            good += [
                run(f"helm lint --strict ({mode})", [tool("helm"), "lint", "--strict", CHART, "--values", values]),
                run(
                    f"kubeconform -strict ({mode})",
                    [tool("kubeconform"), "-strict", "-summary", "-schema-location", location, rendered],
                ),
                run(
                    f"kube-score, Kubernetes {OLDEST} ({mode})",
                    [tool("kube-score"), "score", "--kubernetes-version", OLDEST, "--output-format", "ci", rendered],
                ),
                run(
                    f"checkov ({mode})",
                    [*checkov, "--file", rendered],
                ),
            ]
    print(f"{good.count(True)} of {len(good)} checks passed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
