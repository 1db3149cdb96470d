"""A model that cannot be ONNX, where it may be served natively: its content, its pod's two containers, its status."""

from __future__ import annotations

import json

import pytest

from slipway_operator.domain.contents import Content
from slipway_operator.plan.observed import Manifest

EXPORT = {"onFailure": "ServeNative"}


async def native(world, **serving):
    key = world.add()
    world.edit(key, "export", EXPORT)
    for name, value in serving.items():
        world.edit(key, f"serving.{name}", value)
    await world.settle(key)
    return key


def pod(world) -> Manifest:
    (found,) = world.cluster.of_kind("Deployment")
    return found["spec"]["template"]["spec"]


def containers(world) -> tuple[Manifest, Manifest]:
    """The worker and the runtime."""
    return pod(world)["initContainers"][-1], pod(world)["containers"][0]


async def test_the_export_is_asked_for_it_only_where_the_spec_says_so(world):
    key = world.add()
    await world.settle(key)
    (before,) = world.jobs("export")
    assert "onFailure" not in before["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"]

    world.edit(key, "export", EXPORT)
    await world.look(key)

    names = {j["metadata"]["labels"]["slipway.dev/key"] for j in world.jobs("export")}
    assert len(names) == 2


async def test_a_function_is_asked_of_the_export_and_makes_another_content(world):
    """The model image carries it to the pod, in its signature; what is exported without one is exported as ever."""
    key = await native(world)
    assert functions(world) == [None]

    world.edit(key, "export", {**EXPORT, "function": "flights.answers:predict"})
    await world.settle(key)

    assert set(functions(world)) == {None, "flights.answers:predict"}
    first, second = (entry["data"]["content"] for entry in world.entries())
    assert first != second


def functions(world) -> list[str | None]:
    """What each export was asked to have answer."""
    asked = [job["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"] for job in world.jobs("export")]
    return [json.loads(one).get("function") for one in asked]


async def test_the_content_says_what_answers(world):
    await native(world)
    (entry,) = world.entries()
    digests = entry["data"]["digests"]

    assert (digests["engine"], digests["file"]) == ("worker", "model.joblib")
    (build,) = [s["answer"] for s in entry["data"]["steps"] if s["name"] == "Build"]
    assert digests["worker"] == build["exportImage"]


def test_contents_from_before_keep_their_names():
    parts = ("commit", "package", "lock", "environment", "image", "model", "onnx", "modelImage", "artifact")
    content = Content.model_validate(dict.fromkeys((*parts, "signature", "runtime"), "x"))

    assert content.digest == "sha256:d293c5a4a8d4ab4bf4824ad9948aaa6c63914008eeb0f84087c898512a52a558"


async def test_the_model_answers_in_a_container_of_its_own(world):
    await native(world)
    worker, runtime = containers(world)
    (entry,) = world.entries()

    assert worker["restartPolicy"] == "Always", "it begins before the runtime and ends after it"
    assert worker["image"] == f"reg.test/models/airline/flight-delay@{entry['data']['digests']['worker']}"
    assert (worker["command"], worker["args"]) == (["/opt/env/bin/python", "/opt/slipway/exporter"], ["serve"])
    told = json.loads(worker["env"][0]["value"])
    assert told["model"] == "/model/model.joblib"
    words = " ".join(runtime["args"])
    assert f"--worker-socket {told['socket']} --worker-model model.joblib --worker-seconds 30" in words
    assert runtime["startupProbe"]["failureThreshold"] == 330


async def test_the_model_is_fenced_off(world):
    await native(
        world,
        tls={"secretName": "model-tls"},
        apiKeys={"secretName": "keys"},
        records={"claimName": "kept"},
    )
    worker, runtime = containers(world)

    security = worker["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod(world)["automountServiceAccountToken"] is False
    assert pod(world).get("shareProcessNamespace") in {None, False}
    mounted = {m["mountPath"]: m.get("readOnly", False) for m in worker["volumeMounts"]}
    assert mounted == {"/model": True, "/worker": False, "/tmp": False}  # noqa: S108
    shared = {m["name"] for m in worker["volumeMounts"]} & {m["name"] for m in runtime["volumeMounts"]}
    assert shared == {"model", "worker"}
    volumes = {v["name"]: v for v in pod(world)["volumes"]}
    assert volumes["worker"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}
    assert "ports" not in worker
    assert "memory" in worker["resources"]["limits"]


async def test_a_model_that_is_onnx_gets_no_worker(world):
    key = world.add()
    await world.settle(key)

    assert "initContainers" not in pod(world)
    assert not [v for v in pod(world)["volumes"] if "worker" in v["name"]]
    assert not [c for c in world.status(key)["conditions"] if c["type"] == "ServedNatively"]


async def test_the_worker_comes_after_the_container_that_pulls_the_model(world):
    world.image_volumes = False
    await native(world)

    assert [c["name"] for c in pod(world)["initContainers"]] == ["pull", "worker"]


@pytest.mark.parametrize(
    ("resources", "expected", "most"),
    [
        (
            {},
            {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}},
            int(0.9 * 4 * 2**30),
        ),
        (
            {"limits": {"memory": "1Gi"}},
            {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}},
            int(0.9 * 2**30),
        ),
        (
            {"requests": {"cpu": "2", "memory": "1Gi"}},
            {"requests": {"cpu": "2", "memory": "1Gi"}},
            0,
        ),
    ],
)
async def test_resources_of_the_worker(world, resources, expected, most):
    await native(world, native={"resources": resources})
    worker, _ = containers(world)

    assert worker["resources"] == expected
    assert json.loads(worker["env"][0]["value"])["memoryBytes"] == most


async def test_status_says_that_the_model_itself_answers_and_what_that_costs(world):
    key = await native(world)
    status = world.status(key)

    assert status["export"]["engine"] == "worker"
    assert status["export"]["why"] == "no converter for Nearest"
    assert "by the model itself" in status["summary"]
    told = world.condition(key, "ServedNatively")
    assert (told["status"], told["reason"]) == ("True", "NotOnnx")
    for words in ("no converter for Nearest", "one prediction at a time", "more memory", "slower start"):
        assert words in told["message"]


async def test_it_is_said_when_it_is_so_no_more(world):
    key = await native(world)
    world.edit(key, "export", None)
    await world.settle(key)

    assert world.condition(key, "ServedNatively")["status"] == "False"
    assert "by the model itself" not in world.status(key)["summary"]


async def test_a_worker_that_needs_more_memory_says_which_field(world):
    key = await native(world)
    (deployment,) = world.cluster.of_kind("Deployment")
    deployment["status"] |= {"availableReplicas": 0}
    world.cluster.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "one",
                "namespace": "airline",
                "labels": deployment["spec"]["template"]["metadata"]["labels"],
            },
            "spec": deployment["spec"]["template"]["spec"],
            "status": {
                "phase": "Running",
                "initContainerStatuses": [
                    {"name": "worker", "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                ],
            },
        }
    )
    await world.look(key)

    assert world.ready(key) == ("False", "ServingOutOfMemory")
    assert "spec.serving.native.resources.limits.memory" in world.condition(key, "Ready")["message"]
