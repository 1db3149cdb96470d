"""How a content is served: how many pods, who may ask them, what is noticed of their answers.

Nothing here decides on an answer: a change replaces pods one by one, makes no new content,
and is neither held nor rolled back with one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from slipway_operator.api.common import Resources
from slipway_operator.api.hosts import HOST
from slipway_operator.api.schema import Check, SecretName, SpecModel, duration, matches, size

_HTTP_URL = matches(
    rf"https?://{HOST}(/[!-~]*)?",
    "must be an http:// or https:// URL in printable ASCII, with a port from 1 to 65535 if with any, "
    "without a user or password",
)
HttpUrl = Annotated[str, Field(min_length=1, max_length=2048), _HTTP_URL]

_ClaimName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "must be the name of a PersistentVolumeClaim: lower-case letters, digits, '-' and '.'",
    ),
]

Share = Annotated[float, Field(ge=0, le=1)]


class Autoscaling(SpecModel):
    """Replicas by load."""

    checks = (
        Check(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be larger than maxReplicas",
            lambda scale: scale.min_replicas <= scale.max_replicas,
        ),
    )

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Fewest replicas. From 1 to 1000.")
    max_replicas: int = Field(ge=1, le=1000, description="Most replicas. From 1 to 1000. Example: 8.")
    target_cpu_utilization: int = Field(
        default=70,
        ge=1,
        le=1000,
        alias="targetCPUUtilization",
        description="CPU use to aim at, in percent of the CPU request, over all replicas.",
    )


class Tls(SpecModel):
    """TLS on both ports of the serving pods."""

    secret_name: SecretName = Field(
        description="Secret of this namespace with the certificate: type kubernetes.io/tls, such as cert-manager "
        "writes. A renewed one is used without a restart. Whoever sets it must be allowed to get that Secret. "
        "Example: flight-delay-tls.",
    )
    client_ca_secret_name: SecretName | None = Field(
        default=None,
        alias="clientCASecretName",
        description="Secret of this namespace with a key ca.crt: callers must show a certificate that it has signed. "
        "Whoever sets it must be allowed to get that Secret. Without it, callers need no certificate.",
    )


class ApiKeys(SpecModel):
    """Keys that callers must show."""

    secret_name: SecretName = Field(
        description="Secret of this namespace with a key named keys: one API key a line, 16 to 512 characters, '#' "
        "begins a comment. Callers send one as Authorization: Bearer or X-Api-Key. A change counts without a restart. "
        "Whoever sets it must be allowed to get that Secret. Example: flight-delay-keys.",
    )


class Bucket(SpecModel):
    """A bucket of an object store that speaks S3."""

    name: Annotated[
        str,
        matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "must be 3 to 63 lower-case letters, digits, '.' and '-'"),
    ] = Field(min_length=3, max_length=63, description="Name of the bucket. Example: predictions.")
    prefix: (
        Annotated[
            str,
            matches(
                r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*", "must be letters, digits and '._=-', with '/' between parts"
            ),
        ]
        | None
    ) = Field(default=None, min_length=1, max_length=512, description="Where in it. Example: airline/flight-delay.")
    secret_name: SecretName = Field(
        description="Secret of this namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. "
        "Whoever sets it must be allowed to get that Secret. Example: predictions-writer.",
    )
    endpoint: HttpUrl | None = Field(
        default=None, description="Address of a store that is not AWS's. Example: https://minio.storage.svc:9000."
    )
    region: Annotated[str, matches(r"[a-z0-9-]+", "must be lower-case letters, digits and '-'")] | None = Field(
        default=None, min_length=1, max_length=63, description="Its region. Example: eu-west-3."
    )


class Records(SpecModel):
    """Keeping requests with their answers, as Arrow streams."""

    checks = (
        Check(
            "(has(self.url) ? 1 : 0) + (has(self.bucket) ? 1 : 0) + (has(self.claimName) ? 1 : 0) == 1",
            "set exactly one of url, bucket and claimName",
            lambda records: [records.url, records.bucket, records.claim_name].count(None) == 2,
        ),
        Check(
            "!has(self.keep) || has(self.claimName)",
            "keep goes with claimName: what a service keeps is its own matter",
            lambda records: records.keep is None or records.claim_name is not None,
        ),
    )

    url: HttpUrl | None = Field(
        default=None,
        description="Service that takes each piece as a POST. Example: http://records.audit.svc:8080/flight-delay.",
    )
    bucket: Bucket | None = Field(default=None, description="Bucket of an object store that each piece is put into.")
    claim_name: _ClaimName | None = Field(
        default=None,
        description="PersistentVolumeClaim of this namespace that pieces are written to as files; with more than one "
        "pod it must be ReadWriteMany. Example: flight-delay-records.",
    )
    ratio: Share = Field(default=1.0, description="Share of the requests that are kept. From 0 to 1. Example: 0.1.")
    redact: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(),
        max_length=256,
        description="Columns and outputs that are left out, by name. Example: [passenger_name].",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    keep: Annotated[str, *size("1Mi", "1024Gi")] | None = Field(
        default=None,
        description="How much each pod's process keeps on the claim at most; its oldest pieces go first. "
        "From 1Mi to 1024Gi. Default: 256Mi.",
    )


class Traces(SpecModel):
    """OpenTelemetry traces."""

    endpoint: HttpUrl = Field(
        description="Collector's address for OTLP over HTTP. Example: http://otel.observability.svc:4318/v1/traces.",
    )
    ratio: Share = Field(
        default=0.01,
        description="Share of the requests that are traced where the caller does not decide (traceparent). "
        "From 0 to 1.",
    )


class Native(SpecModel):
    """The container in which a model answers that cannot be ONNX."""

    resources: Resources = Field(
        default=Resources(),
        description="CPU, memory and other resources of the container that holds the model, beside the runtime's. "
        "Default: those of the platform's Jobs.",
    )
    prediction_timeout: Annotated[str, *duration("1s", "1h")] = Field(
        default="30s",
        description="How long one prediction may take; after that it is answered with 504, and the model is loaded "
        "anew. From 1s to 1h.",
    )
    start_timeout: Annotated[str, *duration("1s", "1h")] = Field(
        default="5m", description="How long the model may take to load. From 1s to 1h."
    )


class Limits(SpecModel):
    """What one pod takes at once; beyond it callers are asked to come back (503) or to send less (413)."""

    connections: int | None = Field(
        default=None, ge=1, le=65_536, description="Open connections of each process. From 1 to 65536. Default: 4096."
    )
    connection_age: Annotated[str, *duration("10s", "24h")] | None = Field(
        default=None,
        description="Age at which a connection is closed after an answer, so that load finds new pods. "
        "From 10s to 24h. Default: 10m.",
    )
    queued_requests: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Requests of each process that wait for the model. From 1 to 1000000. Default: 1024.",
    )
    rows: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Rows of one request. From 1 to 1000000. Default: 65536."
    )
    body: Annotated[str, *size("1Ki", "64Mi")] | None = Field(
        default=None, description="Size of one request's body. From 1Ki to 64Mi. Default: 16Mi."
    )


class Serving(SpecModel):
    """How predictions are answered."""

    checks = (
        Check(
            "!(has(self.replicas) && has(self.autoscaling))",
            "set replicas or autoscaling, not both: two would fight over the same number",
            lambda serving: serving.replicas is None or serving.autoscaling is None,
        ),
        Check(
            "!has(self.autoscaling) || !has(self.resources) || !has(self.resources.requests) || "
            "'cpu' in self.resources.requests",
            "autoscaling is in percent of the CPU request: set resources.requests.cpu too",
            lambda serving: (
                serving.autoscaling is None or not serving.resources.requests or "cpu" in serving.resources.requests
            ),
        ),
    )

    # No default: with one, the API server would set it beside autoscaling, and reset what `kubectl scale` wrote.
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Number of serving pods; kubectl scale changes it. Never together with autoscaling. "
        "From 0 to 1000; 0 answers nothing. Default where neither is set: 1.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Replicas by CPU load. Never together with replicas."
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU, memory and other resources of each serving pod. Default: requests of 100m CPU and 128Mi.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Processes of each pod, which share the model's memory; one for each CPU of its request is "
        "enough. From 1 to 64. Default: 1.",
    )
    tls: Tls | None = Field(
        default=None, description="TLS for HTTP and gRPC; the Service then has port 443 instead of 80."
    )
    api_keys: ApiKeys | None = Field(
        default=None, description="Keys that callers must show. Without it, whoever reaches the pods may ask."
    )
    records: Records | None = Field(
        default=None, description="Keeps requests with their answers, and feedback. Without it, nothing is kept."
    )
    traces: Traces | None = Field(
        default=None, description="OpenTelemetry traces. Default: as the platform decides; none unless it does."
    )
    access_log: bool | None = Field(
        default=None,
        description="Whether each request is a line of JSON in the pods' log. Default: as the platform decides; "
        "false unless it does.",
    )
    native: Native | None = Field(
        default=None,
        description="How a model is run that cannot be ONNX and answers by itself (spec.export.onFailure ServeNative).",
    )
    limits: Limits | None = Field(default=None, description="What one pod takes at once. Default: the runtime's.")
