"""The lines of ``get``: deployment → contents → pods, from what `overview` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slipway_cli.views.node import Mark, Node
from slipway_cli.views.words import short

MARKS = {
    "Ready": Mark.OK,
    "Moving": Mark.BUSY,
    "Unseen": Mark.BUSY,
    "Paused": Mark.WAIT,
    "Held": Mark.WAIT,
    "Stalled": Mark.FAIL,
}
_STEP_MARKS = {
    "Succeeded": Mark.OK,
    "Running": Mark.BUSY,
    "Waiting": Mark.BUSY,
    "Failed": Mark.FAIL,
    "Pending": Mark.OFF,
    "Skipped": Mark.OFF,
}
_TROUBLED = ("BackOff", "Err", "Error", "OOMKilled", "Failed", "Evicted", "Invalid")


def tree(view: Mapping[str, Any], *, wide: bool = False) -> Node:
    """One deployment as a tree.

    Args:
        view: What `overview` gave.
        wide: Steps that are done, all digests, and the pods' nodes too.
    """
    children = [Node(text=str(view["message"]))] if str(view["summary"]).endswith("…") else []
    children.append(Node(text=f"source {view['source']}{_at(view['commit'])}"))
    children += [_request(request) for request in view["requests"] if wide or request.get("state") != "Done"]
    children += _steps(view, wide=wide)
    children += [_content(content, view, wide=wide) for content in view["contents"]]
    if view["unseen"]:
        children.append(Node(mark=Mark.OFF, text=f"you may not list {', '.join(view['unseen'])} here"))
    return Node(
        mark=MARKS[view["state"]],
        text=f"{view['name']}  {view['summary']}",
        age=view["age"],
        children=tuple(children),
    )


def _at(commit: str | None) -> str:
    return f" at {short(commit)}" if commit else ""


def _request(request: Mapping[str, Any]) -> Node:
    mark = {"Done": Mark.OK, "Refused": Mark.FAIL}.get(str(request.get("state")), Mark.BUSY)
    verb, state = str(request.get("verb", "")).lower(), str(request.get("state", "Pending")).lower()
    words = f"request {verb} {request.get('id', '')}: {state}"
    return Node(mark=mark, text=words + (f", {request['message']}" if request.get("message") else ""))


def _steps(view: Mapping[str, Any], *, wide: bool) -> list[Node]:
    steps = view["steps"]
    if not wide and all(step["state"] in {"Succeeded", "Skipped"} for step in steps):
        return []
    return [
        Node(
            mark=_STEP_MARKS.get(step["state"], Mark.NONE),
            text=f"{step['name'].lower()} {step['state'].lower()}"
            + (f": {step['message']}" if step["message"] else ""),
            age=step["took"],
            children=tuple(_pod(pod, wide=wide, job=True) for pod in step["pods"])
            if step["state"] not in {"Succeeded", "Skipped"}
            else (),
        )
        for step in steps
    ]


def _content(content: Mapping[str, Any], view: Mapping[str, Any], *, wide: bool) -> Node:
    ready = sum(1 for pod in content["pods"] if pod["ready"])
    words = [content["content"], content["role"], f"{content['share']:.0%}"]
    if content["revision"]:
        words.append(f"revision {content['revision']}")
    words.append(f"{ready}/{len(content['pods'])} pods ready")
    digests = content["digests"]
    words += [f"{name} {short(digests[name])}" for name in ("commit", "model") if digests.get(name)]
    if content["held"]:
        words.append(f"held: {content['held']}")
    children = [_pod(pod, wide=wide) for pod in content["pods"]]
    if content["role"] == "canary" and view["rollout"]:
        children.insert(0, Node(text=_measured(view["rollout"])))
    if wide:
        children = [Node(text=f"{name} {digest}") for name, digest in digests.items()] + children
    return Node(mark=_content_mark(content, ready), text="  ".join(words), age=content["age"], children=tuple(children))


def _content_mark(content: Mapping[str, Any], ready: int) -> Mark:
    if content["role"] == "held":
        return Mark.WAIT
    if not content["pods"]:
        return Mark.OFF
    if ready == len(content["pods"]):
        return Mark.OK if content["role"] == "live" else Mark.OFF if content["role"] == "standby" else Mark.BUSY
    return Mark.FAIL if content["role"] == "live" and not ready else Mark.BUSY


def _measured(rollout: Mapping[str, Any]) -> str:
    words = [f"{rollout.get('state', 'Canary').lower()}: {rollout.get('pods', 0)} of {rollout.get('of', 0)} pods"]
    if rollout.get("requests") is not None:
        words.append(f"{rollout['requests']} requests")
    if rollout.get("errorRate") is not None:
        words.append(f"{float(rollout['errorRate']):.2%} errors")
    if rollout.get("refusalRate"):
        words.append(f"{float(rollout['refusalRate']):.2%} refused by the model")
    if rollout.get("p99LatencyMillis") is not None:
        words.append(f"p99 {rollout['p99LatencyMillis']} ms")
    return ", ".join(words)


def _pod(pod: Mapping[str, Any], *, wide: bool, job: bool = False) -> Node:
    words = [pod["name"], pod["status"]]
    words += [] if job else [f"{pod['containers']} ready"]
    words += [f"{pod['restarts']} restart{'' if pod['restarts'] == 1 else 's'}"] if pod["restarts"] else []
    words += [f"on {pod['node']}"] if wide and pod["node"] else []
    if any(word in pod["status"] for word in _TROUBLED):
        mark = Mark.FAIL
    elif pod["ready"]:
        mark = Mark.OK
    else:
        mark = Mark.OFF if pod["status"] in {"Completed", "Succeeded", "Terminating"} else Mark.BUSY
    return Node(mark=mark, text="  ".join(words), age=pod["age"])
