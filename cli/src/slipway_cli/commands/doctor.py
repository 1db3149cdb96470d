"""``doctor``: looks at an installation and at deployments, and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from slipway_cli import screen
from slipway_cli.artifacts import Artifacts
from slipway_cli.installation import OPERATOR, operators
from slipway_cli.observe import PODS, REVISIONS, read_world
from slipway_cli.options import HERE, SAME_REGISTRY, Data, RegistryOptions, Where
from slipway_cli.problem import Code, Problem
from slipway_cli.session import MODEL_DEPLOYMENTS, ApiError, Session
from slipway_cli.views import findings
from slipway_cli.views.findings import Finding
from slipway_cli.views.node import Mark, Node
from slipway_operator.builder.errors import StepFailed
from slipway_operator.domain import labels

_CRDS = "apiextensions.k8s.io/v1/customresourcedefinitions"
_REVIEWS = "authorization.k8s.io/v1/selfsubjectaccessreviews"
_MARKS = {"ok": Mark.OK, "note": Mark.BUSY, "warning": Mark.WAIT, "fault": Mark.FAIL}
_RIGHTS = (
    ("see deployments", "list", "slipway.dev", "modeldeployments", ""),
    ("change deployments", "patch", "slipway.dev", "modeldeployments", ""),
    ("read the log", "list", "apps", "controllerrevisions", ""),
    ("see pods", "list", "", "pods", ""),
    ("read pods' logs", "get", "", "pods", "log"),
    ("see Jobs", "list", "batch", "jobs", ""),
)


def doctor(
    name: str | None = None,
    /,
    *,
    output: Data = None,
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> int:
    """Find what is wrong.

    Exit codes: 0 nothing is broken (there may be warnings), 4 something is, 1 it could not look.

    Parameters
    ----------
    name
        Only this deployment; without it, all of the namespace.
    output
        json or yaml for programs.
    """
    session = Session.open(where)
    found = examine(session, name, registry)
    faults = any(finding.level == "fault" for finding in found)
    if output is not None:
        screen.data([asdict(finding) for finding in found], output)
    else:
        screen.nodes([_node(finding) for finding in found])
        count = sum(finding.level in {"fault", "warning"} for finding in found)
        screen.say(
            f"{count} of {len(found)} things want attention" if count else f"{len(found)} things looked at: all well"
        )
    return Code.FAILED if faults else Code.OK


def _node(finding: Finding) -> Node:
    below = (Node(text=finding.advice),) if finding.advice else ()
    return Node(mark=_MARKS[finding.level], text=finding.what, children=below)


def examine(session: Session, name: str | None, registry: RegistryOptions) -> list[Finding]:
    """All checks, one after the other; one that cannot look says so and the others go on.

    Raises:
        Problem: The cluster does not answer at all.
    """
    found = findings.of_version(session.get("/version"))
    for check in (_crds, _operators, _rights, _programs):
        found += _tried(check, session)
    try:
        names = (
            [name]
            if name
            else [str(item["metadata"]["name"]) for item in session.list(session.path(MODEL_DEPLOYMENTS))]
        )
    except ApiError as error:
        return [*found, Finding("fault", f"the deployments cannot be listed: {error.message}")]
    for each in names:
        found += _tried(lambda session, each=each: _deployment(session, each, registry), session)  # type: ignore[misc]
    if not names:
        found.append(Finding("note", f"there is no ModelDeployment in the namespace {session.namespace}"))
    return found


def _tried(check: Callable[[Session], Iterator[Finding]], session: Session) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check(session):
            found.append(finding)  # noqa: PERF402 - what was found before an error counts
    except ApiError as error:
        level: findings.Level = "note" if error.status == 403 else "fault"
        found.append(Finding(level, f"could not look: {error.message}"))
    return found


def _crds(session: Session) -> Iterator[Finding]:
    for name in ("modeldeployments.slipway.dev", "retrainjobs.slipway.dev"):
        yield from findings.of_crd(name, session.find(session.path(_CRDS, name, namespace="")))


def _operators(session: Session) -> Iterator[Finding]:
    found = operators(session)
    namespaces = {str(operator["metadata"]["namespace"]) for operator in found}
    pods = [pod for n in sorted(namespaces) for pod in session.list(session.path(PODS, namespace=n), selector=OPERATOR)]
    yield from findings.of_operators(found, pods)


def _rights(session: Session) -> Iterator[Finding]:
    allowed: dict[str, bool | None] = {}
    for words, verb, group, resource, subresource in _RIGHTS:
        wanted = {"namespace": session.namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**wanted, **({"subresource": subresource} if subresource else {})}},
        }
        answer = session.create(session.path(_REVIEWS, namespace=""), review)
        allowed[words] = bool((answer.get("status") or {}).get("allowed"))
    yield from findings.of_rights(allowed)


def _programs(_: Session) -> Iterator[Finding]:
    for program, needed in (("crane", "diff, pull, env and deploy"), ("uv", "env"), ("git", "package and deploy")):
        if shutil.which(program) is None:
            yield Finding("note", f"the program {program} is not on the PATH", f"install it for {needed}")


def _deployment(session: Session, name: str, registry: RegistryOptions) -> Iterator[Finding]:
    from slipway_operator.domain.revisions import read_log

    world = read_world(session, name)
    faults: tuple[str, ...] = ()
    if "controllerrevisions" not in world.unseen:
        selector = f"{labels.OWNER}={name},{labels.LOG}=true"
        faults = read_log(session.list(session.path(REVISIONS), selector=selector))[1]
    yield from findings.of_deployment(world, faults, datetime.now(UTC))
    if world.entries and shutil.which("crane"):
        yield _registry(session, name, world.entries[-1], registry)


def _registry(session: Session, name: str, entry: dict[str, object], registry: RegistryOptions) -> Finding:
    """Whether the live content's model is there, as far as this machine can see."""
    try:
        artifacts = Artifacts.of(session, name, entry, registry)
        artifacts.model_file("signature.json")
    except (Problem, StepFailed) as problem:
        gone = isinstance(problem, StepFailed) and problem.reason == "ImageNotFound"
        advice = (
            "restore it: a pod that starts anew needs it"
            if gone
            else "from here; the cluster may reach it all the same"
        )
        return Finding("fault" if gone else "note", f"the model of {name} in the registry: {problem.message}", advice)
    return Finding("ok", f"the registry holds the live model of {name}")
