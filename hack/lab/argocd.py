"""A real Argo CD without its user interface: controller, repo-server and Redis as processes beside the cluster.

They are the programs of an installation, run as a developer's machine runs them: with the cluster's kubeconfig and on
loopback only. What is put on the cluster (two CRDs and a namespace) goes again with them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from chart.programs import tool
from lab.customizations import argocd_cm
from lab.kube import Kube, Manifest, wait_for
from lab.ports import free_port
from tools import gobuild
from tools.catalogue import GO_TOOLS

LOOPBACK = "127.0.0.1"
MODULE = "github.com/argoproj/argo-cd/v3"
CRDS = ("application", "appproject")
MINE = "slipway.dev/lab-argocd"
"""Label of what is put on the cluster, so that a later run can remove what an interrupted one left."""
READY_SECONDS = 90
STOP_SECONDS = 15


@dataclass
class _Process:
    """One program that we started, its log, and how to see that it is ready."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it by its own id, and wait until it has gone."""
        self.child.terminate()
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class ArgoCD:
    """Argo CD on a cluster for as long as the block lasts."""

    def __init__(self, kube: Kube, folder: Path, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace
        self._folder = folder
        self._processes: list[_Process] = []
        self._ports = {name: free_port(LOOPBACK) for name in ("redis", "repo", "repo-metrics", "metrics")}

    def __enter__(self) -> Self:
        self._make_room()
        try:
            self._install()
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run for it."""
        return {process.name: process.child.pid for process in self._processes}

    def customize(self, data: Mapping[str, str]) -> None:
        """Merge entries into its ConfigMap, as docs/gitops.md has people do; it is not restarted."""
        target = ["configmap", "argocd-cm", "-n", self.namespace]
        self.kube.run("patch", *target, "--type=merge", "--patch", json.dumps({"data": dict(data)}))

    def application(self, name: str, *, repository: str, into: str, options: tuple[str, ...] = ()) -> Application:
        """Have a repository's main branch synced into a namespace, by itself and against every drift."""
        spec = {
            "project": "default",
            "source": {"repoURL": repository, "targetRevision": "main", "path": "."},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": into},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}, "syncOptions": list(options)},
        }
        self.kube.apply(self._object("argoproj.io/v1alpha1", "Application", name) | {"spec": spec})
        return Application(self.kube, name, self.namespace)

    def logs(self) -> str:
        """Return the end of what each process said, for a test that failed."""
        return "\n".join(f"--- {each.name}\n{each.log.read_text()[-3000:]}" for each in self._processes)

    def _object(self, api: str, kind: str, name: str, **labels: str) -> Manifest:
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        return {"apiVersion": api, "kind": kind, "metadata": metadata}

    def _make_room(self) -> None:
        """Remove what an interrupted run left; refuse where somebody else's Argo CD is."""
        for name in CRDS:
            found = self.kube.get("crd", f"{name}s.argoproj.io")
            if found is not None and MINE not in found["metadata"].get("labels", {}):
                raise RuntimeError("This cluster has an Argo CD already, and two would fight: use another cluster.")
        self.kube.run("delete", "crd,namespace", "-l", MINE, timeout=120)

    def _install(self) -> None:
        crds = module_folder() / "manifests" / "crds"
        for name in CRDS:
            self.kube.run("apply", "--server-side", "-f", str(crds / f"{name}-crd.yaml"))
            self.kube.run("label", _crd(name), f"{MINE}=")
        self.kube.run("wait", "--for=condition=Established", "--timeout=60s", *(_crd(name) for name in CRDS))
        self.kube.namespace(self.namespace)
        self.kube.run("label", "namespace", self.namespace, f"{MINE}=")
        anything = [{"group": "*", "kind": "*"}]
        project = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}]}
        project |= {"clusterResourceWhitelist": anything, "namespaceResourceWhitelist": anything}
        secret = self._object("v1", "Secret", "argocd-secret", **{"app.kubernetes.io/part-of": "argocd"})
        # Without it Argo CD does not take up changed settings: an installation's API server makes one.
        secret["stringData"] = {"server.secretkey": secrets.token_hex(16)}
        self.kube.apply(
            argocd_cm(self.namespace, {}),
            secret,
            self._object("argoproj.io/v1alpha1", "AppProject", "default") | {"spec": project},
        )

    def _start(self) -> None:
        argocd = tool("argocd")
        home, temporary, programs = (self._folder / name for name in ("home", "tmp", "bin"))
        for each in (home, temporary, programs):
            each.mkdir(parents=True, exist_ok=True)
        # The repo-server looks for it on PATH at its start, although it verifies no signature here.
        shutil.copyfile(module_folder() / "hack" / "git-verify-wrapper.sh", programs / "git-verify-wrapper.sh")
        (programs / "git-verify-wrapper.sh").chmod(0o755)
        environment = {
            **os.environ,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.kube.kubeconfig),
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_PAUSE_GEN_AFTER_FAILED_ATTEMPTS": "0",
        }
        redis = f"{LOOPBACK}:{self._ports['redis']}"
        repository = f"{LOOPBACK}:{self._ports['repo']}"
        command = [tool("redis-server"), "--bind", LOOPBACK, "--port", self._ports["redis"]]
        self._run("redis", [*command, "--save", "", "--dir", temporary], environment, "redis")
        self._run(
            "repo-server",
            [
                argocd,
                *("--address", LOOPBACK, "--port", self._ports["repo"]),
                *("--metrics-address", LOOPBACK, "--metrics-port", self._ports["repo-metrics"]),
                *("--redis", redis, "--disable-tls", "--client-ca-path", ""),
            ],
            environment | {"ARGOCD_BINARY_NAME": "argocd-repo-server"},
            "repo",
        )
        context = ["--context", self.kube.context] if self.kube.context else []
        self._run(
            "controller",
            [
                argocd,
                *("--namespace", self.namespace, *context),
                *("--repo-server", repository, "--repo-server-plaintext", "--redis", redis),
                *("--metrics-port", self._ports["metrics"], "--app-resync", 3600),
                # A rollback that self-healing could undo would be undone as fast as it can.
                *("--self-heal-timeout-seconds", 1, "--self-heal-backoff-timeout-seconds", 0),
            ],
            environment | {"ARGOCD_BINARY_NAME": "argocd-application-controller"},
            "metrics",
        )

    def _run(self, name: str, command: list[object], environment: Mapping[str, str], port: str) -> None:
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [str(part) for part in command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )
        process = _Process(name, child, log)
        self._processes.append(process)
        wait_for(lambda: self._answers(process, port), seconds=READY_SECONDS, what=f"{name} to listen", every=0.1)

    def _answers(self, process: _Process, port: str) -> bool:
        if process.child.poll() is not None:
            raise RuntimeError(f"{process.name} ended: {process.log.read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._ports[port])) == 0

    def _remove(self) -> None:
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()
        # Deletes the Applications too; without Argo CD's finalizer what they deployed stays where it is.
        for name in CRDS:
            self.kube.run("delete", _crd(name), "--ignore-not-found", timeout=120)
        self.kube.delete("namespace", self.namespace)


@dataclass(frozen=True)
class Application:
    """An Application of Argo CD."""

    kube: Kube
    name: str
    namespace: str

    def read(self) -> Manifest:
        """Return it as it is now."""
        found = self.kube.get("application.argoproj.io", self.name, self.namespace)
        if found is None:
            raise LookupError(f"there is no Application {self.namespace}/{self.name}")
        return found

    def state(self) -> tuple[str, str, str]:
        """Return what belongs together: sync, health and the revision that both are of."""
        status = self.read().get("status", {})
        sync = status.get("sync", {})
        return sync.get("status", ""), status.get("health", {}).get("status", ""), sync.get("revision", "")

    def wait(self, sync: str, health: str, revision: str, *, seconds: float = 60) -> None:
        """Wait for a state; fail with the one that it is in."""
        try:
            wait_for(lambda: self.state() == (sync, health, revision), seconds=seconds, what="the state", every=0.3)
        except TimeoutError:
            status = self.read().get("status", {})
            raise AssertionError(
                f"{self.name} is {self.state()} and not {(sync, health, revision)} after {seconds:.0f} s; "
                f"conditions {status.get('conditions')}, operation {status.get('operationState')}"
            ) from None

    def refresh(self) -> None:
        """Have Git looked at now, as a webhook would."""
        self._annotate("hard")
        wait_for(lambda: "argocd.argoproj.io/refresh" not in self._annotations(), seconds=60, what="a refresh")

    def sync(self) -> None:
        """Apply everything again, as `argocd app sync` does, and wait until that has succeeded."""
        now = self.read()
        before = now.get("status", {}).get("operationState", {}).get("finishedAt")
        # Times are whole seconds: a second sync within one could not be told from the first.
        time.sleep(1)
        wish = {"syncStrategy": {"apply": {}}, "syncOptions": now["spec"]["syncPolicy"].get("syncOptions", [])}
        self._patch({"operation": {"initiatedBy": {"username": "lab"}, "sync": wish}})

        def done() -> str | None:
            found = self.read()
            state = found.get("status", {}).get("operationState", {})
            if found.get("operation") or state.get("finishedAt") in {None, before}:
                return None
            return str(state.get("phase"))

        phase = wait_for(done, seconds=60, what="a sync", every=0.2)
        if phase != "Succeeded":
            raise AssertionError(f"the sync {phase}: {self.read()['status']['operationState'].get('message')}")

    def _annotations(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.read()["metadata"].get("annotations", {})
        return found

    def _annotate(self, value: str) -> None:
        self._patch({"metadata": {"annotations": {"argocd.argoproj.io/refresh": value}}})

    def _patch(self, change: Manifest) -> None:
        target = ["application.argoproj.io", self.name, "-n", self.namespace]
        self.kube.run("patch", *target, "--type=merge", "-p", json.dumps(change))


def module_folder() -> Path:
    """Return the source of Argo CD's own version, for the CRDs that belong to it."""
    done = subprocess.run(
        [gobuild.find_go(), "mod", "download", "-json", MODULE],
        cwd=GO_TOOLS["argocd"].module,
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(json.loads(done.stdout)["Dir"])


def _crd(name: str) -> str:
    return f"crd/{name}s.argoproj.io"
