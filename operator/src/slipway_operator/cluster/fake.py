"""A cluster in memory, for tests: it keeps objects as the API server would, and nothing more.

Server-side apply with the fields of one manager, generation, status, labels, owner
references, and a few helpers that play the parts of Kubernetes' own controllers.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from slipway_operator.cluster.kinds import OWNED
from slipway_operator.cluster.protocol import ConflictError
from slipway_operator.domain import labels
from slipway_operator.domain.conditions import find_condition
from slipway_operator.domain.durations import format_time
from slipway_operator.domain.keys import Key
from slipway_operator.domain.requests import Message
from slipway_operator.plan.observed import Event, Manifest, Ref, ref_of

_START = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FakeCluster:
    """Objects by reference, a clock that the test moves, and a list of all writes."""

    def __init__(self) -> None:
        self.now = _START
        self.objects: dict[Ref, Manifest] = {}
        self.writes: list[tuple[str, Ref]] = []
        self.emitted: list[Event] = []
        self.warnings: list[Manifest] = []
        self.before_write: Callable[[str, Ref], None] = lambda _verb, _ref: None
        """Called before each write; raises to play a crash or a refusal."""
        self.admit: Callable[[Manifest], None] = lambda _manifest: None
        """What a mutating webhook makes of an object that is applied."""
        self._applied: dict[Ref, Manifest] = {}
        self._numbers: Iterator[int] = itertools.count(2)  # as etcd: 1 is before the first write

    # What the controllers call

    async def get(self, ref: Ref) -> Manifest | None:
        """The object, or None."""
        return copy.deepcopy(self.objects.get(ref))

    async def list_owned(self, namespace: str, owner: str, *, anew: bool = False) -> Sequence[Manifest]:
        """Everything that carries the owner's label."""
        del anew
        return [
            copy.deepcopy(m)
            for ref, m in self.objects.items()
            if (ref.api_version, ref.kind) in OWNED
            and ref.namespace == namespace
            and (m["metadata"].get("labels") or {}).get(labels.OWNER) == owner
        ]

    async def list_everywhere(self) -> Sequence[Manifest]:
        """Everything that names images."""

        def is_listed(kind: str, meta: Manifest) -> bool:
            if kind in {"Job", "Pod"}:
                return bool((meta.get("labels") or {}).get(labels.STEP) == "build")
            return kind in {"ModelDeployment", "ControllerRevision"}

        return [copy.deepcopy(m) for r, m in self.objects.items() if is_listed(r.kind, m["metadata"])]

    async def list_events(self, namespace: str, uids: Sequence[str]) -> Sequence[Manifest]:
        """The warnings that the test put there."""
        return [
            e for e in self.warnings if e["metadata"]["namespace"] == namespace and e["involvedObject"]["uid"] in uids
        ]

    async def is_newest(self, key: Key, entries: Sequence[Manifest]) -> bool:
        """Nothing is remembered, so nothing is old."""
        del key, entries
        return True

    def is_certain(self, key: Key) -> bool:
        """Nothing is remembered, so nothing is old."""
        del key
        return True

    def tell(self, key: Key, *, waits: bool) -> None:
        """Nothing is remembered."""

    def doubt(self, key: Key) -> None:
        """Nothing is remembered."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply: what this manager applied before and leaves out now goes."""
        ref = ref_of(manifest)
        self._write("apply", ref)
        wanted = copy.deepcopy(manifest)
        version = wanted["metadata"].pop("resourceVersion", None)
        live = self.objects.get(ref)
        if live is None:
            self._applied[ref] = wanted
            return copy.deepcopy(self.add(wanted))
        if version is not None and version != live["metadata"]["resourceVersion"]:
            raise ConflictError(f"{ref} changed")
        before = copy.deepcopy(live)
        _drop(live, self._applied.get(ref, {}), wanted)
        _merge(live, _as_stored(wanted))
        self._applied[ref] = wanted
        self.admit(live)
        self._touch(live, before)
        return copy.deepcopy(live)

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object. None: one of that name exists already."""
        ref = ref_of(manifest)
        self._write("create", ref)
        if ref in self.objects:
            return None
        return copy.deepcopy(self.add(manifest))

    async def delete(self, ref: Ref, uid: str | None = None) -> Manifest | None:
        """Delete an object and what it owns."""
        self._write("delete", ref)
        live = self.objects.get(ref)
        if live is not None and uid not in {None, live["metadata"]["uid"]}:
            raise ConflictError(f"another {ref} took its place")
        self.remove(ref)
        return None

    async def write_status(self, resource: Mapping[str, Any], status: Manifest) -> str:
        """Replace a status; a conflict where the object changed since it was read."""
        ref = ref_of(resource)
        self._write("status", ref)
        live = self.objects.get(ref)
        if live is None or live["metadata"]["resourceVersion"] != resource["metadata"]["resourceVersion"]:
            raise ConflictError(f"{ref} changed")
        live["status"] = _as_stored(status)
        live["metadata"]["resourceVersion"] = str(next(self._numbers))
        return str(live["metadata"]["resourceVersion"])

    async def emit(self, resource: Mapping[str, Any], event: Event) -> None:
        """Keep an event."""
        del resource
        self.emitted.append(event)

    # What a test does

    def add(self, manifest: Manifest) -> Manifest:
        """Put an object there as the API server stores it."""
        manifest = _as_stored(manifest)
        meta = manifest["metadata"]
        number = next(self._numbers)
        meta.setdefault("uid", f"uid-{number}")
        meta["resourceVersion"] = str(number)
        meta["creationTimestamp"] = format_time(self.now)
        meta["generation"] = 1
        self.objects[ref_of(manifest)] = manifest
        return manifest

    def remove(self, ref: Ref) -> None:
        """Take an object away, and whatever belongs to it, as the garbage collector does."""
        gone = self.objects.pop(ref, None)
        self._applied.pop(ref, None)
        if gone is None:
            return
        uid = gone["metadata"]["uid"]
        owned = [
            r
            for r, m in self.objects.items()
            if any(o["uid"] == uid for o in m["metadata"].get("ownerReferences") or ())
        ]
        for other in owned:
            self.remove(other)

    def edit(self, ref: Ref, change: Callable[[Manifest], None]) -> None:
        """Change an object as another client would."""
        live = self.objects[ref]
        before = copy.deepcopy(live)
        change(live)
        live.update(_as_stored(live))
        self._touch(live, before)

    def of_kind(self, kind: str) -> list[Manifest]:
        """All objects of a kind, by name."""
        return [m for r, m in sorted(self.objects.items()) if r.kind == kind]

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.now += timedelta(seconds=seconds)

    def run_pod(self, job: Manifest, **states: Any) -> Manifest:
        """Play the Job controller and the kubelet: a pod with these container states.

        Args:
            job: The Job.
            states: State by container name, as in ``containerStatuses[].state``; others wait.
        """
        name = job["metadata"]["name"]
        ref = Ref("v1", "Pod", job["metadata"]["namespace"], f"{name}-pod")
        template = job["spec"]["template"]
        spec = template["spec"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": ref.name,
                "namespace": ref.namespace,
                "labels": dict(template["metadata"]["labels"]),
                "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
                ],
            },
            "spec": copy.deepcopy(spec),
            "status": {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"name": c["name"], "image": c["image"], "state": states.get(c["name"], {"waiting": {}})}
                    for c in spec.get("initContainers", ())
                ],
                "containerStatuses": [
                    {"name": c["name"], "image": c["image"], "state": states.get(c["name"], {"waiting": {}})}
                    for c in spec["containers"]
                ],
            },
        }
        self.objects.pop(ref, None)
        job.setdefault("status", {})["startTime"] = job["metadata"]["creationTimestamp"]
        return self.add(pod)

    def finish_job(self, job: Manifest, answer: Message) -> None:
        """Play a Job that succeeds with this answer."""
        done = {"exitCode": 0, "finishedAt": format_time(self.now)}
        text = answer.model_dump_json(by_alias=True, exclude_none=True)
        inits = {c["name"]: {"terminated": done} for c in job["spec"]["template"]["spec"].get("initContainers", ())}
        self.run_pod(job, **inits, push={"terminated": {**done, "message": text}})
        self._end(job, "Complete")

    def fail_job(self, job: Manifest, container: str, **terminated: Any) -> None:
        """Play a Job whose container ends with a failure."""
        ended = {"exitCode": 1, "finishedAt": format_time(self.now), **terminated}
        self.run_pod(job, **{container: {"terminated": ended}})
        self._end(job, "Failed", reason="BackoffLimitExceeded")

    def settle_deployments(self) -> None:
        """Play the Deployment controller on a cluster where every pod becomes ready."""
        for deployment in self.of_kind("Deployment"):
            count = deployment["spec"]["replicas"]
            before = find_condition((deployment.get("status") or {}).get("conditions") or (), "Available")
            since = before["lastTransitionTime"] if before is not None else format_time(self.now)
            deployment["status"] = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": count,
                "updatedReplicas": count,
                "readyReplicas": count,
                "availableReplicas": count,
                "conditions": [{"type": "Available", "status": "True", "lastTransitionTime": since}],
            }

    def _end(self, job: Manifest, kind: str, **more: str) -> None:
        condition = {"type": kind, "status": "True", "lastTransitionTime": format_time(self.now), **more}
        job["status"]["conditions"] = [condition]

    def _write(self, verb: str, ref: Ref) -> None:
        self.before_write(verb, ref)
        self.writes.append((verb, ref))

    def _touch(self, live: Manifest, before: Manifest) -> None:
        if live == before:
            return
        live["metadata"]["resourceVersion"] = str(next(self._numbers))
        if live.get("spec") != before.get("spec"):
            live["metadata"]["generation"] += 1


def _as_stored(value: Any) -> Any:
    """A copy, as it comes back: Go writes a number that is whole without a point, whatever it was sent as."""
    return json.loads(json.dumps(value), parse_float=_number)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _drop(live: Any, before: Any, wanted: Any) -> None:
    if not isinstance(live, dict) or not isinstance(before, dict) or not isinstance(wanted, dict):
        return
    for name, value in before.items():
        if name not in wanted:
            live.pop(name, None)
        else:
            _drop(live.get(name), value, wanted[name])


def _merge(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if isinstance(value, dict) and isinstance(live.get(name), dict):
            _merge(live[name], value)
        else:
            live[name] = copy.deepcopy(value)
