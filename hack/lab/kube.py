"""kubectl as a function: manifests in, parsed JSON out, waits with deadlines.

The lab drives the cluster with the same program that users have, so that what
the demo shows and what the tests see is what users see.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lab.ports import free_port

T = TypeVar("T")
Manifest = dict[str, Any]


class KubectlError(RuntimeError):
    """kubectl ended non-zero; the message is what it said."""


@dataclass(frozen=True)
class Kube:
    """A cluster, by its kubeconfig, and the kubectl that talks to it."""

    kubeconfig: Path
    kubectl: Path
    context: str | None = None

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl and return what it printed; raise `KubectlError` with its words otherwise."""
        command = [str(self.kubectl), *(["--context", self.context] if self.context else []), *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side apply, as a person or a GitOps tool would."""
        text = "\n---\n".join(json.dumps(manifest) for manifest in manifests)
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return one object, or None where there is none."""
        found = self.run("get", kind, name, *_in(namespace), "--ignore-not-found", "-o", "json")
        return json.loads(found) if found.strip() else None

    def list(self, kind: str, namespace: str | None = None, selector: str = "", fields: str = "") -> list[Manifest]:
        """Return the objects of a kind."""
        chosen = ["-l", selector] if selector else []
        chosen += ["--field-selector", fields] if fields else []
        items: list[Manifest] = json.loads(self.run("get", kind, *_in(namespace), *chosen, "-o", "json"))["items"]
        return items

    def address(self, service: str, namespace: str) -> str:
        """Return the IP of a Service; this machine is a node, so it routes there."""
        found = self.get("service", service, namespace)
        if found is None:
            raise AssertionError(f"there is no Service {namespace}/{service}")
        return str(found["spec"]["clusterIP"])

    def delete(self, kind: str, name: str, namespace: str | None = None, *, wait: bool = True) -> None:
        """Delete one object; it is no error where it is gone already."""
        self.run(
            "delete", kind, name, *_in(namespace), "--ignore-not-found", f"--wait={str(wait).lower()}", timeout=300
        )

    def namespace(self, name: str) -> None:
        """Make a namespace that admits restricted pods only."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    @contextlib.contextmanager
    def forward(self, service: str, namespace: str) -> Iterator[str]:
        """Open a way to a Service from this machine; yields its URL."""
        port = free_port()
        command = [str(self.kubectl), *(["--context", self.context] if self.context else [])]
        command += ["port-forward", "-n", namespace, f"service/{service}", f"{port}:80"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(url), seconds=30, what=f"port-forward to {service}")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=10)


def wait_for(look: Callable[[], T | None], *, seconds: float, what: str, every: float = 0.5) -> T:
    """Look until something is there; each look starts a kubectl, so seldom is kind to small machines.

    Raises:
        TimeoutError: nothing was there within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def condition(resource: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a condition of a resource, or an empty one that is Unknown."""
    for found in resource.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return dict(found)
    return {"type": kind, "status": "Unknown", "reason": "", "message": ""}


def post(url: str, body: Mapping[str, Any] | None = None, timeout: float = 10) -> Any:
    """Send JSON (or GET, without a body) and parse the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - http to the lab's own address
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        return json.loads(answer.read())


def find_kubectl(candidates: Sequence[Path]) -> Path:
    """Return the first kubectl that is there, preferring the project's own."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    found = shutil.which("kubectl")
    if found is None:
        raise FileNotFoundError("kubectl is missing: run `make cluster-up` first")
    return Path(found)


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/live", timeout=2):  # noqa: S310 - http to the lab's own address
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
