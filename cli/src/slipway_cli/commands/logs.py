"""``logs``: of a step's Job, container by container, or of the pods that answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from slipway_cli import screen
from slipway_cli.observe import JOBS, PODS
from slipway_cli.options import HERE, SAME_REGISTRY, Flag, RegistryOptions, Where
from slipway_cli.problem import Problem
from slipway_cli.session import ApiError, Manifest, Session
from slipway_cli.waiting import seconds
from slipway_operator.domain import labels

Step = Literal["runtime", "resolve", "build", "train", "export", "verify", "remove"]
_STARTING_SECONDS = 1.0
_AHEAD = 1000
"""Lines that are read before they are printed."""
JOB_NAME = "batch.kubernetes.io/job-name"


def logs(  # noqa: PLR0913 - one for each option of the command line
    name: str,
    step: Step = "runtime",
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"]), Flag] = False,
    container: Annotated[str | None, Parameter(name=["--container", "-c"])] = None,
    content: str | None = None,
    tail: int | None = None,
    since: str | None = None,
    previous: Annotated[bool, Parameter(name=["--previous", "-p"]), Flag] = False,
    registry: RegistryOptions = SAME_REGISTRY,
    where: Where = HERE,
) -> None:
    """Print logs.

    Parameters
    ----------
    name
        The deployment.
    step
        runtime: the pods that answer; build, train, export, …: the newest Job of that step.
    follow
        Go on as they are written.
    container
        Only this container (fetch, run or push of a step; runtime of a pod).
    content
        Pods of this content instead of the live one (its short digest).
    tail
        Only the last lines of each.
    since
        Only what is newer, such as 10m.
    previous
        Of the container that ran before the last restart.
    """
    session = Session.open(where)
    resource = session.deployment(name)
    options = [("tailLines", str(tail))] if tail is not None else []
    options += [("sinceSeconds", str(int(seconds(since, "--since"))))] if since else []
    options += [("previous", "true")] if previous else []
    if step == "runtime":
        chosen = content or ((resource.get("status") or {}).get("live") or {}).get("content")
        pods = _runtime_pods(session, name, chosen)
        _print_all(session, pods, container or "runtime", options, follow=follow)
        return
    pod = _pod_of_step(session, name, step)
    if pod is None and step == "train":
        # The Job is gone after a while; its log is in the registry as long as the content is.
        from slipway_cli.commands.pull import training_log

        screen.say(training_log(session, name, registry).rstrip("\n"))
        return
    if pod is None:
        raise Problem(f"{name} has no pod of the step {step}: it has not run, or its Job was cleaned up")
    _print_containers(session, pod, container, options, follow=follow)


def _runtime_pods(session: Session, name: str, content: str | None) -> list[Manifest]:
    if content is None:
        raise Problem(f"nothing of {name} is live yet: name a step, such as `logs {name} build`")
    # A canary's pods carry a label of their own in place of the content's.
    pods = [
        pod
        for label in (labels.CONTENT, labels.CANARY)
        for pod in session.list(session.path(PODS), selector=f"{labels.OWNER}={name},{label}={content}")
    ]
    if not pods:
        raise Problem(f"{name} has no pod of the content {content}")
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


def _pod_of_step(session: Session, name: str, step: str) -> Manifest | None:
    jobs = session.list(session.path(JOBS), selector=f"{labels.OWNER}={name},{labels.STEP}={step}")
    for job in sorted(jobs, key=lambda job: str(job["metadata"].get("creationTimestamp")), reverse=True):
        pods = session.list(session.path(PODS), selector=f"{JOB_NAME}={job['metadata']['name']}")
        if pods:
            return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
    return None


def _print_containers(
    session: Session, pod: Manifest, only: str | None, options: Sequence[tuple[str, str]], *, follow: bool
) -> None:
    """The containers of a Job run one after the other, and so are their logs."""
    names = [c["name"] for c in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])]
    if only is not None and only not in names:
        raise Problem(f"the pod has no container {only!r}: it has {', '.join(names)}")
    for number, name in enumerate(names):
        if only not in {None, name}:
            continue
        if only is None:
            screen.say(("\n" if number else "") + f"==> {name}")
        try:
            for line in _lines(session, str(pod["metadata"]["name"]), name, options, follow=follow):
                screen.say(line)
        except ApiError as error:
            if error.status != 400:
                raise
            screen.tell(f"{name}: {error.message}")


def _lines(
    session: Session, pod: str, container: str, options: Sequence[tuple[str, str]], *, follow: bool
) -> Iterator[str]:
    """A container's log; one that has not started yet is waited for, if its log is to be followed."""
    while True:
        try:
            yield from session.log(pod, container, follow=follow, options=options)
        except ApiError as error:
            if error.status != 400 or not follow or _has_ended(session, pod):
                raise
            time.sleep(_STARTING_SECONDS)
        else:
            return


def _has_ended(session: Session, pod: str) -> bool:
    return (session.get(session.path(PODS, pod)).get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _print_all(
    session: Session, pods: Sequence[Manifest], container: str, options: Sequence[tuple[str, str]], *, follow: bool
) -> None:
    names = [str(pod["metadata"]["name"]) for pod in pods]
    if not follow or len(names) == 1:
        for name in names:
            for line in _lines(session, name, container, options, follow=follow):
                screen.say(f"{_prefix(name, names)}{line}")
        return
    # Threads read and this one prints: once nobody listens, the command ends, however quiet the other pods are.
    read: queue.Queue[_Said | None] = queue.Queue(_AHEAD)
    for name in names:
        lines = _lines(session, name, container, options, follow=True)
        threading.Thread(target=_copy, args=(lines, _prefix(name, names), read), daemon=True).start()
    reading = len(names)
    while reading:
        said = read.get()
        if said is None:
            reading -= 1
        else:
            (screen.tell if said.is_remark else screen.say)(said.text)


def _prefix(name: str, names: Sequence[str]) -> str:
    return f"[{name.rpartition('-')[2]}] " if len(names) > 1 else ""


@dataclass(frozen=True)
class _Said:
    text: str
    is_remark: bool = False


def _copy(lines: Iterator[str], prefix: str, to: queue.Queue[_Said | None]) -> None:
    """Put a pod's lines, and None at its end."""
    try:
        for line in lines:
            to.put(_Said(f"{prefix}{line}"))
    except Problem as problem:
        # One pod that goes away must not end the others' logs.
        to.put(_Said(f"{prefix}{problem.message}", is_remark=True))
    finally:
        to.put(None)
