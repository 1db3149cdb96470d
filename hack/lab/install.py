"""A cluster with this tree's Slipway on it, as a user would install it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lab import tell
from lab.git import GitServer
from lab.kube import Kube, KubectlError, find_kubectl
from lab.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SLIPWAY_CACHE") or Path.home() / ".cache" / "slipway")
RELEASE = "slipway"
NAMESPACE = "slipway-system"
GIT_PORT = 9418
SMALL_PACKAGE = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"
"""A line of a lock file: a small wheel that depends on nothing."""
MADE_BY_LAB = "slipway.dev/made-by-lab"
"""Label of a namespace that was not there before."""
LEFT_BY_ITSELF = {"ConfigMap kube-root-ca.crt", "ConfigMap slipway-image-volumes"}
"""What Kubernetes puts into every namespace, and what the operator remembers of the nodes."""
GOING = {"ownerReferences", "deletionTimestamp"}
COMMON_LIST = "sklearn-2023"
"""A package list that the lab's platform publishes, in the versions 1 and 2."""
OTHER_LIST = "sklearn-2023-six"
"""Another one, whose version 1 holds what version 2 of the first one does."""


@dataclass(frozen=True)
class Lab:
    """What demo, tests and benchmarks hold in their hands."""

    kube: Kube
    helm: Path
    crane: Path
    git: GitServer


def open_lab() -> Lab:
    """Return the lab on the cluster that runs; says what to do where none does."""
    kubeconfig = Path(_make_silent("cluster-kubeconfig"))
    if not kubeconfig.exists():
        tell.fail("There is no cluster yet: run `make cluster-up` first.")
    tools = {name: Path(tool(name)) for name in ("kubectl", "helm", "crane", "git", "curl")}
    kube = Kube(kubeconfig, find_kubectl([tools["kubectl"]]), os.environ.get("SLIPWAY_CONTEXT"))
    git = GitServer(CACHE / "lab" / "git", _address(), GIT_PORT)
    return Lab(kube, tools["helm"], tools["crane"], git)


@contextlib.contextmanager
def lab_of_its_own(folder: Path) -> Iterator[Lab]:
    """The lab with a Git server that nobody else uses, which ends when left."""
    found = open_lab()
    git = GitServer(folder, found.git.address, free_port(found.git.address))
    git.start()
    try:
        yield replace(found, git=git)
    finally:
        git.stop()


def _upgrade(*values: str) -> list[str]:
    """What helm is told to install or upgrade the chart with this tree's images."""
    arguments = ["upgrade", "--install", RELEASE, str(ROOT / "charts" / "slipway")]
    arguments += ["--namespace", NAMESPACE, "--wait", "--timeout", "5m"]
    arguments += ["--values", str(ROOT / "build" / "images-values.yaml"), *machine_values()]
    return [*arguments, "--values", str(_platform()), *values]


def install(lab: Lab, *values: str) -> None:
    """Install or upgrade the chart with this tree's images, and wait until the operator is ready."""
    if lab.kube.get("namespace", NAMESPACE) is None:
        # Not by Helm's --create-namespace: who cleans up must know whose it is.
        meta = {"name": NAMESPACE, "labels": {MADE_BY_LAB: "true"}}
        lab.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    done = helm(lab, *_upgrade(*values))
    if done.returncode != 0:
        pods = _or_empty(lab.kube, "get", "pods", "-n", NAMESPACE)
        tell.fail(f"helm could not install Slipway:\n{done.stderr.strip()}\n{pods}")


def uninstall(lab: Lab) -> None:
    """Remove the chart, and its namespace where `install` made it; the CRDs stay, as the chart keeps them."""
    done = helm(lab, "uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found", "--wait")
    if done.returncode != 0:
        tell.fail(f"helm could not uninstall Slipway:\n{done.stderr.strip()}")
    tell.line(remove_namespace(lab.kube))


def helm(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm on the lab's cluster."""
    return subprocess.run(
        [str(lab.helm), *arguments, *_context(lab)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KUBECONFIG": str(lab.kube.kubeconfig)},
    )


def _context(lab: Lab) -> list[str]:
    return ["--kube-context", lab.kube.context] if lab.kube.context else []


def remove_namespace(kube: Kube) -> str:
    """Delete the chart's namespace if `install` made it and nobody else uses it; returns what became of it."""
    found = kube.get("namespace", NAMESPACE)
    if found is None:
        return f"namespace {NAMESPACE} is gone"
    if MADE_BY_LAB not in found["metadata"].get("labels", {}):
        return f"namespace {NAMESPACE} stays: it was there before the demo"
    kinds = "all,configmaps,secrets,persistentvolumeclaims"
    # What has an owner goes after it by itself, as the operator's last pod does.
    there = [each for each in kube.list(kinds, NAMESPACE) if not GOING & set(each["metadata"])]
    held = {f"{each['kind']} {each['metadata']['name']}" for each in there} - LEFT_BY_ITSELF
    if held:
        return f"namespace {NAMESPACE} stays: it holds {', '.join(sorted(held))}"
    kube.delete("namespace", NAMESPACE)
    return f"namespace {NAMESPACE} is gone"


def machine_values() -> list[str]:
    """Pass on what this machine needs to reach package indexes: its certificates and its proxy."""
    values: list[str] = []
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).exists():
        values += ["--set-file", f"caBundle={bundle}"]
    for key, name in (("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY"), ("no", "NO_PROXY")):
        proxy = os.environ.get(name) or os.environ.get(name.lower())
        if proxy:
            escaped = proxy.replace(",", "\\,")
            values += ["--set-string", f"proxy.{key}={escaped}"]
    return values


def _platform() -> Path:
    """Write the values of the lab's platform: two package lists, one in two versions, and Jobs that ask for little.

    What a Job asks for is kept for it while it runs; on two cores many of them would wait for a place, not for work.
    """
    requirements = (ROOT / "examples" / "iris-legacy" / "requirements.txt").read_text()
    one = {"name": COMMON_LIST, "version": "1", "python": "3.11", "requirements": requirements}
    # A package that nothing else needs makes the second version another environment.
    two = one | {"version": "2", "requirements": requirements + SMALL_PACKAGE}
    other = two | {"name": OTHER_LIST, "version": "1"}
    path = ROOT / "build" / "lab-values.yaml"
    path.write_text(json.dumps({"packageLists": [one, two, other], "jobs": {"cpuRequest": "100m"}}))
    return path


def prepare(name: str) -> Lab:
    """Bring up cluster, images and chart, each with its own progress, and return the lab."""
    tell.step(f"{name}: a Kubernetes cluster")
    _make("cluster-up")
    tell.step("Slipway's images")
    _make("images")
    lab = open_lab()
    tell.step("Slipway, by its Helm chart")
    tell.command(environment(lab))
    tell.command(shlex.join(["helm", *_upgrade(), "--create-namespace", *_context(lab)]))
    install(lab)
    return lab


def environment(lab: Lab) -> str:
    """Return the line after which the printed commands work in a person's shell."""
    return f"export KUBECONFIG={lab.kube.kubeconfig} PATH={lab.kube.kubectl.parent}:{lab.helm.parent}:$PATH"


def registry_prefix() -> str:
    """Return the registry prefix that `make images` pushed to."""
    found = json.loads((ROOT / "build" / "images.json").read_text())
    return str(found["registry"]["prefix"])


def _make(*targets: str) -> None:
    done = subprocess.run(["make", *targets], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def _make_silent(target: str) -> str:
    done = subprocess.run(["make", "-s", target], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        tell.fail(done.stderr.strip())
    return done.stdout.strip()


def tool(name: str) -> str:
    """Return the path of a program, which is built or installed first where it is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "tools", "ensure", name],
        env={**os.environ, "PYTHONPATH": str(ROOT / "hack")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tell.fail(done.stderr.strip())
    return done.stdout.strip().splitlines()[-1]


def _address() -> str:
    """Return the address of this machine that pods can reach."""
    if given := os.environ.get("SLIPWAY_LAB_ADDRESS"):
        return given
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a datagram socket only picks the outgoing address.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _or_empty(kube: Kube, *arguments: str) -> str:
    try:
        return kube.run(*arguments)
    except KubectlError as error:
        return str(error)
