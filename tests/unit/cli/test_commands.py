"""The command line as a process: what it asks of the API server, prints, and ends with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest
import yaml


def asked(api) -> dict[str, str]:
    """All annotations that were written so far."""
    return {k: v for _, _, _, body in api.writes for k, v in (body["metadata"].get("annotations") or {}).items()}


def acts(api, make, entry=None, **status):
    """Let the operator answer the next write: with an entry of the log, or a status."""

    def operator(_path, _manifest):
        found = asked(api)
        value = next((v for k, v in found.items() if k.startswith("slipway.dev/") and "@" in str(v)), "")
        request_id = value.partition(" ")[0].partition("@")[2]
        if entry is not None:
            data = {**entry, "requestId": request_id}
            api.put(f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions", make.revision(data))
            api.put(make.COLLECTION, make.resource(live={"content": make.OLD, "revision": data["number"]}))
        else:
            request = {"id": request_id, **status}
            api.put(make.COLLECTION, make.resource(requests=[request]))

    api.operator = operator


def test_get_shows_the_tree(slipway):
    ended = slipway.process("get", "flight-delay")

    lines = ended.out.splitlines()
    assert ended.code == 0, ended.err
    assert lines[0].startswith("✔ flight-delay  revision 2 answers (content bbbbbbbbbb)")
    assert lines[1] == "  source git https://git.test/delay.git v2 at bbbbbbbbbbbb"
    assert lines[2].startswith("  ✔ bbbbbbbbbb  live  100%  revision 2  2/2 pods ready  commit bbbbbbbbbbbb")
    assert lines[3].startswith("    ✔ flight-delay-bbbbbbbbbb-1  Running  1/1 ready")
    assert lines[5].startswith("  · aaaaaaaaaa  standby  0%  revision 1  1/1 pods ready")
    assert "\x1b" not in ended.out


def test_get_lists_what_there_is(slipway):
    ended = slipway("get")

    head, row = ended.out.splitlines()
    assert head.split() == ["NAME", "READY", "REVISION", "CONTENT", "PODS", "COMMIT", "LIVE", "SUMMARY"]
    assert row.split()[:6] == ["flight-delay", "True", "2", "bbbbbbbbbb", "2/2", "bbbbbbbbbbbb"]


def test_get_for_programs(slipway):
    view = json.loads(slipway("get", "flight-delay", "-o", "json").out)

    assert [(c["content"], c["role"], c["share"]) for c in view["contents"]] == [
        ("bbbbbbbbbb", "live", 1.0),
        ("aaaaaaaaaa", "standby", 0.0),
    ]
    assert view["state"] == "Ready"


@pytest.mark.parametrize("what", [(), ("flight-delay",)], ids=["all", "one"])
def test_yaml_says_what_json_says(what, slipway):
    said = slipway("get", *what, "-o", "yaml").out

    assert without_ages(yaml.safe_load(said)) == without_ages(json.loads(slipway("get", *what, "-o", "json").out))
    assert "{" not in said.splitlines()[0]


def without_ages(value):
    """What does not change from one second to the next."""
    if isinstance(value, dict):
        return {name: without_ages(item) for name, item in value.items() if name != "age"}
    return [without_ages(item) for item in value] if isinstance(value, list) else value


def test_watching_in_a_pipe_prints_a_line_for_each_change(slipway, api, make):
    process = slipway.start("get", "flight-delay", "-w")
    first = [process.stdout.readline() for _ in range(7)]
    api.put(f"/api/v1/namespaces/{make.NAMESPACE}/pods", make.pod(make.NEW, 2, ready=False))
    changed = [process.stdout.readline() for _ in range(2)]
    process.terminate()
    process.communicate(timeout=10)

    assert re.match(r"\d\d:\d\d:\d\d ✔ flight-delay ", first[0])
    assert "1/2 pods ready" in changed[0]
    assert "flight-delay-bbbbbbbbbb-2  CrashLoopBackOff  0/1 ready  4 restarts" in changed[1]


def test_rollback_asks_with_an_id_and_follows_the_log(slipway, api, make):
    acts(api, make, make.entry(3, make.OLD, cause="Rollback", undoes=2, restores=1))

    ended = slipway("rollback", "flight-delay", "--why", "delays of\nzero")

    (path, query, content, body) = api.writes[0]
    assert ended.code == 0, ended.err
    assert path == f"{make.COLLECTION}/flight-delay"
    assert query["fieldManager"] == "slipway-cli"
    assert content == "application/merge-patch+json"
    assert re.fullmatch(
        r"previous@[0-9a-f]{12} delays of zero", body["metadata"]["annotations"]["slipway.dev/rollback"]
    )
    assert "revision 3 is live: content aaaaaaaaaa, that of revision 1" in ended.out


def test_a_request_that_is_refused_ends_with_4(slipway, api, make):
    acts(api, make, verb="Rollback", state="Refused", message="the images of revision 1 are gone")

    ended = slipway("rollback", "flight-delay", "1")

    assert ended.code == 4
    assert "slipway: rollback refused: the images of revision 1 are gone" in ended.err


def test_a_request_that_nobody_answers_ends_with_5(slipway):
    ended = slipway("rollback", "flight-delay", "--timeout", "1s")

    assert ended.code == 5
    assert "the operator has not seen it yet" in ended.err


def test_a_request_can_be_only_made(slipway, api):
    ended = slipway("promote", "flight-delay", "--content", "cccccccccc", "--id", "ticket-42", "--no-wait")

    assert ended.code == 0
    assert asked(api) == {"slipway.dev/promote": "cccccccccc@ticket-42"}


def needs_a_stamp(annotations):
    """What the policy of the chart says on a cluster that cannot stamp."""
    for verb in ("rollback", "resume", "promote", "abort"):
        stamp = f"slipway.dev/{verb}-stamp"
        if f"slipway.dev/{verb}" in annotations and stamp not in annotations:
            return (
                f'this cluster cannot stamp who asked: set the annotation {stamp} to "<anything new> ada@example.com"'
            )
    return ""


@pytest.mark.parametrize("verb", ["rollback", "promote", "abort", "resume"])
def test_a_cluster_that_cannot_stamp_is_told_who_asks(verb, slipway, api, make):
    held = [{"content": make.BAD, "revision": 5, "why": "rolled back"}]
    api.put(make.COLLECTION, make.resource(held=held))
    api.policy = needs_a_stamp

    ended = slipway(verb, "flight-delay", "--id", "ticket-42", "--no-wait")

    assert ended.code == 0, ended.err
    assert asked(api)[f"slipway.dev/{verb}"].endswith("@ticket-42")
    assert asked(api)[f"slipway.dev/{verb}-stamp"] == "ticket-42 ada@example.com"
    assert api.reviews == ["SelfSubjectReview"]


def test_who_asks_is_only_said_where_it_is_demanded(slipway, api):
    assert slipway("rollback", "flight-delay", "--no-wait").code == 0
    assert list(asked(api)) == ["slipway.dev/rollback"]
    assert api.reviews == []


def test_another_policy_that_refuses_is_told_in_its_words(slipway, api):
    api.policy = lambda _annotations: "no changes on Fridays"

    ended = slipway("rollback", "flight-delay", "--no-wait")

    assert (ended.code, ended.err) == (1, "slipway: no changes on Fridays\n")
    assert api.reviews == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["rollback", "flight-delay", "7"], 1, "its log has 1, 2", id="no-such-revision"),
        pytest.param(["rollback", "flight-delay", "-1"], 2, "-1", id="an-option"),
        pytest.param(["rollback", "flight-delay", "first"], 2, "say previous, or a number", id="no-number"),
        pytest.param(["abort", "flight-delay", "--content", "xyz"], 2, "ten hexadecimal digits", id="no-content"),
        pytest.param(["abort", "flight-delay", "--id", "a b"], 2, "letters, digits", id="no-id"),
        pytest.param(["rollback", "flight-delay", "--timeout", "soon"], 2, "write 90s, 10m", id="no-duration"),
        pytest.param(["get", "flight-dealy"], 1, "there are flight-delay", id="no-such-deployment"),
        pytest.param(["get", "x", "-n", "empty"], 1, "there is none at all", id="nothing-there"),
        pytest.param(["get", "--context", "moon"], 1, "it has air, away, stranger", id="no-such-context"),
        pytest.param(["get", "--context", "away"], 1, "does not answer", id="cluster-away"),
        pytest.param(["get", "--context", "stranger"], 1, "does not know you", id="not-logged-in"),
        pytest.param(["get", "--kubeconfig", "/nowhere"], 1, "there is no kubeconfig /nowhere", id="no-kubeconfig"),
        pytest.param(["logs", "flight-delay", "verify"], 1, "no pod of the step verify", id="step-never-ran"),
        pytest.param(["diff", "flight-delay", "1", "9"], 1, "say live, previous or one of 1, 2", id="diff"),
        pytest.param(["diff", "flight-delay", "--only", "colour"], 2, "there are spec, code", id="no-section"),
        pytest.param(["git", "flight-delay"], 2, "get", id="no-such-command"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(words, code, said, slipway):
    """Lines that say what to change, never a trace."""
    ended = slipway(*words)

    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_status_waits_until_it_is_ready(slipway, api, make):
    moving = make.resource(make.condition("Ready", "False", "Building", "installing"), summary="Building: installing")
    api.put(make.COLLECTION, moving)
    process = slipway.start("status", "flight-delay", "--wait", "--timeout", "30s")
    told = process.stderr.readline()
    started = time.monotonic()
    api.put(make.COLLECTION, make.resource())
    process.communicate(timeout=20)

    assert told == "Building: installing\n"
    assert process.returncode == 0
    assert time.monotonic() - started < 8, "the watch did not ring"


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        pytest.param([], 0, id="ready"),
        pytest.param([("Ready", "False", "Building"), ("Reconciling", "True", "Building")], 3, id="under-way"),
        pytest.param([("Ready", "False", "BuildFailed"), ("Stalled", "True", "BuildFailed")], 4, id="failed"),
        pytest.param([("Ready", "False", "RolledBack"), ("Stalled", "True", "RolledBack")], 6, id="held"),
        pytest.param([("Ready", "False", "Aborted"), ("Stalled", "True", "Aborted")], 6, id="aborted"),
    ],
)
def test_status_tells_by_its_exit_code(conditions, code, slipway, api, make):
    api.put(make.COLLECTION, make.resource(*(make.condition(*c) for c in conditions)))

    assert slipway("status", "flight-delay").code == code


@pytest.mark.parametrize(
    ("annotations", "spec", "code"),
    [
        pytest.param({"slipway.dev/paused": "true"}, {}, 7, id="by-annotation"),
        pytest.param({}, {"rollout": {"paused": True}}, 7, id="by-spec"),
        # The operator has not said so yet, and `pause --off && status --wait` must not end with it.
        pytest.param({}, {}, 3, id="no-more"),
    ],
)
def test_status_is_paused_while_something_asks_for_it(annotations, spec, code, slipway, api, make):
    found = make.resource(make.condition("Ready", "False", "Paused"), make.condition("Reconciling", "True", "Paused"))
    found["metadata"]["annotations"] = annotations
    found["spec"] = found.get("spec", {}) | spec
    api.put(make.COLLECTION, found)

    assert slipway("status", "flight-delay").code == code


def test_status_of_a_spec_that_nobody_has_seen_is_under_way(slipway, api, make):
    """Or `deploy && status` would tell of the version before."""
    found = make.resource()
    found["metadata"]["generation"] = 3
    api.put(make.COLLECTION, found)

    assert slipway("status", "flight-delay").code == 3
    assert slipway("status", "flight-delay", "--wait", "--timeout", "1s").code == 5


def test_waiting_outlives_a_restart_of_the_api_server(slipway, api, make):
    api.put(make.COLLECTION, make.resource(make.condition("Ready", "False", "Building"), summary="Building"))
    process = slipway.start("status", "flight-delay", "--wait", "--timeout", "60s")
    assert process.stderr.readline() == "Building\n"
    api.down = True
    api.touch()
    assert process.stderr.readline() == "the server is restarting\n"
    api.put(make.COLLECTION, make.resource())
    api.down = False
    api.touch()

    process.communicate(timeout=40)
    assert process.returncode == 0


def test_pause_and_resume(slipway, api, make):
    assert slipway("pause", "flight-delay").code == 0
    assert asked(api) == {"slipway.dev/paused": "true"}

    for words in (["resume", "flight-delay"], ["pause", "flight-delay", "--off"]):
        assert slipway("pause", "flight-delay").code == 0
        assert slipway(*words).out == "flight-delay is no longer paused\n"
        assert api.objects[f"{make.COLLECTION}/flight-delay"]["metadata"]["annotations"] == {}
    assert "nothing is paused and nothing is held" in slipway("resume", "flight-delay").out


def test_resume_releases_what_is_held(slipway, api, make):
    held = [{"content": make.BAD, "revision": 5, "why": "rolled back"}]
    api.put(make.COLLECTION, make.resource(held=held))
    acts(api, make, verb="Resume", state="Done", message="released")

    ended = slipway("resume", "flight-delay")

    assert ended.code == 0, ended.err
    assert asked(api)["slipway.dev/resume"].startswith("now@")


def test_history_shows_what_became_of_each(slipway, api, make):
    data = make.entry(3, make.OLD, cause="Rollback", undoes=2, restores=1, why="delays of zero")
    api.put(f"/apis/apps/v1/namespaces/{make.NAMESPACE}/controllerrevisions", make.revision(data))

    ended = slipway("history", "flight-delay")

    rows = [re.split(r"\s{2,}", line) for line in ended.out.splitlines()]
    assert rows[0] == ["REVISION", "CONTENT", "STATE", "CAUSE", "WHO", "AGE", "COMMIT", "WHY"]
    assert [row[:4] for row in rows[1:]] == [
        ["3", "aaaaaaaaaa", "live", "Rollback 2→1"],
        ["2", "bbbbbbbbbb", "undone by 3", "SpecChange"],
        ["1", "aaaaaaaaaa", "-", "SpecChange"],
    ]
    assert rows[1][-1] == "delays of zero"


def test_diff_without_a_registry_says_what_the_log_knows(slipway, tmp_path):
    ended = slipway("diff", "flight-delay", "1", "2", PATH=str(tmp_path))

    assert ended.code == 0
    assert "~ source.git.ref  v1 → v2" in ended.out
    assert "~ roc_auc  0.71 → 0.72" in ended.out
    assert "packages: not compared" in ended.out
    assert "CraneMissing" in ended.err


def test_logs_of_the_pods_that_answer(slipway, api, make):
    pods = f"/api/v1/namespaces/{make.NAMESPACE}/pods"
    api.logs[f"{pods}/flight-delay-bbbbbbbbbb-1/log"] = "ready\n"
    api.logs[f"{pods}/flight-delay-bbbbbbbbbb-2/log"] = "steady\n"

    assert slipway("logs", "flight-delay").out == "[1] ready\n[2] steady\n"


def test_logs_of_a_canary(slipway, api, make):
    """Its pods carry `slipway.dev/canary` in place of `slipway.dev/content`, and take the live content's lane."""
    core = f"/api/v1/namespaces/{make.NAMESPACE}"
    canary = make.pod(make.BAD, 1, lane=make.NEW)
    canary["metadata"]["labels"]["slipway.dev/canary"] = canary["metadata"]["labels"].pop("slipway.dev/content")
    api.put(f"{core}/pods", canary)
    api.logs[f"{core}/pods/{canary['metadata']['name']}/log"] = "first of many\n"

    ended = slipway("logs", "flight-delay", "--content", make.BAD)

    assert (ended.code, ended.out) == (0, "first of many\n"), ended.err


def test_logs_of_a_step_come_container_by_container(slipway, api, make):
    core, batch = f"/api/v1/namespaces/{make.NAMESPACE}", f"/apis/batch/v1/namespaces/{make.NAMESPACE}"
    labels = {"slipway.dev/owner": make.NAME, "slipway.dev/step": "build"}
    for number in (1, 2):
        created = f"2026-11-24T1{number}:00:00Z"
        name = f"flight-delay-build-{number}"
        api.put(f"{batch}/jobs", {"metadata": {"name": name, "labels": labels, "creationTimestamp": created}})
        own = {**labels, "batch.kubernetes.io/job-name": name}
        meta = {"name": f"{name}-pod", "labels": own, "creationTimestamp": created}
        spec = {"initContainers": [{"name": "fetch"}], "containers": [{"name": "push"}]}
        api.put(f"{core}/pods", {"metadata": meta, "spec": spec, "status": {}})
    api.logs[f"{core}/pods/flight-delay-build-2-pod/log"] = "done"

    assert slipway("logs", "flight-delay", "build").out == "==> fetch\ndone\n\n==> push\ndone\n"
    assert slipway("logs", "flight-delay", "build", "-c", "push").out == "done\n"


def test_what_may_not_be_listed_is_said_and_the_rest_shown(slipway, api):
    api.forbidden = {"pods"}

    ended = slipway("get", "flight-delay")

    assert ended.code == 0
    assert "you may not list pods here" in ended.out


def test_a_cluster_without_slipway_says_so(slipway, api, make):
    del api.objects[f"{make.COLLECTION}/flight-delay"]
    ended = slipway("doctor")

    assert ended.code == 4
    assert "the kind modeldeployments.slipway.dev is not installed" in ended.out
    assert "no operator is installed" in ended.out


def in_terminal(slipway, *words: str, **variables: str) -> str:
    """What a person's terminal would get."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "KUBECONFIG": str(slipway.kubeconfig), "TERM": "xterm-256color", **variables}
    process = subprocess.Popen([sys.executable, "-m", "slipway_cli", *words], env=environment, stdout=theirs)
    os.close(theirs)
    said = b""
    # Linux says with an error that the other end is closed.
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 1 << 16):
            said += chunk
    os.close(ours)
    assert process.wait(timeout=20) == 0
    return said.decode()


def test_a_person_gets_a_tree_in_colours_unless_he_wants_none(slipway):
    coloured = in_terminal(slipway, "get", "flight-delay")
    assert "├──" in coloured
    assert "\x1b[32m✔" in coloured

    plain = in_terminal(slipway, "get", "flight-delay", NO_COLOR="1")
    assert "├──" in plain
    assert "\x1b[3" not in plain


def test_a_terminal_without_unicode_gets_plain_signs(slipway):
    assert "+ flight-delay" in slipway.process("get", "flight-delay", PYTHONUTF8="0", PYTHONIOENCODING="ascii").out


def test_a_reader_that_leaves_is_no_error(slipway):
    """`kubectl slipway history x | head -1`."""
    process = slipway.start("get", "flight-delay")
    process.stdout.close()

    assert process.wait(timeout=30) == 0
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_reader_that_leaves_ends_the_following_of_many_pods(slipway, api, make):
    """`kubectl slipway logs x -f | head`, while one pod is quiet."""
    pods = f"/api/v1/namespaces/{make.NAMESPACE}/pods"
    api.logs = {f"{pods}/flight-delay-bbbbbbbbbb-1/log": "ready\n", f"{pods}/flight-delay-bbbbbbbbbb-2/log": ""}
    api.quiet = True
    process = slipway.start("logs", "flight-delay", "-f")
    process.stdout.close()

    assert process.wait(timeout=15) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_many_pods_are_followed_to_their_ends(slipway, api, make):
    pods = f"/api/v1/namespaces/{make.NAMESPACE}/pods"
    api.logs = {f"{pods}/flight-delay-bbbbbbbbbb-{n}/log": "a\nb\n" for n in (1, 2)}

    ended = slipway("logs", "flight-delay", "-f")

    assert sorted(ended.out.splitlines()) == ["[1] a", "[1] b", "[2] a", "[2] b"]


@pytest.mark.parametrize("words", [["diff", "flight-delay", "1", "2"], ["history", "flight-delay"]])
def test_an_output_without_unicode_is_no_error(words, slipway, api, tmp_path):
    """`LC_ALL=de_DE.ISO-8859-1 kubectl slipway diff x`."""
    (log,) = (value for value in api.objects.values() if (value.get("data") or {}).get("number") == 2)
    log["data"]["why"] = "→ the feed is repaired …"

    ended = slipway.process(*words, PYTHONUTF8="0", PYTHONIOENCODING="latin-1", PATH=str(tmp_path))

    assert ended.code == 0, ended.err
    assert "?" in ended.out


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_program_gets_every_sign_of_the_data(kind, slipway, api):
    (log,) = (value for value in api.objects.values() if (value.get("data") or {}).get("number") == 2)
    log["data"]["why"] = "→ 漢字"

    ended = slipway.process("history", "flight-delay", "-o", kind, PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert "→ 漢字" in json.dumps(yaml.safe_load(ended.out), ensure_ascii=False), ended.err


@pytest.mark.parametrize("current", [None, ""])
def test_a_context_is_taken_where_the_kubeconfig_has_no_current_one(current, slipway):
    """After `kubectl config unset current-context`."""
    kubeconfig = json.loads(slipway.kubeconfig.read_text())
    del kubeconfig["current-context"]
    if current is not None:
        kubeconfig["current-context"] = current
    slipway.kubeconfig.write_text(json.dumps(kubeconfig))

    ended = slipway("get", "--context", "air")
    assert (ended.code, "flight-delay" in ended.out) == (0, True), ended.err
    refused = slipway("get")
    assert (refused.code, refused.err) == (
        1,
        "slipway: the kubeconfig has no current context, so name one with --context: it has air, away, stranger\n",
    )


def test_following_a_step_waits_for_its_containers(slipway, api, make):
    core, batch = f"/api/v1/namespaces/{make.NAMESPACE}", f"/apis/batch/v1/namespaces/{make.NAMESPACE}"
    labels = {"slipway.dev/owner": make.NAME, "slipway.dev/step": "train"}
    api.put(f"{batch}/jobs", {"metadata": {"name": "train-1", "labels": labels}})
    meta = {"name": "train-1-pod", "labels": {**labels, "batch.kubernetes.io/job-name": "train-1"}}
    api.put(f"{core}/pods", {"metadata": meta, "spec": {"containers": [{"name": "run"}]}, "status": {}})
    process = slipway.start("logs", "flight-delay", "train", "-f")
    assert process.stdout.readline() == "==> run\n"
    api.logs[f"{core}/pods/train-1-pod/log"] = "epoch 1\n"

    assert process.communicate(timeout=30)[0] == "epoch 1\n"


def test_doctor_is_content_with_a_healthy_installation(slipway, api, tmp_path):
    """And names what is worth knowing without calling it a fault."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for name in ("modeldeployments.slipway.dev", "retrainjobs.slipway.dev"):
        established = {"conditions": [{"type": "Established", "status": "True"}]}
        spec = {"versions": [{"name": "v1alpha1", "served": True}]}
        api.put(crds, {"metadata": {"name": name}, "spec": spec, "status": established})
    labels = {"app.kubernetes.io/name": "slipway", "app.kubernetes.io/component": "operator"}
    meta = {"name": "slipway", "namespace": "slipway-system", "labels": labels}
    template: dict[str, object] = {"spec": {}}
    operator = {"metadata": meta, "spec": {"replicas": 1, "template": template}, "status": {"readyReplicas": 1}}
    api.put("/apis/apps/v1/namespaces/slipway-system/deployments", operator)
    api.objects = {path: found for path, found in api.objects.items() if "controllerrevisions" not in path}

    ended = slipway("doctor", PATH=str(tmp_path))

    assert ended.code == 0, ended.out
    assert "✔ the operator slipway-system/slipway is ready" in ended.out
    assert "✔ flight-delay answers: revision 2, content bbbbbbbbbb" in ended.out
    assert "◌ the program crane is not on the PATH" in ended.out
    api.forbidden = {"patch modeldeployments"}
    assert "you may not change deployments" in slipway("doctor").out
