"""What a spec switches on in serving pods, on the real cluster: mutual TLS, keys, records; probes and figures go on."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
import trustme

from lab.install import Lab
from lab.kube import Manifest, condition, wait_for
from lab.ports import free_port
from lab.projects import FLOWER, locked_by, model_deployment, trained_spec, write_trained_project

NAME = "guarded"
LOCKED = locked_by("pyproject.toml", "uv.lock")
KEY = "a-key-of-this-test-0123456789"
QUESTION = {"rows": [FLOWER]}


class Sink:
    """A service that takes records, reachable from pods."""

    def __init__(self, address: str) -> None:
        self.pieces: list[tuple[str, bytes]] = []
        pieces = self.pieces

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                pieces.append((self.headers["X-Slipway-Kind"], body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer((address, free_port(address)), Handler)
        self.url = f"http://{address}:{self._server.server_port}/records"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """All rows of a kind that came."""
        tables = [pa.ipc.open_stream(io.BytesIO(body)).read_all() for what, body in self.pieces if what == kind]
        return [row for table in tables for row in table.to_pylist()]

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def sink(lab: Lab) -> Iterator[Sink]:
    found = Sink(lab.git.address)
    yield found
    found.close()


def secret(namespace: str, name: str, kind: str, data: Mapping[str, bytes]) -> Manifest:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta, "data": encoded}


def context_of(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    return context


def test_mutual_tls_keys_and_records_are_switched_on_beneath_a_live_model(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], sink: Sink, tmp_path: Path
) -> None:
    """Missing Secrets leave it serving; then only who shows certificate and key is answered, and his rows are kept."""
    first = lab.git.publish(NAME, write_trained_project(tmp_path / "1", LOCKED))
    source = {"git": {"url": lab.git.url(NAME), "ref": first}}
    wanted = model_deployment(NAME, namespace, trained_spec(source, "uv.lock"))
    lab.kube.apply(wanted)
    content = settled(NAME, namespace)["status"]["live"]["content"]
    address = lab.kube.address(NAME, namespace)

    wanted["spec"] = {
        **trained_spec(source, "uv.lock"),
        "serving": {
            "tls": {"secretName": "guarded-tls", "clientCASecretName": "callers"},
            "apiKeys": {"secretName": "guarded-keys"},
            "records": {"url": sink.url, "redact": ["petal width (cm)"]},
        },
    }
    lab.kube.apply(wanted)

    def said() -> Manifest | None:
        found = lab.kube.get("modeldeployment", NAME, namespace) or {}
        return found if condition(found, "Ready")["reason"] == "SecretNotFound" else None

    missing = wait_for(said, seconds=90, what="the missing Secret to be named")
    assert "guarded-" in condition(missing, "Ready")["message"] or "callers" in condition(missing, "Ready")["message"]
    assert condition(missing, "Available")["status"] == "True"
    assert httpx.post(f"http://{address}/predict", json=QUESTION, trust_env=False).status_code == 200

    authority = trustme.CA()
    mine, caller = authority.issue_cert(f"{NAME}.{namespace}.svc", address), authority.issue_cert("caller")
    chain = b"".join(blob.bytes() for blob in mine.cert_chain_pems)
    lab.kube.apply(
        secret(
            namespace,
            "guarded-tls",
            "kubernetes.io/tls",
            {"tls.crt": chain, "tls.key": mine.private_key_pem.bytes()},
        ),
        secret(namespace, "callers", "Opaque", {"ca.crt": authority.cert_pem.bytes()}),
        secret(namespace, "guarded-keys", "Opaque", {"keys": f"# ours\n{KEY}\n".encode()}),
    )
    live = settled(NAME, namespace)["status"]
    assert live["live"]["content"] == content, "what is set of serving is no content"
    assert len(lab.kube.list("controllerrevisions", namespace, f"slipway.dev/owner={NAME}")) == 1

    url, key = f"https://{address}/predict", {"Authorization": f"Bearer {KEY}"}
    assert live["url"].startswith("https://")
    with httpx.Client(verify=context_of(authority, caller), trust_env=False) as client:

        def refused() -> bool:
            with contextlib.suppress(httpx.ConnectError):  # until the nodes route the new port
                return client.post(url, json=QUESTION).status_code == 401
            return False

        wait_for(refused, seconds=15, what="the door with a key to be routed to", every=0.2)
        answer = client.post(url, json=QUESTION, headers=key)
        assert (answer.status_code, answer.headers["slipway-content"]) == (200, content)
        asked = answer.headers["x-request-id"]
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        httpx.post(url, json=QUESTION, headers=key, verify=context_of(authority), trust_env=False)

    def ports() -> set[int]:
        service = lab.kube.get("service", NAME, namespace) or {"spec": {"ports": []}}
        return {p["port"] for p in service["spec"]["ports"]}

    wait_for(lambda: ports() == {443, 8081}, seconds=60, what="port 80 to go with the last pod that had it")
    kept = wait_for(lambda: sink.rows("predictions"), seconds=60, what="records")
    assert [row["request_id"] for row in kept] == [asked]
    assert kept[0]["in.petal length (cm)"] == pytest.approx(FLOWER["petal length (cm)"])
    assert not any("petal width" in column for column in kept[0])


def test_figures_of_a_canary_are_read_behind_tls_and_keys(
    lab: Lab, namespace: str, settled: Callable[..., Manifest], tmp_path: Path
) -> None:
    """The operator has neither certificate nor key, and still sees what decides on a rollback."""
    assert settled(NAME, namespace), "the deployment of the test before"
    ref = lab.git.publish(NAME, write_trained_project(tmp_path, {"README.md": "another commit", **LOCKED}))
    change = {
        "source": {"git": {"ref": ref}},
        "serving": {"tls": {"clientCASecretName": None}, "records": None},
        "rollout": {"canary": {"pods": 1, "for": "1h"}, "rollBackOn": {"errorRate": 0.5}},
    }
    lab.kube.run("patch", "modeldeployment", NAME, "-n", namespace, "--type=merge", "-p", json.dumps({"spec": change}))
    address = lab.kube.address(NAME, namespace)
    untrusting = ssl.create_default_context()
    untrusting.check_hostname, untrusting.verify_mode = False, ssl.CERT_NONE

    def counted() -> bool:
        key = {"X-Api-Key": KEY}
        for _ in range(20):  # each on a connection of its own, so that the canary gets its share
            # A pod of before still asks for a certificate, until it has gone.
            with contextlib.suppress(httpx.TransportError), httpx.Client(verify=untrusting, trust_env=False) as client:
                client.post(f"https://{address}/predict", json=QUESTION, headers=key).raise_for_status()
        found = lab.kube.get("modeldeployment", NAME, namespace) or {}
        return bool((found.get("status", {}).get("rollout") or {}).get("requests"))

    def is_canary() -> bool:
        found = lab.kube.get("modeldeployment", NAME, namespace) or {}
        return condition(found, "Ready")["reason"] == "Canary"

    wait_for(is_canary, seconds=240, what="the canary")
    wait_for(counted, seconds=60, what="the canary's figures")
