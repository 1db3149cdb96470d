"""A platform with a private index, a proxy, an authority and a registry of its own, on the real cluster.

It runs alone, after the other journeys: the platform's settings are everybody's.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.install import Lab, install
from lab.kube import Manifest, condition, wait_for
from lab.ports import free_port
from lab.projects import model_deployment, trained_spec, write_trained_project
from lab.servers import registry
from lab.web import PASSWORD, USER, WebServer

NAME = "iris"


@dataclass(frozen=True)
class Platform:
    """What stands beside the cluster, all of it down at first."""

    web: WebServer
    registry: str
    """Address and port that it will have."""
    start_registry: Callable[[], object]
    lock: str


def wheel() -> bytes:
    """A package of one module."""
    out = io.BytesIO()
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("tiny.py", "VERSION = 1\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


@pytest.fixture(scope="module")
def platform(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Install Slipway with other settings, and as it was afterwards."""
    with ExitStack() as running:
        web = running.enter_context(WebServer(lab.git.address))
        digest = web.add_file("tiny", "tiny-1.0-py3-none-any.whl", wheel())
        web.stop()
        host = f"{lab.git.address}:{free_port(lab.git.address)}"
        down = registry("docker-registry", tmp_path_factory.mktemp("registry"), host=host)
        authority = tmp_path_factory.mktemp("authority") / "ca.crt"
        authority.write_text(web.authority)
        values = {
            "index.url": web.url("private", "simple"),
            "index.secretName": "index",
            "proxy.https": web.proxy,
            "registry.prefix": f"{host}/models",
        }
        options = [part for name, value in values.items() for part in ("--set-string", f"{name}={value}")]
        options += ["--set-file", f"caBundle={authority}", "--set-json", "jobs.transientRetriesSeconds=[8,1]"]
        install(lab, *options)
        running.callback(install, lab)
        yield Platform(web, host, partial(running.enter_context, down), f"tiny==1.0 --hash={digest}\n")


def test_everything_that_a_platform_has_may_be_down_closed_or_unknown(
    lab: Lab, namespace: str, platform: Platform, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """One after the other is said, what comes back is noticed, and the build is done in the end."""
    lab.kube.apply(secret(namespace, "hunter2"))
    lab.git.publish("platform", write_trained_project(tmp_path, {"requirements.txt": platform.lock}))
    source = {"git": {"url": lab.git.url("platform"), "ref": "main"}}
    lab.kube.apply(model_deployment(NAME, namespace, trained_spec(source)))

    # The registry is down: first it may pass, then a person should look, and it is tried all the same.
    passing = until(lab, namespace, "RegistryUnavailable")
    assert condition(passing, "Stalled")["status"] == "False"
    stalled = condition(settled(NAME, namespace, "Stalled"), "Stalled")
    assert stalled["reason"] == "RegistryUnavailable"
    assert "goes on trying" in stalled["message"]
    platform.start_registry()

    # So is the proxy, by which the index is reached, and then both are there.
    until(lab, namespace, "IndexUnavailable")
    platform.web.start()

    # The Secret has another password.
    refused = until(lab, namespace, "IndexAccessDenied")
    assert condition(refused, "Stalled")["status"] == "True"
    assert "hunter2" not in str(refused["status"])
    lab.kube.apply(secret(namespace, PASSWORD))
    lab.kube.run("annotate", "modeldeployment", NAME, "-n", namespace, "slipway.dev/retry=password")

    # All is built and pushed, but no node knows how to reach this registry.
    unknown = until(lab, namespace, "ImageCannotBePulled")
    steps = {step["name"]: step["state"] for step in unknown["status"]["steps"]}
    assert (steps["Build"], steps["Export"]) == ("Succeeded", "Waiting")
    assert platform.registry in condition(unknown, "Ready")["message"]
    assert any("CONNECT" in line for line in platform.web.proxied())


def secret(namespace: str, password: str) -> Manifest:
    """The Secret of the index."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "index", "namespace": namespace},
        "stringData": {"username": USER, "password": password},
    }


def until(lab: Lab, namespace: str, reason: str) -> Manifest:
    """Wait until Ready has a reason; fail with what it has instead."""
    seen: list[Mapping[str, Any]] = [{}]

    def look() -> Manifest | None:
        resource = lab.kube.get("modeldeployment", NAME, namespace) or {}
        seen[0] = condition(resource, "Ready")
        return resource if seen[0].get("reason") == reason else None

    try:
        return wait_for(look, seconds=180, what=reason, every=0.3)
    except TimeoutError as error:
        raise AssertionError(f"{error}; it says {seen[0]}") from None
