"""The runtime's container in a serving pod: its arguments, probes, and what is mounted into it.

An argument is given only where something is asked for: the runtime is part of a content, and
one from before an argument was known starts all the same.
"""

from __future__ import annotations

from slipway_operator.api import ModelDeploymentSpec, Records, Serving, Traces, parse_duration, parse_size
from slipway_operator.domain.contents import Content
from slipway_operator.domain.requests import MODEL, SECRETS
from slipway_operator.domain.settings import Settings
from slipway_operator.plan.native import SHARED, is_native, native_arguments, start_seconds
from slipway_operator.plan.observed import Manifest, Observed
from slipway_operator.plan.pods import container_security, mount, secret_mounts, secret_volumes
from slipway_operator.plan.ports import PORT, PROBE_PORT, PROBES, container_ports, has_probe_port

DEFAULT_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
START_SECONDS = 90
"""A minute and a half for a large model on a small node."""
RECORDS = "/records"
"""Where a claim for records is mounted."""


def runtime_container(seen: Observed, spec: ModelDeploymentSpec, content: Content) -> Manifest:
    """The container that answers."""
    serving = spec.serving
    port = PROBES if has_probe_port(serving) else "http"

    def probe(path: str, **numbers: int) -> Manifest:
        return {"httpGet": {"path": path, "port": port}, **numbers}

    secrets = serving_secrets(serving)
    start = start_seconds(serving) if is_native(content) else START_SECONDS
    return {
        "name": "runtime",
        "image": content.runtime,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--model-dir",
            MODEL,
            "--name",
            seen.key.name,
            "--version",
            content.short,
            "--model-digest",
            content.onnx,
            "--port",
            str(PORT),
            *(native_arguments(serving, content) if is_native(content) else ()),
            *asked_arguments(serving, seen.settings),
        ],
        "ports": container_ports(serving),
        "resources": serving_resources(spec),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # Ready after the example rows were answered.
        "startupProbe": probe("/v2/health/ready", periodSeconds=1, timeoutSeconds=2, failureThreshold=start),
        "readinessProbe": probe("/v2/health/ready", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": probe("/v2/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "volumeMounts": [
            mount("model", MODEL, read_only=True),
            mount("tmp", "/tmp"),  # noqa: S108 - a volume
            *secret_mounts(secrets, tuple(secrets)),
            *([mount("records", RECORDS)] if _claim(serving) is not None else []),
            *([mount("worker", SHARED)] if is_native(content) else []),
        ],
    }


def runtime_volumes(serving: Serving) -> list[Manifest]:
    """Volumes that only the runtime's container mounts."""
    claim = _claim(serving)
    records = [{"name": "records", "persistentVolumeClaim": {"claimName": claim}}] if claim is not None else []
    return [*secret_volumes(serving_secrets(serving)), *records]


def serving_secrets(serving: Serving) -> dict[str, str | None]:
    """Secrets that the runtime reads, by their use."""
    tls, keys = serving.tls, serving.api_keys
    bucket = serving.records.bucket if serving.records is not None else None
    return {
        "tls": tls.secret_name if tls is not None else None,
        "client-ca": tls.client_ca_secret_name if tls is not None else None,
        "api-keys": keys.secret_name if keys is not None else None,
        "bucket": bucket.secret_name if bucket is not None else None,
    }


def serving_resources(spec: ModelDeploymentSpec) -> Manifest:
    """Resources of a serving pod: as the spec says, with small requests where it says nothing."""
    own = spec.serving.resources.to_container()
    limits = own.get("limits", {})
    defaults = {name: amount for name, amount in DEFAULT_REQUESTS.items() if name not in limits}
    return {**own, "requests": {**defaults, **own.get("requests", {})}}


def traces_of(serving: Serving, settings: Settings) -> Traces | None:
    """Where traces go: as the spec says, else as the platform does."""
    return serving.traces if serving.traces is not None else settings.serving.traces


def asked_arguments(serving: Serving, settings: Settings) -> list[str]:
    """Arguments for what is asked for beyond the runtime's defaults."""
    arguments = [*_guarding(serving), *_limiting(serving), *_observing(serving, settings)]
    return [str(argument) for argument in arguments]


def _guarding(serving: Serving) -> list[str | int]:
    arguments: list[str | int] = []
    if serving.tls is not None:
        arguments += ["--tls-cert", f"{SECRETS}/tls/tls.crt", "--tls-key", f"{SECRETS}/tls/tls.key"]
        if serving.tls.client_ca_secret_name is not None:
            arguments += ["--tls-client-ca", f"{SECRETS}/client-ca/ca.crt"]
    if serving.api_keys is not None:
        arguments += ["--api-keys", f"{SECRETS}/api-keys/keys"]
    if has_probe_port(serving):
        arguments += ["--probe-port", PROBE_PORT]
    return arguments


def _limiting(serving: Serving) -> list[str | int]:
    arguments: list[str | int] = [] if serving.workers is None else ["--workers", serving.workers]
    limits = serving.limits
    if limits is None:
        return arguments
    age = parse_duration(limits.connection_age) if limits.connection_age is not None else None
    asked = {
        "--connections": limits.connections,
        "--connection-seconds": age,
        "--queue-requests": limits.queued_requests,
        "--max-rows": limits.rows,
        "--max-body-bytes": parse_size(limits.body) if limits.body is not None else None,
    }
    for name, value in asked.items():
        if value is not None:
            arguments += [name, value]
    return arguments


def _observing(serving: Serving, settings: Settings) -> list[str]:
    logs = settings.serving.access_log if serving.access_log is None else serving.access_log
    arguments = ["--access-log"] if logs else []
    traces = traces_of(serving, settings)
    if traces is not None:
        arguments += ["--trace", "--trace-endpoint", traces.endpoint, "--trace-ratio", f"{traces.ratio:g}"]
    if serving.records is not None:
        arguments += _recording(serving.records)
    return arguments


def _recording(records: Records) -> list[str]:
    arguments = ["--record-to", _target(records), "--record-ratio", f"{records.ratio:g}"]
    if records.bucket is not None:
        arguments += ["--record-credentials", f"{SECRETS}/bucket"]
        for name, value in (("endpoint", records.bucket.endpoint), ("region", records.bucket.region)):
            arguments += [f"--record-{name}", value] if value is not None else []
    if records.keep is not None:
        arguments += ["--record-bytes", str(parse_size(records.keep))]
    # One argument each, as a column's name may begin with a dash.
    return [*arguments, *(f"--redact={column}" for column in records.redact)]


def _target(records: Records) -> str:
    if records.bucket is not None:
        return "s3://" + "/".join(filter(None, (records.bucket.name, records.bucket.prefix)))
    return records.url or RECORDS


def _claim(serving: Serving) -> str | None:
    return serving.records.claim_name if serving.records is not None else None
