"""What Jobs and serving pods are allowed, and what they are told."""

from __future__ import annotations

import json

import pytest

from slipway_operator.plan.jobs import job_name
from slipway_operator.plan.observed import Manifest


async def all_jobs(world, key):
    jobs: dict[str, Manifest] = {}
    for _ in range(8):
        await world.look(key)
        jobs |= {j["metadata"]["labels"]["slipway.dev/step"]: j for j in world.jobs()}
        world.play()
    return jobs


def containers(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.fixture
def rich(world):
    """A platform with Secrets, a proxy, an index and an authority of its own."""
    settings = world.settings.model_dump(mode="json", by_alias=True)
    settings["registry"]["secretName"] = "registry-secret"
    settings["index"] = {"url": "https://index.test/simple", "secretName": "index-secret"}
    settings["proxy"] = {"https": "http://proxy.test:3128"}
    settings["caBundle"] = "PEM"
    world.settings = type(world.settings).model_validate(settings)
    return world


async def test_only_the_containers_that_may_see_a_secret(rich):
    key = rich.add()
    rich.edit(key, "source.git.secretName", "source-secret")
    rich.edit(key, "source.git.follow", {"interval": "5m"})
    jobs = await all_jobs(rich, key)

    seen = {
        (step, c["name"]): {
            m["mountPath"].rpartition("/")[2] for m in c["volumeMounts"] if m["mountPath"].startswith("/secrets/")
        }
        for step, job in jobs.items()
        for c in containers(job["spec"]["template"]["spec"])
    }
    assert seen == {
        ("resolve", "push"): {"source"},
        ("build", "fetch"): {"source", "index", "registry"},
        ("build", "run"): set(),
        ("build", "push"): {"registry"},
        ("train", "run"): set(),
        ("train", "push"): {"registry"},
        ("export", "fetch"): {"registry"},
        ("export", "run"): set(),
        ("export", "push"): {"registry"},
    }


async def test_project_code_never_sees_what_is_handed_over(world):
    jobs = await all_jobs(world, world.add())
    pod = jobs["build"]["spec"]["template"]["spec"]
    handover = {
        c["name"]: [m.get("readOnly", False) for m in c["volumeMounts"] if m["mountPath"] == "/handover"]
        for c in containers(pod)
    }
    assert handover == {"fetch": [False], "run": [], "push": [True]}


async def test_every_pod_is_restricted(rich):
    key = rich.add()
    rich.image_volumes = False
    jobs = await all_jobs(rich, key)
    pods = [j["spec"]["template"]["spec"] for j in jobs.values()]
    pods += [d["spec"]["template"]["spec"] for d in rich.cluster.of_kind("Deployment")]

    assert len(pods) == 4
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "serviceAccountName" not in pod
        assert pod["imagePullSecrets"] == [{"name": "registry-secret"}]
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] or container["command"][0] == "/opt/env/bin/python"
            assert "cpu" not in container["resources"].get("limits", {})
            assert all("@sha256:" in container["image"] for _ in [0])


@pytest.mark.parametrize(
    ("states", "how_far"),
    [
        pytest.param({}, "starting", id="none-yet"),
        pytest.param({"fetch": "running"}, "fetch since 12:03:04 UTC (1 of 3)", id="first"),
        pytest.param({"fetch": "ended", "run": "running"}, "run since 12:03:04 UTC (2 of 3)", id="second"),
        pytest.param(
            {"fetch": "ended", "run": "ended", "push": "running"}, "push since 12:03:04 UTC (3 of 3)", id="last"
        ),
    ],
)
async def test_a_step_says_which_container_runs_and_how_far_that_is(world, states, how_far):
    state = {"running": {"running": {"startedAt": "2026-11-23T12:03:04Z"}}, "ended": {"terminated": {"exitCode": 0}}}
    key = world.add()
    await world.look(key)
    (job,) = world.unfinished()
    pod = world.cluster.run_pod(job, **{name: state[word] for name, word in states.items()})
    # A mesh's proxy, which runs all the time and is none of the Job's containers.
    pod["spec"]["initContainers"].insert(0, {"name": "mesh"})
    pod["status"]["initContainerStatuses"].insert(0, {"name": "mesh", "state": state["running"]})
    await world.look(key)

    (build,) = (s for s in world.status(key)["steps"] if s["name"] == "Build")
    assert build["message"] == how_far
    assert world.status(key)["summary"] == f"Building: {how_far}"


async def test_the_log_names_the_builder_of_each_step_also_of_one_from_before_an_upgrade(world):
    key = world.add()
    await world.settle(key)
    before, after = world.settings.images.builder, f"reg.test/slipway/builder@sha256:{'0' * 64}"
    settings = world.settings.model_dump(mode="json", by_alias=True)
    settings["images"]["builder"] = after
    world.settings = type(world.settings).model_validate(settings)
    world.edit(key, "export", {"parity": {"maxAbsoluteDifference": 1e-4}})
    await world.settle(key)

    builders = [{s["name"]: s["builder"] for s in entry["data"]["steps"]} for entry in world.entries()]
    assert builders == [
        {"Build": before, "Train": before, "Export": before},
        {"Build": before, "Train": before, "Export": after},
    ]


async def test_a_user_cannot_pass_a_request_of_his_own(world):
    key = world.add()
    world.edit(key, "model.train.env", [{"name": "SLIPWAY_REQUEST", "value": "{}"}, {"name": "SEED", "value": "1"}])
    jobs = await all_jobs(world, key)
    run = jobs["train"]["spec"]["template"]["spec"]["initContainers"][0]
    values = [e["value"] for e in run["env"] if e["name"] == "SLIPWAY_REQUEST"]

    assert len(values) == 1
    assert json.loads(values[0])["command"] == ["python", "-m", "flight_delay.train"]
    assert {"name": "SEED", "value": "1"} in run["env"]


async def test_jobs_know_proxy_index_and_authority(rich):
    jobs = await all_jobs(rich, rich.add())
    env = {e["name"]: e["value"] for e in containers(jobs["build"]["spec"]["template"]["spec"])[0]["env"]}

    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://proxy.test:3128"
    assert env["UV_DEFAULT_INDEX"] == "https://index.test/simple"
    assert env["SSL_CERT_FILE"] == "/settings/ca.crt"
    (config,) = rich.cluster.of_kind("ConfigMap")
    assert config["data"]["ca.crt"] == "PEM"


async def test_a_committed_model_skips_training(world):
    key = world.add()
    world.edit(key, "model.train", None)
    await world.settle(key)

    assert world.steps(key)["Train"] == "Skipped"
    assert {j["metadata"]["labels"]["slipway.dev/step"] for j in world.jobs()} == {"build", "export"}
    export = world.jobs("export")[0]["spec"]["template"]["spec"]
    assert [c["name"] for c in containers(export)] == ["run", "push"]
    build = containers(world.jobs("build")[0]["spec"]["template"]["spec"])[0]
    request = json.loads(next(e["value"] for e in build["env"] if e["name"] == "SLIPWAY_REQUEST"))
    assert request["requiredFiles"] == ["data/sample.csv", "model.joblib"]


async def test_a_common_list_is_in_the_settings_of_the_jobs(world):
    key = world.add()
    world.edit(key, "environment", {"isolation": "Common", "packageList": {"name": "default", "version": "2026.11"}})
    await world.look(key)

    (config,) = world.cluster.of_kind("ConfigMap")
    assert config["data"]["package-list.txt"] == "numpy==2.3.5\n"


@pytest.mark.parametrize("attempt", [1, 12, 1234567])
def test_job_names_fit_a_label_for_the_longest_name(attempt):
    names = {job_name("a" * 45, step, "0123456789", attempt) for step in ("resolve", "build", "train", "export")}

    assert len(names) == 4
    assert all(len(n) <= 63 and n.endswith(f"-{attempt}") for n in names)


@pytest.mark.parametrize(
    ("delivery", "nodes", "mounts_image"),
    [
        ("Auto", True, True),
        ("Auto", False, False),
        ("ImageVolume", False, True),
        ("InitContainer", True, False),
    ],
)
async def test_how_the_model_gets_into_the_pod(world, delivery, nodes, mounts_image):
    world.settings = world.settings.model_copy(update={"model_delivery": delivery})
    world.image_volumes = nodes
    key = world.add()
    await world.settle(key)

    (deployment,) = world.cluster.of_kind("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert any("image" in v for v in pod["volumes"]) is mounts_image
    assert ("initContainers" in pod) is not mounts_image
    policy = next(p for p in world.cluster.of_kind("NetworkPolicy") if p["metadata"]["name"] == key.name)
    assert ("egress" in policy["spec"]) is not mounts_image


async def test_a_new_content_waits_a_minute_for_the_nodes_answer(world):
    world.image_volumes = None
    key = world.add()
    for _ in range(6):
        await world.look(key)
        world.play()
    assert world.ready(key) == ("False", "ProbingNodes")
    world.cluster.pass_time(61)
    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")
    (deployment,) = world.cluster.of_kind("Deployment")
    assert "initContainers" in deployment["spec"]["template"]["spec"]
    world.image_volumes = True
    writes = len(world.cluster.writes)
    await world.look(key)
    assert len(world.cluster.writes) == writes, "pods that work are not moved for a nicer way"


async def test_a_node_that_cannot_mount_images_moves_the_pods(world):
    key = world.add()
    await world.settle(key)
    world.image_volumes = False
    await world.settle(key)

    (deployment,) = world.cluster.of_kind("Deployment")
    assert "initContainers" in deployment["spec"]["template"]["spec"]


async def test_a_restored_log_is_adopted_and_nothing_is_made_anew(world):
    key = world.add()
    await world.settle(key)
    entries = [dict(e, metadata={**e["metadata"], "ownerReferences": []}) for e in world.entries()]
    lane = world.lane()
    world.cluster.remove(world.ref(key))
    for entry in entries:
        entry["metadata"].pop("uid")
        world.cluster.add(entry)
    again = world.add()
    await world.settle(again)

    assert world.jobs() == []
    assert world.lane() == lane
    (entry,) = world.entries()
    assert [o["uid"] for o in entry["metadata"]["ownerReferences"]] == [
        world.cluster.objects[world.ref(key)]["metadata"]["uid"]
    ]
