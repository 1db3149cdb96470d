"""Limits on a new content that its own pods pass on the real cluster: no answers, and containers that end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.install import Lab
from lab.kube import Manifest, condition, wait_for
from lab.load import Caller
from lab.log import entries
from lab.projects import (
    FLOWER,
    locked_by,
    model_deployment,
    narrow_model,
    trained_spec,
    write_trained_project,
)

NAME = "limited"
QUESTION = {"rows": [FLOWER]}
LOCKED = locked_by("pylock.toml")
RUNTIME_PYTHON = "/opt/env/bin/python"
SMALL_FLOWERS = f"{','.join(FLOWER)}\n1.1,3.5,1.4,0.2\n2.7,3.1,4.7,1.5\n"


class Deployment:
    """One ModelDeployment whose committed model is told apart by its files."""

    def __init__(self, lab: Lab, namespace: str, settled: Callable[..., Manifest], folder: Path) -> None:
        self._lab, self._namespace, self._settled, self._folder = lab, namespace, settled, folder
        self._versions = 0

    def apply(self, files: dict[str, str | bytes | None], **fields: Any) -> None:
        """Commit a version and ask for it."""
        self._versions += 1
        tree = write_trained_project(self._folder / str(self._versions), {**LOCKED, **files})
        source = {"git": {"url": self._lab.git.url(NAME), "ref": self._lab.git.publish(NAME, tree)}}
        wanted = {**trained_spec(source, "pylock.toml"), **fields}
        self._lab.kube.apply(model_deployment(NAME, self._namespace, wanted))

    def live(self) -> str:
        """Wait until nothing is under way, and return the content that is live."""
        return str(self._settled(NAME, self._namespace)["status"]["live"]["content"])

    def until(self, reason: str) -> Manifest:
        """Wait until Ready has a reason for what was asked for last."""

        def look() -> Manifest | None:
            found = self._lab.kube.get("modeldeployment", NAME, self._namespace) or {}
            current = found["status"].get("observedGeneration") == found["metadata"]["generation"]
            return found if current and condition(found, "Ready")["reason"] == reason else None

        return wait_for(look, seconds=240, what=reason)

    def newest(self) -> dict[str, Any]:
        """The newest entry of the log."""
        return entries(self._lab.kube, NAME, self._namespace)[-1]


def test_a_content_that_fails_or_ends_goes_by_itself(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """What it cannot compute counts against a live content, a container that ends against a canary.

    The log has the figures. The first model passes its own example and fails on what callers really send.
    """
    deployment = Deployment(lab, namespace, settled, tmp_path)
    deployment.apply({})
    good = deployment.live()
    url = f"http://{lab.kube.address(NAME, namespace)}/predict"
    limits = {"rollBackOn": {"refusalRate": 0.5, "minimumRequests": 20, "watchFor": "5m"}}
    files: dict[str, str | bytes | None] = {"model.onnx": narrow_model(3), "data/sample.csv": SMALL_FLOWERS}
    with Caller(url, QUESTION) as caller:
        deployment.apply(files, rollout=limits)
        deployment.until("RolledBack")
        answered = caller.versions[good]
        wait_for(lambda: caller.versions[good] > answered + 20, seconds=60, what="answers of the good content again")
        failed = len(caller.failures)
        wait_for(lambda: caller.versions[good] > answered + 60, seconds=60, what="more of them")
    assert len(caller.failures) == failed, "nothing fails once it is gone"
    assert failed >= 20
    assert all("HTTPError 422" in failure for failure in caller.failures), caller.failures[:3]
    entry = deployment.newest()
    assert (entry["cause"], entry["who"], entry["whoBy"]) == ("Rollback", "slipway", "Operator")
    assert "refusalRate: " in entry["why"]
    assert "limit 50.00%" in entry["why"]

    canary = {"canary": {"pods": 1, "for": "1h"}, "rollBackOn": {"failedProbes": 1}}
    deployment.apply({"README.md": "another commit"}, rollout=canary)
    found = deployment.until("Canary")
    new = found["status"]["rollout"]["content"]
    (pod,) = lab.kube.list("pods", namespace, f"slipway.dev/canary={new}")
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    lab.kube.run("exec", pod["metadata"]["name"], "-n", namespace, "--", RUNTIME_PYTHON, "-c", end)
    deployment.until("Aborted")

    entry = deployment.newest()
    assert (entry["cause"], entry["who"]) == ("Abort", "slipway")
    assert "failedProbes: 1 of at most 0" in entry["why"]
    assert (lab.kube.get("modeldeployment", NAME, namespace) or {})["status"]["live"]["content"] == good
