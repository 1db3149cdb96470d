"""A resource that is edited or deleted on its way, at each step of it, on the real cluster.

All are on their way at once; each meets its fate when its status says that it is at its step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.install import Lab
from lab.kube import Manifest, wait_for
from lab.projects import model_deployment, spec, trained_spec, write_project, write_trained_project

STEPS = ("Build", "Train", "Export", "Rollout")


class Fate(NamedTuple):
    """What happens to one resource, and when."""

    deed: str
    step: str
    first: str
    """Commit that it starts with."""
    second: str
    """Commit that it is edited to."""

    @property
    def name(self) -> str:
        """Name of resource and repository."""
        return f"{self.deed}-in-{self.step.lower()}"

    def wanted(self, lab: Lab, commit: str) -> dict[str, Any]:
        """The spec at a commit; only what is to meet its fate in training is trained."""
        url = lab.git.url(self.name)
        return spec(url, commit) if self.step == "Train" else trained_spec({"git": {"url": url, "ref": commit}})


def committed(lab: Lab, name: str, step: str, folder: Path) -> list[str]:
    """Make a repository of two commits with different contents."""
    commits = []
    for number in (1, 2):
        tree = folder / f"{name}-{number}"
        note = {"README.md": f"{name} {number}\n"}
        if step == "Train":
            write_project(tree, note, strength=0.1 * number + len(name) / 1000)
        else:
            write_trained_project(tree, note)
        commits.append(lab.git.publish(name, tree))
    return commits


@pytest.fixture(scope="module")
def fates(lab: Lab, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fate]:
    """Start all, and let each meet its fate."""
    folder = tmp_path_factory.mktemp("fates")
    every = {}
    for deed in ("edited", "deleted"):
        for step in STEPS:
            fate = Fate(deed, step, *committed(lab, f"{deed}-in-{step.lower()}", step, folder))
            every[fate.name] = fate
    lab.kube.apply(*(model_deployment(f.name, namespace, f.wanted(lab, f.first)) for f in every.values()))
    waiting = dict(every)

    def all_met() -> bool:
        for resource in lab.kube.list("modeldeployments", namespace):
            fate = waiting.get(resource["metadata"]["name"])
            if fate is None or not _is_at(resource, fate.step):
                continue
            del waiting[fate.name]
            if fate.deed == "edited":
                lab.kube.apply(model_deployment(fate.name, namespace, fate.wanted(lab, fate.second)))
            else:
                lab.kube.delete("modeldeployment", fate.name, namespace, wait=False)
        return not waiting

    try:
        wait_for(all_met, seconds=600, what="each to be at its step", every=0.1)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {sorted(waiting)} never were") from None
    return every


def _is_at(resource: Manifest, step: str) -> bool:
    states = {each["name"]: each["state"] for each in resource.get("status", {}).get("steps", [])}
    return states.get(step) in {"Running", "Waiting", "Succeeded"}


@pytest.mark.parametrize("step", STEPS)
def test_an_edit_on_the_way_wins_over_what_was_on_its_way(
    lab: Lab, namespace: str, fates: dict[str, Fate], settled: Callable[..., Manifest], step: str
) -> None:
    """The newer commit goes live and nothing of the older one still runs; only in a rollout it may have been live."""
    fate = fates[f"edited-in-{step.lower()}"]

    live = settled(fate.name, namespace)["status"]["live"]

    assert live["commit"] == fate.second
    assert live["revision"] == 1 or step == "Rollout"
    jobs = lab.kube.list("jobs", namespace, f"slipway.dev/owner={fate.name}")
    assert [job["metadata"]["name"] for job in jobs if job["status"].get("active")] == []
    # For its logs, the newest ended Job of each step stays beside the wanted one.
    steps = Counter(job["metadata"]["labels"]["slipway.dev/step"] for job in jobs)
    assert steps.keys() >= {"build", "export"}
    assert max(steps.values()) <= 2


@pytest.mark.parametrize("step", STEPS)
def test_a_resource_deleted_on_its_way_leaves_nothing(
    lab: Lab, namespace: str, fates: dict[str, Fate], step: str
) -> None:
    """Jobs and pods go with it, and nothing holds a finalizer."""
    name = fates[f"deleted-in-{step.lower()}"].name
    owned = "modeldeployments,jobs,pods,deployments,services,configmaps,controllerrevisions,networkpolicies"

    def left() -> list[str]:
        found = lab.kube.list(owned, namespace)
        marks = [(each["metadata"]["name"], each["metadata"].get("labels", {})) for each in found]
        return [each for each, labels in marks if each == name or labels.get("slipway.dev/owner") == name]

    wait_for(lambda: not left(), seconds=120, what=f"what belongs to {name} to go")
