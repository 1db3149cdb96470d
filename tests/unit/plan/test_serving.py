"""What a spec says of serving: in the pods, on the Service, in the policy; and never in a content."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from slipway_operator.plan.observed import Manifest
from slipway_operator.plan.ports import figures_port

TLS = {"secretName": "model-tls"}
MUTUAL = {"secretName": "model-tls", "clientCASecretName": "callers"}
KEYS = {"secretName": "model-keys"}
RECORDS = {"url": "http://records.audit.svc:9000/in", "ratio": 0.25, "redact": ["passenger", "-odd"]}


async def served(world, **serving: Any) -> Any:
    """A ModelDeployment that is settled, with more in ``spec.serving``."""
    key = world.add()
    for name, value in serving.items():
        world.edit(key, f"serving.{name}", value)
    await world.settle(key)
    return key


def deployment(world) -> Manifest:
    (found,) = world.cluster.of_kind("Deployment")
    return found


def pod(world) -> Manifest:
    return deployment(world)["spec"]["template"]["spec"]


def runtime(world) -> Manifest:
    (container,) = pod(world)["containers"]
    return container


def arguments(world) -> str:
    return " ".join(runtime(world)["args"])


def ports(world) -> dict[str, tuple[int, Any, str]]:
    (service,) = world.cluster.of_kind("Service")
    return {p["name"]: (p["port"], p["targetPort"], p["appProtocol"]) for p in service["spec"]["ports"]}


def policy(world) -> Manifest:
    (found,) = [p for p in world.cluster.of_kind("NetworkPolicy") if p["metadata"]["name"] == "flight-delay"]
    return found["spec"]


def stand(world, name: str = "one") -> Manifest:
    """A pod of the Deployment as it is now."""
    template = copy.deepcopy(deployment(world)["spec"]["template"])
    return world.cluster.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "airline", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {"phase": "Running", "podIP": "10.0.0.7"},
        }
    )


async def test_nothing_is_asked_of_a_runtime_that_the_spec_does_not_ask_for(world):
    await served(world)

    assert runtime(world)["args"][-2:] == ["--port", "8080"]
    assert [p["name"] for p in runtime(world)["ports"]] == ["http", "grpc"]
    assert runtime(world)["livenessProbe"]["httpGet"]["port"] == "http"
    assert ports(world) == {"http": (80, "http", "http"), "grpc": (8081, "grpc", "kubernetes.io/h2c")}


async def test_with_tls_callers_and_probes_have_ports_of_their_own(world):
    key = await served(world, tls=TLS)

    assert "--tls-cert /secrets/tls/tls.crt --tls-key /secrets/tls/tls.key --probe-port 8082" in arguments(world)
    assert {p["name"]: p["containerPort"] for p in runtime(world)["ports"]} == {
        "https": 8080,
        "grpc": 8081,
        "probes": 8082,
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert runtime(world)[probe]["httpGet"]["port"] == "probes"
    assert ports(world) == {"https": (443, "https", "https"), "grpc": (8081, "grpc", "https")}
    assert world.status(key)["url"] == "https://flight-delay.airline.svc/v2/models/flight-delay"


async def test_secrets_are_mounted_read_only_and_only_the_keys_that_are_read(world):
    await served(world, tls=MUTUAL, apiKeys=KEYS)

    mounted = {m["mountPath"]: m.get("readOnly") for m in runtime(world)["volumeMounts"] if "secret" in m["name"]}
    assert mounted == {"/secrets/tls": True, "/secrets/client-ca": True, "/secrets/api-keys": True}
    volumes = {
        v["name"]: (v["secret"]["secretName"], [i["key"] for i in v["secret"]["items"]], v["secret"]["defaultMode"])
        for v in pod(world)["volumes"]
        if "secret" in v
    }
    assert volumes == {
        "secret-tls": ("model-tls", ["tls.crt", "tls.key"], 0o440),
        "secret-client-ca": ("callers", ["ca.crt"], 0o440),
        "secret-api-keys": ("model-keys", ["keys"], 0o440),
    }
    assert "--tls-client-ca /secrets/client-ca/ca.crt --api-keys /secrets/api-keys/keys" in arguments(world)
    assert "env" not in runtime(world)


async def test_a_container_that_pulls_the_model_sees_no_secret_of_serving(world):
    world.image_volumes = False
    await served(world, tls=TLS, apiKeys=KEYS)

    (puller,) = pod(world)["initContainers"]
    assert not [m for m in puller["volumeMounts"] if "tls" in m["name"] or "keys" in m["name"]]


async def test_a_container_that_pulls_the_model_has_room_for_the_layer_beside_the_model(world):
    """More in a volume than its limit, and the kubelet evicts the pod."""
    world.image_volumes = False
    await served(world)

    limits = {v["name"]: v["emptyDir"].get("sizeLimit") for v in pod(world)["volumes"] if "emptyDir" in v}
    (puller,) = pod(world)["initContainers"]
    rooms = [m["name"] for m in puller["volumeMounts"] if m["name"] in limits]
    assert [limits[name] for name in rooms] == ["2Gi", "2Gi"]
    assert {m["name"] for m in runtime(world)["volumeMounts"]} & set(rooms) == {"model"}


async def test_a_port_stays_until_the_last_pod_that_has_it_has_gone(world):
    key = await served(world)
    old = stand(world)
    world.edit(key, "serving.tls", TLS)
    await world.look(key)
    await world.look(key)

    assert ports(world)["http"] == (80, "http", "http"), "its pods still answer without TLS"
    assert ports(world)["https"] == (443, "https", "https")
    world.cluster.remove(("v1", "Pod", "airline", old["metadata"]["name"]))
    stand(world, "two")
    await world.settle(key)
    assert set(ports(world)) == {"https", "grpc"}


async def test_what_is_set_of_serving_is_no_content_and_holds_nothing(world):
    key = await served(world)
    lane, entries = world.lane(), len(world.entries())

    for name, value in {
        "tls": TLS,
        "apiKeys": KEYS,
        "records": RECORDS,
        "traces": {"endpoint": "http://otel.test:4318/v1/traces"},
        "accessLog": True,
        "workers": 2,
        "limits": {"connections": 10},
    }.items():
        world.edit(key, f"serving.{name}", value)
        await world.settle(key)

    assert (world.lane(), len(world.entries()), len(world.cluster.of_kind("Deployment"))) == (lane, entries, 1)
    assert world.ready(key) == ("True", "Serving")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("workers", 3, "--workers 3"),
        ("accessLog", True, "--access-log"),
        (
            "traces",
            {"endpoint": "http://otel.test:4318/v1/traces", "ratio": 0.5},
            "--trace --trace-endpoint http://otel.test:4318/v1/traces --trace-ratio 0.5",
        ),
        (
            "records",
            RECORDS,
            "--record-to http://records.audit.svc:9000/in --record-ratio 0.25 --redact=passenger --redact=-odd",
        ),
        (
            "records",
            {"claimName": "kept", "keep": "1Gi"},
            "--record-to /records --record-ratio 1 --record-bytes 1073741824",
        ),
        (
            "records",
            {"bucket": {"name": "kept", "prefix": "a/b", "secretName": "s", "endpoint": "https://s3.test:9000"}},
            (
                "--record-to s3://kept/a/b --record-ratio 1 --record-credentials /secrets/bucket "
                "--record-endpoint https://s3.test:9000"
            ),
        ),
        (
            "limits",
            {"connections": 100, "connectionAge": "1m30s", "queuedRequests": 7, "rows": 10, "body": "1Mi"},
            "--connections 100 --connection-seconds 90 --queue-requests 7 --max-rows 10 --max-body-bytes 1048576",
        ),
    ],
)
async def test_what_is_asked_for_is_an_argument(world, field, value, words):
    await served(world, **{field: value})

    assert words in arguments(world)


async def test_records_on_a_claim(world):
    await served(world, records={"claimName": "kept"})

    assert {"name": "records", "persistentVolumeClaim": {"claimName": "kept"}} in pod(world)["volumes"]
    assert {"name": "records", "mountPath": "/records"} in runtime(world)["volumeMounts"]


async def test_the_policy_lets_out_to_collectors_and_sinks_only(world):
    await served(
        world, records={"url": "https://records.test/in"}, traces={"endpoint": "http://otel.test:4318/v1/traces"}
    )

    dns, sinks = policy(world)["egress"]
    assert [p["port"] for p in dns["ports"]] == [53, 53]
    assert sinks == {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 4318, "protocol": "TCP"}]}


@pytest.mark.parametrize(("endpoint", "port"), [({"endpoint": "http://minio.test:9000"}, 9000), ({}, 443)])
async def test_the_policy_lets_out_to_a_bucket_whose_secret_is_mounted(world, endpoint, port):
    await served(world, records={"bucket": {"name": "kept", "secretName": "writer", **endpoint}})

    assert policy(world)["egress"][1] == {"ports": [{"port": port, "protocol": "TCP"}]}
    (volume,) = [v for v in pod(world)["volumes"] if "secret" in v]
    assert volume["secret"]["secretName"] == "writer"
    assert [i["key"] for i in volume["secret"]["items"]] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


async def test_without_sinks_nothing_leaves_a_pod(world):
    await served(world, tls=TLS)

    assert "egress" not in policy(world)
    assert "Egress" in policy(world)["policyTypes"]


async def test_only_the_operator_and_those_whom_the_platform_names_read_guarded_metrics(world):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    settings = world.settings.model_dump(mode="json", by_alias=True)
    settings["serving"]["metricsFrom"] = [peer]
    world.settings = type(world.settings).model_validate(settings)
    await served(world, apiKeys=KEYS)

    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "slipway-system"}}}
    assert policy(world)["ingress"] == [
        {"ports": [{"port": 8080, "protocol": "TCP"}, {"port": 8081, "protocol": "TCP"}]},
        {"from": [operator, peer], "ports": [{"port": 8082, "protocol": "TCP"}]},
    ]


@pytest.mark.parametrize(
    ("own", "log", "endpoint"),
    [
        ({}, True, "http://platform.test:4318/v1/traces"),
        ({"accessLog": False, "traces": {"endpoint": "http://own.test/v1/traces"}}, False, "http://own.test/v1/traces"),
    ],
)
async def test_the_platform_decides_where_a_spec_says_nothing(world, own, log, endpoint):
    settings = world.settings.model_dump(mode="json", by_alias=True)
    settings["serving"] |= {"accessLog": True, "traces": {"endpoint": "http://platform.test:4318/v1/traces"}}
    world.settings = type(world.settings).model_validate(settings)
    await served(world, **own)

    assert ("--access-log" in arguments(world)) is log
    assert f"--trace-endpoint {endpoint} " in arguments(world)


@pytest.mark.parametrize(("serving", "port"), [({}, 8080), ({"tls": TLS}, 8082), ({"apiKeys": KEYS}, 8082)])
async def test_figures_are_asked_for_where_no_key_is_needed(world, serving, port):
    await served(world, **serving)

    assert figures_port(stand(world)) == port


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        (
            'MountVolume.SetUp failed for volume "secret-tls" : secret "model-tls" not found',
            "SecretNotFound",
            "not in namespace airline",
        ),
        (
            'MountVolume.SetUp failed for volume "secret-api-keys" : references non-existent secret key: keys',
            "SecretKeyMissing",
            "no key keys",
        ),
    ],
)
async def test_without_its_secret_a_new_pod_waits_and_the_live_ones_answer(world, message, reason, words):
    key = await served(world)
    lane = world.lane()
    world.edit(key, "serving.tls", TLS)
    await world.look(key)
    live = deployment(world)
    live["status"] |= {"updatedReplicas": 1, "replicas": 3, "observedGeneration": live["metadata"]["generation"]}
    waiting = stand(world)
    waiting["status"] = {"phase": "Pending"}
    told = {
        "metadata": {"namespace": "airline"},
        "reason": "FailedMount",
        "message": message,
        "involvedObject": {"uid": waiting["metadata"]["uid"]},
    }
    world.cluster.warnings.append(told)
    world.cluster.pass_time(30)
    await world.look(key)

    assert world.ready(key) == ("False", reason)
    assert words in world.condition(key, "Ready")["message"]
    assert world.condition(key, "Available")["status"] == "True"
    assert world.lane() == lane


async def test_without_its_claim_a_pod_says_so(world):
    key = await served(world)
    world.edit(key, "serving.records", {"claimName": "kept"})
    await world.look(key)
    live = deployment(world)
    live["status"] |= {"updatedReplicas": 1, "replicas": 3, "observedGeneration": live["metadata"]["generation"]}
    told = 'persistentvolumeclaim "kept" not found'
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": told}
    stand(world)["status"] = {"phase": "Pending", "conditions": [unscheduled]}
    await world.look(key)

    assert world.ready(key) == ("False", "ClaimNotFound")
    assert 'persistentvolumeclaim "kept"' in world.condition(key, "Ready")["message"]
