"""What goes wrong at each step: the reason, the sentence, who must act, and that live goes on."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest

from slipway_operator.domain.durations import format_time


def said(reason, message, *, retry=False):
    """What a container writes that failed for a reason of its own."""
    return json.dumps({"ok": False, "reason": reason, "message": message, "retry": retry})


FAILED = said("LockFileMissing", "uv.lock is not in the project: commit it")
PASSING = [
    pytest.param("fetch", "IndexUnavailable", "the index is down", id="index"),
    pytest.param("fetch", "SourceUnavailable", "the repository is down", id="source"),
    pytest.param("push", "RegistryUnavailable", "the registry is down", id="registry"),
]


@dataclass
class Wanted:
    """A content on its way: the first one, or the next one beside what is live."""

    world: Any
    key: Any
    live: Any

    @property
    def jobs_before(self):
        """Jobs of each step that the live content left."""
        return 0 if self.live is None else 1

    def now(self):
        """All that callers and the log depend on."""
        kinds = ("Service", "Deployment", "PodDisruptionBudget", "ControllerRevision")
        return copy.deepcopy([self.world.lane(), *(self.world.cluster.of_kind(kind) for kind in kinds)])

    def check_that_live_goes_on(self):
        """What was live is untouched, answers, and the status says so."""
        available = self.world.condition(self.key, "Available")
        if self.live is None:
            assert (available["status"], available["reason"]) == ("False", "NothingLive")
            return
        assert self.now() == self.live
        assert (available["status"], available["reason"]) == ("True", "Serving")


@pytest.fixture(params=["the-first", "beside-a-live-one"])
async def wanted(world, request):
    found = Wanted(world, world.add(), None)
    if request.param == "beside-a-live-one":
        await world.settle(found.key)
        found.live = found.now()
        world.commit = "beef" * 10
        world.edit(found.key, "source.git.ref", "v2.0.0")
    return found


async def reach(world, key, step):
    """Go on until a Job of this step runs."""
    for _ in range(8):
        await world.look(key)
        found = [j for j in world.unfinished() if j["metadata"]["labels"]["slipway.dev/step"] == step]
        if found:
            return found[0]
        world.play()
    raise AssertionError(f"no Job {step}")


@pytest.mark.parametrize(
    ("step", "container", "ended", "reason", "words"),
    [
        pytest.param("build", "fetch", {"message": FAILED}, "LockFileMissing", "commit it", id="said-by-the-job"),
        pytest.param(
            "build",
            "fetch",
            {"message": said("HashMismatch", "numpy has other bytes: lock again")},
            "HashMismatch",
            "lock again",
            id="hash-mismatch",
        ),
        pytest.param(
            "train",
            "run",
            {"message": said("TrainingFailed", "the command exited with 1")},
            "TrainingFailed",
            "exited with 1",
            id="training-fails",
        ),
        pytest.param(
            "train",
            "push",
            {"message": said("RegistryAccessDenied", "the registry takes no push: give its Secret")},
            "RegistryAccessDenied",
            "its Secret",
            id="registry-says-no",
        ),
        pytest.param(
            "export",
            "run",
            {"message": said("ParityFailed", "row 3 differs by 0.2")},
            "ParityFailed",
            "row 3",
            id="not-equal",
        ),
        pytest.param(
            "build",
            "run",
            {"reason": "OOMKilled", "exitCode": 137},
            "BuildOutOfMemory",
            "jobs.memoryLimit",
            id="build-oom",
        ),
        pytest.param(
            "train",
            "run",
            {"reason": "OOMKilled", "exitCode": 137},
            "TrainingOutOfMemory",
            "spec.model.train.resources.limits.memory",
            id="training-oom",
        ),
        pytest.param(
            "export",
            "run",
            {"reason": "OOMKilled", "exitCode": 137},
            "ExportOutOfMemory",
            "limits.memory",
            id="export-oom",
        ),
        pytest.param(
            "train",
            "run",
            {"exitCode": 3, "message": "Traceback\nKeyError: 'x'"},
            "StepFailed",
            "KeyError",
            id="a-bare-exit",
        ),
        pytest.param(
            "build",
            "fetch",
            {"message": '{"ok": false, "reason": "no good", "message": "m"}'},
            "StepFailed",
            "m",
            id="a-reason-no-condition-takes",
        ),
        pytest.param(
            "build", "push", {"exitCode": 0, "message": "not json"}, "StepFailed", "without an answer", id="no-answer"
        ),
        pytest.param(
            "build",
            "push",
            {"exitCode": 0, "message": '{"ok": true, "commit": 1}'},
            "StepFailed",
            "without an answer",
            id="half-an-answer",
        ),
    ],
)
async def test_a_failed_step_stalls_with_its_reason(world, wanted, step, container, ended, reason, words):
    key = wanted.key
    job = await reach(world, key, step)
    world.cluster.fail_job(job, container, **ended)

    await world.look(key)

    assert world.ready(key) == ("False", reason)
    stalled = world.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    assert words in stalled["message"]
    assert world.condition(key, "Reconciling")["status"] == "False"
    assert world.steps(key)[step.title()] == "Failed"
    wanted.check_that_live_goes_on()
    world.cluster.pass_time(3600)
    jobs = len(world.jobs())
    await world.look(key)
    assert len(world.jobs()) == jobs, "what a person must change is not tried again"
    wanted.check_that_live_goes_on()
    assert [e.reason for e in world.cluster.emitted].count(reason) == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [("build", "BuildTimedOut"), ("train", "TrainingTimedOut"), ("export", "ExportTimedOut")],
)
async def test_a_job_past_its_deadline(world, wanted, step, reason):
    key = wanted.key
    job = await reach(world, key, step)
    job["status"] = {
        "startTime": format_time(world.cluster.now),
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "DeadlineExceeded",
                "lastTransitionTime": format_time(world.cluster.now),
            }
        ],
    }

    await world.look(key)

    assert world.ready(key) == ("False", reason)
    wanted.check_that_live_goes_on()


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        ({"reason": "ErrImagePull", "message": "not found"}, "ImageCannotBePulled"),
        ({"reason": "ImagePullBackOff", "message": "Back-off"}, "ImageCannotBePulled"),
        ({"reason": "InvalidImageName"}, "ImageCannotBePulled"),
        ({"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}, "SecretNotFound"),
        ({"reason": "CreateContainerError", "message": "no such file"}, "ContainerCannotStart"),
    ],
)
async def test_a_pod_that_cannot_start_waits_and_then_stalls(world, wanted, waiting, reason):
    key = wanted.key
    job = await reach(world, key, "build")
    world.cluster.run_pod(job, fetch={"waiting": waiting})

    await world.look(key)
    assert world.ready(key) == ("False", reason)
    assert world.condition(key, "Stalled")["status"] == "False"
    assert world.condition(key, "Reconciling")["status"] == "True"
    assert world.steps(key)["Build"] == "Waiting"

    world.cluster.pass_time(301)
    await world.look(key)
    assert world.condition(key, "Stalled")["status"] == "True"
    wanted.check_that_live_goes_on()

    world.play()
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving"), "it goes on by itself"


async def test_both_words_of_the_kubelet_for_a_failed_pull_give_one_message(world):
    key = world.add()
    job = await reach(world, key, "build")
    messages = []
    for waiting in (
        {"reason": "ErrImagePull", "message": "reg.test/x: not found"},
        {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": ErrImagePull: reg.test/x: not found'},
    ):
        world.cluster.run_pod(job, fetch={"waiting": waiting})
        await world.look(key)
        messages.append(world.condition(key, "Ready")["message"])

    assert messages[0] == messages[1]


async def test_an_unschedulable_pod_says_what_the_scheduler_says(world, wanted):
    key = wanted.key
    pod = world.cluster.run_pod(await reach(world, key, "train"))
    pod["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes: Insufficient memory.",
        }
    ]
    await world.look(key)

    assert world.ready(key) == ("False", "Unschedulable")
    assert "Insufficient memory" in world.condition(key, "Ready")["message"]
    wanted.check_that_live_goes_on()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('Error creating: pods "x" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded"),
        ('Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodRefused"),
        ("Error creating: maximum memory usage per Container is 1Gi", "PodRefused"),
    ],
)
async def test_a_job_that_gets_no_pod_says_why(world, wanted, text, reason):
    key = wanted.key
    job = await reach(world, key, "build")
    world.cluster.warnings.append(warning(job, "FailedCreate", text))
    world.cluster.pass_time(15)

    await world.look(key)

    assert world.ready(key) == ("False", reason)
    wanted.check_that_live_goes_on()


async def test_a_missing_secret_is_named(world, wanted):
    key = wanted.key
    pod = world.cluster.run_pod(await reach(world, key, "build"))
    text = 'MountVolume.SetUp failed for volume "secret-source" : secret "git-key" not found'
    world.cluster.warnings.append(warning(pod, "FailedMount", text))
    world.cluster.pass_time(15)

    await world.look(key)

    assert world.ready(key) == ("False", "SecretNotFound")
    assert "git-key" in world.condition(key, "Ready")["message"]
    wanted.check_that_live_goes_on()


def warning(about, reason, text):
    return {
        "metadata": {"namespace": about["metadata"]["namespace"]},
        "involvedObject": {"uid": about["metadata"]["uid"]},
        "reason": reason,
        "message": text,
        "lastTimestamp": "2026-11-23T12:00:10Z",
    }


@pytest.mark.parametrize(("container", "reason", "message"), PASSING)
async def test_a_passing_failure_is_tried_again_with_growing_waits(world, wanted, container, reason, message):
    key = wanted.key
    waits = []
    for attempt in range(1, 5):
        job = await reach(world, key, "build")
        assert job["metadata"]["name"].endswith(f"-{attempt}")
        world.cluster.fail_job(job, container, message=said(reason, message, retry=True))
        wait = await world.look(key)
        assert world.ready(key) == ("False", reason)
        assert world.condition(key, "Stalled")["status"] == "False"
        assert world.steps(key)["Build"] == "Waiting"
        wanted.check_that_live_goes_on()
        waits.append(round(wait))
        world.cluster.pass_time(wait + 0.1)

    assert waits == [10, 20, 40, 80]
    await world.look(key)
    world.play()
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")


@pytest.mark.parametrize(("container", "reason", "message"), PASSING)
async def test_a_failure_that_does_not_pass_stalls_but_goes_on_trying(world, wanted, container, reason, message):
    key = wanted.key
    for _ in range(7):
        job = await reach(world, key, "build")
        world.cluster.fail_job(job, container, message=said(reason, message, retry=True))
        wait = await world.look(key)
        world.cluster.pass_time(wait + 0.1)

    stalled = world.condition(key, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    wanted.check_that_live_goes_on()
    assert round(wait) == 300
    assert len(world.jobs("build")) == wanted.jobs_before + 1, "only the newest attempt is kept"
    await world.look(key)
    world.play()
    await world.settle(key)
    assert world.condition(key, "Stalled")["status"] == "False"


async def test_the_retry_annotation_runs_a_failed_step_once_more(world):
    key = world.add()
    world.cluster.fail_job(await reach(world, key, "build"), "fetch", message=FAILED)
    await world.look(key)
    world.annotate(key, "slipway.dev/retry", "please")

    job = await reach(world, key, "build")
    assert job["metadata"]["name"].endswith("-2")
    assert world.status(key)["retryOf"] == "please"
    world.cluster.fail_job(job, "fetch", message=FAILED)
    await world.look(key)
    await world.look(key)
    assert world.unfinished() == []


async def test_more_memory_runs_a_killed_training_again_but_a_good_one_never(world):
    key = world.add()
    world.cluster.fail_job(await reach(world, key, "train"), "run", reason="OOMKilled", exitCode=137)
    await world.look(key)
    world.edit(key, "model.train.resources", {"limits": {"memory": "8Gi"}})
    await world.settle(key)
    assert world.ready(key) == ("True", "Serving")
    jobs = len(world.jobs())

    world.edit(key, "model.train.resources", {"limits": {"memory": "9Gi"}})
    world.edit(key, "model.train.timeout", "3h")
    await world.settle(key)

    assert len(world.jobs()) == jobs
    assert len(world.entries()) == 1


async def test_another_secret_replaces_a_pod_that_waits_for_the_old_one(world):
    key = world.add()
    world.edit(key, "source.git.secretName", "wrong")
    pod = world.cluster.run_pod(await reach(world, key, "build"))
    world.cluster.warnings.append(warning(pod, "FailedMount", 'secret "wrong" not found'))
    world.cluster.pass_time(15)
    await world.look(key)
    world.edit(key, "source.git.secretName", "right")

    await world.look(key)
    await world.look(key)

    (job,) = world.jobs("build")
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert [v["secret"]["secretName"] for v in volumes if "secret" in v] == ["right"]


async def test_a_job_whose_pod_was_lost_is_run_again(world, wanted):
    key = wanted.key
    job = await reach(world, key, "build")
    job["status"] = {
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "BackoffLimitExceeded",
                "lastTransitionTime": format_time(world.cluster.now),
            }
        ]
    }
    await world.look(key)
    assert world.ready(key) == ("False", "PodLost")
    wanted.check_that_live_goes_on()
    world.cluster.pass_time(11)

    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")


async def test_a_good_job_whose_answer_is_gone_is_run_again(world):
    key = world.add()
    job = await reach(world, key, "build")
    job["status"] = {
        "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": format_time(world.cluster.now)}]
    }
    await world.look(key)
    assert world.jobs("build") == [job]
    world.cluster.pass_time(31)

    await world.settle(key)

    assert world.ready(key) == ("True", "Serving")


async def test_a_full_work_volume_is_said(world, wanted):
    key = wanted.key
    pod = world.cluster.run_pod(await reach(world, key, "build"))
    pod["status"].update(
        phase="Failed", reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "8Gi".'
    )
    await world.look(key)

    assert world.ready(key) == ("False", "WorkVolumeFull")
    wanted.check_that_live_goes_on()


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("environment", {"python": "3.7"}, "InterpreterNotOffered"),
        (
            "environment",
            {"isolation": "Common", "packageList": {"name": "none", "version": "1"}},
            "PackageListNotFound",
        ),
        (
            "environment",
            {"isolation": "Common", "python": "3.12", "packageList": {"name": "default", "version": "2026.11"}},
            "InterpreterNotOffered",
        ),
        ("model.path", "../../etc/passwd", "InvalidSpec"),
        ("source.git.ref", "no-such-branch", "RefNotFound"),
    ],
)
async def test_a_wrong_next_version_leaves_the_live_one_serving(world, path, value, reason):
    key = world.add()
    await world.settle(key)
    lane, before = world.lane(), world.deployments()
    world.edit(key, path, value)
    await world.look(key)
    for job in world.unfinished():
        world.cluster.fail_job(job, "fetch", message=said("RefNotFound", "no such ref"))
    await world.look(key)

    assert world.ready(key) == ("False", reason)
    assert world.condition(key, "Stalled")["status"] == "True"
    assert world.condition(key, "Available")["status"] == "True"
    assert (world.lane(), world.deployments()) == (lane, before)
    told = (c for c in world.status(key)["conditions"] if c["type"] in {"Ready", "Reconciling", "Stalled"})
    observed = {c["observedGeneration"] for c in told}
    assert observed == {2}


async def test_an_old_spec_s_running_job_ends_when_the_spec_changes(world):
    key = world.add()
    await reach(world, key, "train")
    world.edit(key, "source.git.ref", "v2")
    await world.look(key)

    running = [j["metadata"]["labels"]["slipway.dev/step"] for j in world.unfinished()]
    assert running == ["build"]
