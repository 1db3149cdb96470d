"""Asking nodes whether they can mount images, whatever comes between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from slipway_operator.cluster.client import AlreadyExistsError
from slipway_operator.cluster.fake import FakeCluster
from slipway_operator.cluster.kinds import Where
from slipway_operator.controllers import nodes
from slipway_operator.controllers.nodes import ImageVolumes, probe_pod
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.observed import Manifest, Ref, ref_of


class Node(FakeCluster):
    """A cluster of one node that can mount images, where a deleted pod may take its time to go."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: list[Exception] = []
        """What the next lists of nodes fail with."""
        self.leaving: set[Ref] = set()
        """What stays there when it is deleted for the first time."""

    async def list(self, where: Where) -> Sequence[Manifest]:
        del where
        if self.lists:
            raise self.lists.pop()
        return [{"metadata": {"name": "one", "uid": "1"}}]

    async def call(self, method: str, path: str, *, body: Manifest) -> Manifest:
        del method, path
        if ref_of(body) in self.objects:
            raise AlreadyExistsError("object is being deleted")
        return self.add({**body, "status": {"phase": "Succeeded"}})

    async def delete(self, ref: Ref, uid: str | None = None) -> Manifest | None:
        if ref in self.leaving:
            self.leaving.remove(ref)
            return None
        return await super().delete(ref, uid)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.0)
    return Node()


async def answer(cluster: Node, settings: Settings) -> Any:
    """What is known once it is known."""
    volumes = ImageVolumes(cluster, settings)  # type: ignore[arg-type]
    changed = asyncio.Event()
    asking = asyncio.create_task(volumes.keep_asking(changed.set))
    waiting = asyncio.create_task(changed.wait())
    await asyncio.wait({asking, waiting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    for task in (asking, waiting):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    return await volumes.known()


async def test_a_node_that_starts_the_pod_can_mount_images(cluster, world):
    assert await answer(cluster, world.settings) is True
    assert cluster.of_kind("Pod") == []


async def test_a_node_is_asked_again_where_the_pod_of_another_time_is_still_there(cluster, world):
    left = probe_pod(world.settings, "one")
    cluster.add(left)
    cluster.leaving.add(ref_of(left))

    assert await answer(cluster, world.settings) is True


async def test_a_failure_that_nobody_foresaw_does_not_end_the_asking(cluster, world):
    cluster.lists.append(KeyError("metadata"))

    assert await answer(cluster, world.settings) is True
