"""A repository that says what a cluster should hold, and a project whose versions it names: what GitOps is about."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.git import GitServer
from lab.install import Lab
from lab.kube import Kube, Manifest, condition, wait_for
from lab.log import entries
from lab.projects import model_deployment, spec, write_project


@dataclass(frozen=True)
class Project:
    """A small project in Git, a version of which is told from another by one number."""

    git: GitServer
    name: str
    folder: Path

    def commit(self, strength: float) -> str:
        """Commit a version to the main branch."""
        tree = write_project(self.folder / f"{strength}", strength=strength)
        return self.git.publish(self.name, tree, message=f"C={strength}")

    def spec(self, ref: str, *, follow: bool = False, **more: Any) -> Manifest:
        """Return the spec that serves a commit, or whatever a branch names."""
        found: dict[str, Any] = copy.deepcopy(spec(self.git.url(self.name), ref))
        found["serving"] = {"replicas": 1, "resources": {"requests": {"cpu": "20m"}}}
        if follow:
            found["source"]["git"]["follow"] = {"interval": "10s"}
        return found | more


@dataclass(frozen=True)
class Fleet:
    """The repository that a GitOps tool follows: one file for each ModelDeployment."""

    git: GitServer
    name: str
    folder: Path

    @property
    def url(self) -> str:
        """Where the tool finds it."""
        return self.git.url(self.name)

    def push(self, *manifests: Mapping[str, Any]) -> str:
        """Commit what the cluster should hold, and return the commit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for manifest in manifests:
            path = self.folder / f"{manifest['metadata']['name']}.yaml"
            path.write_text(yaml.safe_dump(dict(manifest), sort_keys=False))
        return self.git.publish(self.name, self.folder, message="What the cluster should hold")


@dataclass(frozen=True)
class Model:
    """One ModelDeployment on the cluster, as a person would ask about it."""

    kube: Kube
    name: str
    namespace: str

    def manifest(self, spec_: Mapping[str, Any]) -> Manifest:
        """Return it with a spec, as a file has it."""
        return model_deployment(self.name, self.namespace, spec_)

    def read(self) -> Manifest:
        """Return it as it is now; empty where it is not there yet."""
        return self.kube.get("modeldeployment", self.name, self.namespace) or {}

    def delete(self) -> None:
        """Remove it, so that the next test has the room that its pods took."""
        self.kube.delete("modeldeployment", self.name, self.namespace)

    def live_commit(self) -> str:
        """Return the commit that answers."""
        commit: str = self.read().get("status", {}).get("live", {}).get("commit", "")
        return commit

    def causes(self) -> list[str]:
        """Return why each entry of the log was written, the oldest first."""
        return [entry["cause"] for entry in entries(self.kube, self.name, self.namespace)]

    def wait(self, kind: str, reason: str, commit: str, *, seconds: float = 240) -> Manifest:
        """Wait until a condition is True for a reason, with a commit live; fail with what it says instead."""

        def look() -> Manifest | None:
            found = self.read()
            status = found.get("status", {})
            now = condition(found, kind)
            current = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
            right = (now["status"], now["reason"]) == ("True", reason) and status["live"]["commit"] == commit
            return found if current and right else None

        try:
            return wait_for(look, seconds=seconds, what=f"{self.name} to be {kind} ({reason})")
        except TimeoutError as error:
            raise AssertionError(f"{error}; its status is {self.read().get('status')}") from None

    def is_serving(self, commit: str, *, seconds: float = 240) -> Manifest:
        """Wait until a commit answers and nothing is under way."""
        return self.wait("Ready", "Serving", commit, seconds=seconds)


def start(lab: Lab, namespace: str, name: str, folder: Path) -> tuple[Project, Model]:
    """Return a project and the deployment of it, neither of which is there yet."""
    return Project(lab.git, f"{namespace}-{name}", folder), Model(lab.kube, name, namespace)
