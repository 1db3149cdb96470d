"""Reads all that belongs to a ModelDeployment, and wakes who waits for a change of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from slipway_cli.problem import Problem
from slipway_cli.session import MODEL_DEPLOYMENTS, ApiError, Manifest, Session
from slipway_cli.views.world import World
from slipway_operator.domain import labels

DEPLOYMENTS = "apps/v1/deployments"
REVISIONS = "apps/v1/controllerrevisions"
PODS = "v1/pods"
JOBS = "batch/v1/jobs"
SERVICES = "v1/services"

_CALM_SECONDS = 0.15
"""Changes come in flocks: a pod that starts is several; one look afterwards sees them all."""


def read_log(session: Session, name: str) -> tuple[Manifest, ...]:
    """The log's entries, oldest first; what is no entry is left to `doctor` to name."""
    found = session.list(session.path(REVISIONS), selector=f"{labels.OWNER}={name},{labels.LOG}=true")
    entries = [item["data"] for item in found if isinstance((item.get("data") or {}).get("number"), int)]
    return tuple(sorted(entries, key=lambda entry: int(entry["number"])))


def read_world(session: Session, name: str) -> World:
    """Look at everything of one deployment.

    Raises:
        Problem: There is none, or the cluster does not answer. Kinds that may not be listed are in ``unseen``.
    """
    resource = session.deployment(name)
    unseen: list[str] = []

    def listed(kind: str) -> tuple[Manifest, ...]:
        try:
            return tuple(session.list(session.path(kind), selector=f"{labels.OWNER}={name}"))
        except ApiError as error:
            if error.status != 403:
                raise
            unseen.append(kind.rpartition("/")[2])
            return ()

    def logged() -> tuple[Manifest, ...]:
        try:
            return read_log(session, name)
        except ApiError as error:
            if error.status != 403:
                raise
            unseen.append("controllerrevisions")
            return ()

    return World(
        resource=resource,
        entries=logged(),
        deployments=listed(DEPLOYMENTS),
        pods=listed(PODS),
        jobs=listed(JOBS),
        service=next(iter(listed(SERVICES)), None),
        unseen=tuple(unseen),
    )


class Bell:
    """Rings when something changed; whoever waits looks at everything again."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._over = threading.Event()

    def ring(self) -> None:
        """Say that something changed."""
        self._rung.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a change, at most so long; True when there was one."""
        rung = self._rung.wait(seconds)
        if rung:
            self._over.wait(_CALM_SECONDS)
            self._rung.clear()
        return rung

    def watch(self, events: Callable[[], Iterator[Manifest]]) -> None:
        """Ring at each event of a watch, and start it again when it ends; for a thread of its own."""
        while not self._over.is_set():
            try:
                for _ in events():
                    self.ring()
                    if self._over.is_set():
                        return
            except Problem:
                # Whoever waits looks at the cluster anyway, and says what is wrong with it.
                self._over.wait(2)
            self.ring()
            self._over.wait(0.2)

    def stop(self) -> None:
        """Let the watches end."""
        self._over.set()


@contextmanager
def changes(session: Session, *, name: str | None = None, everywhere: bool = False) -> Iterator[Bell]:
    """A bell that rings when a deployment, or any of a namespace, changes."""
    bell = Bell()
    if name is None:
        path = session.path(MODEL_DEPLOYMENTS, everywhere=everywhere)
        watched = [partial(session.watch, path)]
    else:
        own, selector = session.path(MODEL_DEPLOYMENTS), f"{labels.OWNER}={name}"
        watched = [partial(session.watch, own, fields=f"metadata.name={name}")]
        watched += [
            partial(session.watch, session.path(kind), selector=selector)
            for kind in (REVISIONS, DEPLOYMENTS, PODS, JOBS)
        ]
    for events in watched:
        threading.Thread(target=bell.watch, args=(events,), daemon=True).start()
    try:
        yield bell
    finally:
        bell.stop()
