"""The lab for journeys: the cluster that `make cluster-up` started, with this tree's Slipway installed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.install import Lab, lab_of_its_own
from lab.kube import Manifest, condition, wait_for


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The cluster with Slipway on it, and a Git server of this session's own."""
    with lab_of_its_own(tmp_path_factory.mktemp("git")) as found:
        yield found


@pytest.fixture(scope="module")
def namespace(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A restricted namespace for one module of tests, gone afterwards."""
    name = f"e2e-{request.module.__name__.rsplit('.', 1)[-1].removeprefix('test_').replace('_', '-')[:30]}"
    name = f"{name}-{uuid.uuid4().hex[:4]}"
    lab.kube.namespace(name)
    yield name
    lab.kube.delete("namespace", name, wait=False)


Publish = Callable[[str, Path], str]


@pytest.fixture
def publish(lab: Lab) -> Publish:
    """Commit a folder to a repository of its own and return its URL."""

    def to_git(name: str, tree: Path) -> str:
        lab.git.publish(name, tree)
        return lab.git.url(name)

    return to_git


@pytest.fixture
def settled(lab: Lab) -> Callable[..., Manifest]:
    """Wait until a ModelDeployment's condition is True for its newest generation; fail with what it said instead."""

    def wait(name: str, namespace: str, kind: str = "Ready", *, seconds: float = 900) -> Manifest:
        seen: list[Manifest] = []

        def look() -> Manifest | None:
            resource = lab.kube.get("modeldeployment", name, namespace)
            if resource is None:
                return None
            seen[:] = [resource]
            current = resource.get("status", {}).get("observedGeneration") == resource["metadata"]["generation"]
            return resource if current and condition(resource, kind)["status"] == "True" else None

        try:
            return wait_for(look, seconds=seconds, what=f"{namespace}/{name} to be {kind}", every=1)
        except TimeoutError as error:
            status = seen[0].get("status") if seen else "no such object"
            raise AssertionError(f"{error}; its status is {status}") from None

    return wait
