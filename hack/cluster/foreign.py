"""A cluster that somebody else runs: nothing of it is started or stopped here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster import local
from tools import cache, debian, gobuild, say
from tools.catalogue import GO_TOOLS
from tools.refusal import Refused


def kubectl() -> Path:
    """Return a kubectl: the pinned one where it is built, else the system's, else the pinned one after all."""
    tool = GO_TOOLS["kubernetes"]
    built = cache.root() / gobuild.folder_name(tool) / "kubectl"
    if built.exists():
        return built
    return debian.find("kubectl") or gobuild.ensure(tool) / "kubectl"


def kubeconfig(context: str) -> Path:
    """Write a kubeconfig that holds just one context and return its path.

    Raises:
        Refused: There is no such context.
    """
    done = subprocess.run(
        [str(kubectl()), "config", "view", "--minify", "--flatten", "--raw", "--output=json", f"--context={context}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(
            f"SLIPWAY_CONTEXT names {context!r}, and there is no such context: `kubectl config get-contexts` lists "
            "those of your kubeconfig (KUBECONFIG, or ~/.kube/config)."
        )
    name = "".join(each if each.isalnum() or each in "-_." else "_" for each in context)
    path = cache.root() / "contexts" / f"{name}.kubeconfig"
    local.write(path, done.stdout)
    return path


def check(context: str) -> None:
    """Refuse a cluster that does not answer.

    Raises:
        Refused: With what kubectl says.
    """
    command = [str(kubectl()), "--kubeconfig", str(kubeconfig(context)), "version", "--request-timeout=10s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise Refused(f"The cluster of context {context!r} does not answer: {said}")
    say.line(f"✓ Using the cluster of context {context!r}: {done.stdout.strip().splitlines()[-1]}")


def registry() -> str:
    """Return the registry to use with a cluster of somebody else.

    Raises:
        Refused: None was named.
    """
    named = os.environ.get("SLIPWAY_REGISTRY", "")
    if not named:
        raise Refused(
            "Your own cluster needs a registry that its nodes and this machine reach under one name: "
            "set SLIPWAY_REGISTRY to its prefix, as registry.example.com/slipway."
        )
    return named
