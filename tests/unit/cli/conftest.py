"""An API server of a few dozen lines, a deployment with a history on it, and the command line as a process.

The server is for fast tests of what is asked and shown; tests/e2e/test_cli.py has the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway_cli.__main__ import main

Manifest = dict[str, Any]
TOKEN = "person-token-4711"
USER = "ada@example.com"
NAMESPACE = "airline"
NAME = "flight-delay"
OLD, NEW, BAD = "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"
COLLECTION = f"/apis/slipway.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"


def _nobody(_path: str, _manifest: Manifest) -> None:
    """No operator."""


def _anything(_annotations: dict[str, str | None]) -> str:
    """No policy."""
    return ""


class Api:
    """Objects by path; whoever writes wakes the watches, and may be answered by an operator of the test's."""

    def __init__(self) -> None:
        self.objects: dict[str, Manifest] = {
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
        }
        self.logs: dict[str, str] = {}
        self.quiet = False
        """Whether whoever follows a log hears no more after what is there."""
        self.down = False
        self.forbidden: set[str] = set()
        self.managers: dict[str, str] = {}
        """Who, in the API server's words, manages fields that an apply would change: path of the field → manager."""
        self.writes: list[tuple[str, dict[str, str], str, Manifest]] = []
        self.reviews: list[str] = []
        self.operator: Callable[[str, Manifest], None] = _nobody
        self.policy: Callable[[dict[str, str | None]], str] = _anything
        """What a policy says to annotations that are written; empty: nothing."""
        self.changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        with self.changed:
            self._server.shutdown()
            self.changed.notify_all()
        self._server.server_close()
        self._thread.join()

    def put(self, collection: str, *manifests: Manifest) -> None:
        for manifest in manifests:
            self.objects[f"{collection}/{manifest['metadata']['name']}"] = manifest
        self.touch()

    def touch(self) -> None:
        with self.changed:
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.api.down:
            self._status(503, "the server is restarting")
            return
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self._refused(url.path):
            return
        if url.path in self.api.logs and query.get("follow") and self.api.quiet:
            self._watch(self.api.logs[url.path].encode())
        elif url.path in self.api.logs:
            self._answer(200, self.api.logs[f"{url.path}"].encode(), "text/plain")
        elif url.path.endswith("/log"):
            self._status(400, f'container "{query.get("container")}" is waiting to start')
        elif url.path in self.api.objects:
            self._answer(200, self.api.objects[url.path])
        elif query.get("watch"):
            self._watch()
        elif self._is_collection(url.path):
            self._answer(200, {"items": self._items(url.path, query), "metadata": {}})
        else:
            kind, _, name = url.path.rpartition("/")
            self._status(404, f'{kind.rpartition("/")[2]} "{name}" not found')

    def do_PATCH(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused(url.path):
            return
        if said := self.api.policy((body.get("metadata") or {}).get("annotations") or {}):
            self._status(422, said)
            return
        self.api.writes.append((url.path, query, self.headers["Content-Type"], body))
        if self.api.managers and "apply" in self.headers["Content-Type"] and query.get("force") != "true":
            self._conflict()
            return
        present = self.api.objects.get(url.path)
        if present is None and "merge" in self.headers["Content-Type"]:
            self._status(404, "not found")
            return
        merged = _merged(present or {}, body)
        meta = merged.setdefault("metadata", {})
        if (present or {}).get("spec") != merged.get("spec"):
            meta["generation"] = meta.get("generation", 0) + 1
        meta.setdefault("uid", "uid-of-the-cli")
        self.api.objects[url.path] = merged
        threading.Thread(target=self._operate, args=(url.path, merged)).start()
        self._answer(200, merged)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.api.reviews.append(body["kind"])
        if self.path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
            self._answer(201, {**body, "status": {"userInfo": {"username": USER}}})
            return
        wanted = body["spec"]["resourceAttributes"]
        allowed = f"{wanted['verb']} {wanted['resource']}" not in self.api.forbidden
        self._answer(201, {**body, "status": {"allowed": allowed}})

    def _operate(self, path: str, manifest: Manifest) -> None:
        self.api.operator(path, manifest)
        self.api.touch()

    def _refused(self, path: str) -> bool:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._status(401, "Unauthorized")
            return True
        plural = path.split("?", maxsplit=1)[0]
        if any(plural.endswith(f"/{kind}") for kind in self.api.forbidden):
            self._status(403, f'{plural.rpartition("/")[2]} is forbidden: User "ada" cannot list them')
            return True
        return False

    def _is_collection(self, path: str) -> bool:
        last = path.rpartition("/")[2]
        return last.endswith("s") and "-" not in last

    def _items(self, path: str, query: dict[str, str]) -> list[Manifest]:
        kind = path.rpartition("/")[2]
        everywhere = "/namespaces/" not in path
        found = [
            manifest
            for name, manifest in sorted(self.api.objects.items())
            if (name.rpartition("/")[0] == path) or (everywhere and name.rpartition("/")[0].endswith(f"/{kind}"))
        ]
        for wanted in filter(None, query.get("labelSelector", "").split(",")):
            key, _, value = wanted.partition("=")
            found = [m for m in found if (m["metadata"].get("labels") or {}).get(key) == value]
        return found

    def _watch(self, log: bytes | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            with self.api.changed:
                if log is not None:
                    self._chunk(log)
                    self.api.changed.wait(20)
                    return
                # A watch from no version in particular begins with what is there.
                self._event("ADDED")
                while self.api.changed.wait(20):
                    self._event("MODIFIED")
        except OSError:
            return

    def _event(self, kind: str) -> None:
        self._chunk(json.dumps({"type": kind, "object": {}}).encode() + b"\n")

    def _chunk(self, content: bytes) -> None:
        if content:  # an empty one would be the last
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()

    def _status(self, code: int, message: str) -> None:
        self._answer(code, {"kind": "Status", "code": code, "message": message})

    def _conflict(self) -> None:
        """As Kubernetes 1.36 refuses an apply."""
        told = [(field, f"conflict with {manager}") for field, manager in self.api.managers.items()]
        causes = [{"reason": "FieldManagerConflict", "message": words, "field": field} for field, words in told]
        first, words = told[0]
        message = f"Apply failed with {len(told)} conflict: {words}: {first}"
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409}
        self._answer(409, {**status, "message": message, "reason": "Conflict", "details": {"causes": causes}})

    def _answer(self, code: int, body: Manifest | bytes, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def entry(number: int, content: str, **more: Any) -> Manifest:
    """``data`` of a log entry, made by hand: the digests do not make the content, which no view asks."""
    letter = content[0]
    return {
        "number": number,
        "cause": "SpecChange",
        "who": "ada",
        "whoBy": "Admission",
        "why": "spec changed",
        "at": f"2026-11-24T1{number}:00:00Z",
        "content": f"sha256:{content}{letter * 54}",
        "digests": {
            "commit": letter * 40,
            "package": digest(letter),
            "model": digest(letter),
            "onnx": digest(letter),
            "modelImage": digest(letter),
            "artifact": digest(letter),
            "signature": digest(letter),
        },
        "spec": {"source": {"git": {"url": "https://git.test/delay.git", "ref": f"v{number}"}}},
        "repository": "reg.test/models/airline/flight-delay",
        "steps": [
            {"name": "Train", "key": "1", "answer": {"metrics": {"roc_auc": 0.70 + number / 100}, "seconds": 41.0}},
            {"name": "Export", "key": "2", "answer": {"rows": 200, "maxAbsoluteDifference": 2e-7, "labelFlips": 0}},
        ],
        **more,
    }


def revision(data: Manifest, name: str = NAME) -> Manifest:
    labels = {"slipway.dev/owner": name, "slipway.dev/log": "true", "slipway.dev/content": data["content"][7:17]}
    return {"metadata": {"name": f"{name}-{data['number']}", "namespace": NAMESPACE, "labels": labels}, "data": data}


def pod(content: str, number: int, lane: str | None = None, *, ready: bool = True, **more: Any) -> Manifest:
    labels = {"slipway.dev/owner": NAME, "slipway.dev/content": content, "slipway.dev/lane": lane or content}
    state = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    return {
        "metadata": {
            "name": f"{NAME}-{content}-{number}",
            "namespace": NAMESPACE,
            "creationTimestamp": "2026-11-24T12:00:00Z",
            "labels": labels,
        },
        "spec": {"containers": [{"name": "runtime"}], "nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {"name": "runtime", "ready": ready, "restartCount": 0 if ready else 4, "state": state}
            ],
        },
        **more,
    }


def deployment(content: str, replicas: int) -> Manifest:
    labels = {"slipway.dev/owner": NAME, "slipway.dev/content": content}
    meta = {"name": f"{NAME}-{content}", "namespace": NAMESPACE, "labels": labels}
    return {"metadata": meta, "spec": {"replicas": replicas}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Manifest:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def resource(*conditions: Manifest, **status: Any) -> Manifest:
    told = conditions or (
        condition("Ready", "True", "Serving", f"revision 2 answers (content {NEW})"),
        condition("Reconciling", "False", "Settled"),
        condition("Stalled", "False", "Settled"),
        condition("Available", "True", "Serving", f"content {NEW} answers predictions"),
    )
    steps = [
        {"name": "Build", "state": "Succeeded", "job": f"{NAME}-build-1"},
        {"name": "Train", "state": "Succeeded", "job": f"{NAME}-train-1"},
        {"name": "Export", "state": "Succeeded"},
        {"name": "Rollout", "state": "Succeeded"},
    ]
    return {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "generation": 2,
            "creationTimestamp": "2026-11-24T10:00:00Z",
        },
        "spec": {"source": {"git": {"url": "https://git.test/delay.git", "ref": "v2"}}},
        "status": {
            "observedGeneration": 2,
            "summary": f"revision 2 answers (content {NEW})",
            "source": {"commit": "b" * 40},
            "live": {"content": NEW, "revision": 2, "since": "2026-11-24T12:00:00Z", "commit": "b" * 40},
            "standby": {"content": OLD, "revision": 1, "readyReplicas": 1},
            "replicas": 2,
            "readyReplicas": 2,
            "steps": steps,
            "conditions": list(told),
            **status,
        },
    }


def service(content: str) -> Manifest:
    labels = {"slipway.dev/owner": NAME}
    selector = {**labels, "slipway.dev/lane": content}
    return {"metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels}, "spec": {"selector": selector}}


@pytest.fixture
def make() -> SimpleNamespace:
    """Builders of API objects: a deployment with two contents, the newer one live."""
    return SimpleNamespace(
        entry=entry, revision=revision, pod=pod, deployment=deployment, condition=condition, resource=resource,
        service=service, digest=digest, OLD=OLD, NEW=NEW, BAD=BAD, NAME=NAME, NAMESPACE=NAMESPACE,
        COLLECTION=COLLECTION,
    )  # fmt: skip


@pytest.fixture
def api() -> Iterator[Api]:
    """The server, with the deployment on it."""
    server = Api()
    server.put(COLLECTION, resource())
    apps, core = f"/apis/apps/v1/namespaces/{NAMESPACE}", f"/api/v1/namespaces/{NAMESPACE}"
    server.put(f"{apps}/controllerrevisions", revision(entry(1, OLD)), revision(entry(2, NEW)))
    server.put(f"{apps}/deployments", deployment(OLD, 1), deployment(NEW, 2))
    server.put(f"{core}/pods", pod(OLD, 1), pod(NEW, 1), pod(NEW, 2))
    server.put(f"{core}/services", service(NEW))
    yield server
    server.close()


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Slipway:
    """``kubectl slipway`` on one cluster: within this process, which is quick, or as one of its own."""

    kubeconfig: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, **variables: str) -> Ended:
        self.capsys.readouterr()
        with self.monkeypatch.context() as patch:
            for name, value in {"KUBECONFIG": str(self.kubeconfig), **variables}.items():
                patch.setenv(name, value)
            code = main(words)
        said = self.capsys.readouterr()
        return Ended(code, said.out, said.err)

    def process(self, *words: str, seconds: float = 60, **variables: str) -> Ended:
        """Run it as a person's shell does."""
        done = self.start(*words, **variables)
        try:
            out, err = done.communicate(timeout=seconds)
        finally:
            done.kill()
        return Ended(done.returncode, out, err)

    def start(self, *words: str, module: str = "slipway_cli", **variables: str) -> subprocess.Popen[str]:
        """Start it without waiting for its end."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "PYTHONUTF8": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def kubeconfig(api: Api, tmp_path: Path) -> Path:
    """A kubeconfig with a token, the namespace in its context, and a context of a cluster that is away."""
    contexts = [
        {"name": "air", "context": {"cluster": "air", "user": "ada", "namespace": NAMESPACE}},
        {"name": "away", "context": {"cluster": "away", "user": "ada"}},
        {"name": "stranger", "context": {"cluster": "air", "user": "eve"}},
    ]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "air",
        "contexts": contexts,
        "clusters": [
            {"name": "air", "cluster": {"server": api.url}},
            {"name": "away", "cluster": {"server": "http://127.0.0.1:9"}},
        ],
        "users": [{"name": "ada", "user": {"token": TOKEN}}, {"name": "eve", "user": {"token": "other"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def slipway(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Slipway:
    """The command line."""
    return Slipway(kubeconfig, monkeypatch, capsys)
