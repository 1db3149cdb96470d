"""``report``: a support bundle. Secrets are never read; what else may hold one goes through `views.redact`."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.commands.doctor import examine
from slipway_cli.installation import operators
from slipway_cli.observe import read_world
from slipway_cli.options import HERE, SAME_REGISTRY, Where
from slipway_cli.problem import Problem
from slipway_cli.session import MODEL_DEPLOYMENTS, Manifest, Session
from slipway_cli.views.overview import overview
from slipway_cli.views.redact import Redactor
from slipway_operator.domain import labels

_OWNED = (
    "apps/v1/deployments",
    "apps/v1/controllerrevisions",
    "batch/v1/jobs",
    "v1/pods",
    "v1/services",
    "v1/configmaps",
    "policy/v1/poddisruptionbudgets",
    "autoscaling/v2/horizontalpodautoscalers",
    "networking.k8s.io/v1/networkpolicies",
)
_README = """\
A support bundle of Slipway, written {moment}.

doctor.json        what `kubectl slipway doctor` found
overview.json      what `kubectl slipway get -o json` shows
objects/           the deployment and all that belongs to it; events
logs/              the last {lines} lines of each container, and of the operator
problems.txt       what could not be read

No Secret was read. {count} values were taken out and stand as [redacted]: values of
environment variables, of fields and arguments whose names speak of passwords, tokens or
keys, and whatever looks like one. Read it before you pass it on all the same.
"""


def report(
    name: str | None = None,
    /,
    *,
    to: Path | None = None,
    tail: Annotated[int, Parameter(name="--tail")] = 500,
    where: Where = HERE,
) -> None:
    """Write a support bundle.

    Parameters
    ----------
    name
        Only this deployment; without it, all of the namespace.
    to
        The zip file; without it, slipway-report-<time>.zip.
    tail
        Lines of each log.
    """
    session = Session.open(where)
    now = datetime.now(UTC)
    if name is not None:
        session.deployment(name)
    target = to if to is not None else Path(f"slipway-report-{now:%Y%m%d-%H%M%S}.zip")
    bundle = Bundle(session, now, tail)
    bundle.collect(name)
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path, text in sorted(bundle.files.items()):
            archive.writestr(path, text)
    screen.say(f"{target}: {len(bundle.files)} files, {bundle.redactor.count} values redacted")
    if bundle.problems:
        screen.say(f"{len(bundle.problems)} things could not be read: see problems.txt in it")


class Bundle:
    """The files of one report, redacted as they come in; objects before logs, so that logs profit from them."""

    def __init__(self, session: Session, now: datetime, tail: int) -> None:
        self._session = session
        self._now = now
        self._tail = tail
        self.redactor = Redactor()
        self.files: dict[str, str] = {}
        self.problems: list[str] = []

    def collect(self, name: str | None) -> None:
        """Read everything; what cannot be read is a problem of the bundle, not of the command."""
        session = self._session
        everything = list(self._listed(session.path(MODEL_DEPLOYMENTS)))
        chosen = [item for item in everything if name in {None, item["metadata"]["name"]}]
        pods: list[tuple[str, Manifest]] = []
        views = []
        for resource in chosen:
            own = str(resource["metadata"]["name"])
            self._object(f"objects/{own}/modeldeployment.json", resource)
            for kind in _OWNED:
                items = list(self._listed(session.path(kind), f"{labels.OWNER}={own}"))
                self._object(f"objects/{own}/{kind.rpartition('/')[2]}.json", items)
                pods += [("", pod) for pod in items if kind == "v1/pods"]
            try:
                views.append(overview(read_world(session, own), self._now))
            except Problem as problem:
                self.problems.append(f"overview of {own}: {problem.message}")
        self._object("objects/events.json", list(self._listed(session.path("v1/events"))))
        pods += self._platform()
        self._object("overview.json", views)
        self._object("doctor.json", self._examined(name))
        for namespace, pod in pods:
            self._logs(namespace, pod)
        self._text("problems.txt", "\n".join(self.problems) + "\n")
        self._text(
            "README.txt",
            _README.format(moment=f"{self._now:%Y-%m-%d %H:%M:%S} UTC", lines=self._tail, count=self.redactor.count),
        )

    def _examined(self, name: str | None) -> list[Manifest]:
        try:
            return [asdict(finding) for finding in examine(self._session, name, SAME_REGISTRY)]
        except Problem as problem:
            self.problems.append(f"doctor: {problem.message}")
            return []

    def _platform(self) -> Iterator[tuple[str, Manifest]]:
        session = self._session
        versions = {"cli": version("slipway-cli"), "python": platform.python_version(), "system": platform.platform()}
        try:
            versions["kubernetes"] = str(session.get("/version").get("gitVersion"))
            found = operators(session)
        except Problem as problem:
            self.problems.append(f"operator: {problem.message}")
            found = []
        self._object("versions.json", versions)
        for operator in found:
            namespace = str(operator["metadata"]["namespace"])
            self._object(f"objects/operator/{namespace}.json", operator)
            selector = ",".join(f"{k}={v}" for k, v in operator["spec"]["selector"]["matchLabels"].items())
            for pod in self._listed(session.path("v1/pods", namespace=namespace), selector):
                self._object(f"objects/operator/{pod['metadata']['name']}.json", pod)
                yield namespace, pod

    def _listed(self, path: str, selector: str = "") -> Iterator[Manifest]:
        try:
            yield from self._session.list(path, selector=selector)
        except Problem as problem:
            self.problems.append(f"{path}: {problem.message}")

    def _logs(self, namespace: str, pod: Manifest) -> None:
        name, spec = str(pod["metadata"]["name"]), pod.get("spec") or {}
        states = {
            state["name"]: state
            for group in ("initContainerStatuses", "containerStatuses")
            for state in (pod.get("status") or {}).get(group) or ()
        }
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
            for previous in (False, True):
                if previous and not states.get(container["name"], {}).get("restartCount"):
                    continue
                options = [("tailLines", str(self._tail)), ("timestamps", "true")]
                options += [("previous", "true")] if previous else []
                where = f"logs/{name}/{container['name']}{'.previous' if previous else ''}.log"
                try:
                    lines = self._session.log(name, container["name"], options=options, namespace=namespace or None)
                    self._text(where, "\n".join(lines) + "\n")
                except Problem as problem:
                    self.problems.append(f"{where}: {problem.message}")

    def _object(self, path: str, value: Any) -> None:
        self.files[path] = json.dumps(self.redactor.object(value), indent=1, ensure_ascii=False) + "\n"

    def _text(self, path: str, text: str) -> None:
        self.files[path] = self.redactor.text(text)
