"""Secrets that are planted wherever people leave them, and a search for them in what comes out."""

from __future__ import annotations

import json
import re
import time
import zipfile
from typing import Any

import pytest

from slipway_cli.views.redact import GONE, Redactor

SECRETS = {
    "env": "plain-looking-value-1",
    "password": "hunter2hunter2",
    "url": "s3cr3t-in-a-url",
    "token-url": "glpat-abcdefghij0123456789",
    "argument": "argument-value-77",
    "argument-equals": "argument-value-78",
    "request": "argument-in-the-request",
    "applied": "value-in-last-applied",
    "configmap": "configmap-value-9",
    "connection": "Pwd=abc123xyz789",
    "bearer": "abcdefghijklmnop.qrstuv",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "pem": "MIIEowIBAAKCAQEA7bq",
    "signed": "9f86d081884c7d65",
    "log-flag": "flag-in-a-log-5",
    "log-json": "json-in-a-log-6",
    "secret-data": "c2VjcmV0LWRhdGE=",
}


def pod(name: str = "job-1") -> dict[str, Any]:
    """A pod whose spec, annotations and status hold all sorts of secrets."""
    request = {"source": {"url": f"https://bot:{SECRETS['url']}@git.test/x.git"}}
    request["command"] = ["python", "train.py", "--api-key", SECRETS["request"]]  # type: ignore[assignment]
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": json.dumps({"env": SECRETS["applied"]}),
                "note": f"clone with https://{SECRETS['token-url']}@git.test/y.git",
            },
            "managedFields": [{"manager": "helm"}],
        },
        "spec": {
            "containers": [
                {
                    "name": "run",
                    "image": "reg.test/x@sha256:00",
                    "env": [
                        {"name": "REGION", "value": SECRETS["env"]},
                        {"name": "DB_PASSWORD", "value": SECRETS["password"]},
                        {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                        {"name": "SLIPWAY_REQUEST", "value": json.dumps(request)},
                    ],
                    "args": [
                        "--token",
                        SECRETS["argument"],
                        f"--db-password={SECRETS['argument-equals']}",
                        "--trees",
                        "9",
                    ],
                }
            ]
        },
        "status": {"message": f"Authorization: Bearer {SECRETS['bearer']}"},
    }


CONFIG = {
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {
        "password": SECRETS["configmap"],
        "key.pem": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRETS['pem']}\n-----END RSA PRIVATE KEY-----",
        "dsn": f"Server=db;{SECRETS['connection']}",
    },
}
SECRET = {"kind": "Secret", "metadata": {"name": "db"}, "data": {"password": SECRETS["secret-data"]}}
LOG = f"""\
fetching 42 packages
connecting with {SECRETS["env"]} and password hunter2hunter2
token {SECRETS["jwt"]} key {SECRETS["aws"]} {SECRETS["github"]}
GET https://blob.test/model?sv=1&sig={SECRETS["signed"]}&x=2
started with --auth-token {SECRETS["log-flag"]} --trees 9
{{"apiKey": "{SECRETS["log-json"]}", "rows": 200}}
"""


def test_nothing_that_was_planted_comes_out():
    redactor = Redactor()

    out = json.dumps([redactor.object(value) for value in (pod(), CONFIG, SECRET)]) + redactor.text(LOG)

    assert [name for name, secret in SECRETS.items() if secret in out] == []
    assert redactor.count >= len(SECRETS)


def test_what_helps_stays():
    """A bundle that says nothing would be safe too."""
    redactor = Redactor()
    out = redactor.object(pod())
    container = out["spec"]["containers"][0]

    assert container["image"] == "reg.test/x@sha256:00"
    assert container["args"] == ["--token", GONE, f"--db-password={GONE}", "--trees", "9"]
    assert container["env"][2]["valueFrom"]["secretKeyRef"] == {"name": "db", "key": "password"}
    request = json.loads(container["env"][3]["value"])
    assert request["source"]["url"] == f"https://{GONE}@git.test/x.git"
    assert request["command"] == ["python", "train.py", "--api-key", GONE]
    assert "managedFields" not in out["metadata"]
    log = redactor.text(LOG)
    assert "fetching 42 packages" in log
    assert "--trees 9" in log
    assert '"rows": 200' in log


SECRET_WORD = "hunter2horse"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps({"msg": "config " + json.dumps({"password": SECRET_WORD})}), id="json-in-json"),
        pytest.param(
            json.dumps({"msg": json.dumps({"in": json.dumps({"password": f'a"b {SECRET_WORD}'})})}), id="json-thrice"
        ),
        pytest.param(json.dumps({"msg": json.dumps({"tokens": ["x", SECRET_WORD]})}), id="list-in-json-in-json"),
        pytest.param(json.dumps({"password": f'a"b{SECRET_WORD}'}), id="escaped-quote"),
        pytest.param(json.dumps({"password": "a\\", "token": SECRET_WORD}), id="backslash-at-the-end"),
        pytest.param(f'{{"password": "{SECRET_WORD}', id="cut-off"),
        pytest.param(f'{{"msg": "{{\\"password\\": \\"two words {SECRET_WORD}', id="cut-off-in-json"),
        pytest.param(f"DB_PASS={SECRET_WORD}", id="pass"),
        pytest.param(f"dbPass: {SECRET_WORD}", id="camel-pass"),
        pytest.param(f"pass={SECRET_WORD}", id="pass-alone"),
        pytest.param(f"MYSQL_PWD={SECRET_WORD}", id="pwd"),
        pytest.param(f'passwords=["x", "{SECRET_WORD}"]', id="list"),
        pytest.param(f"tokens: ['it''s', '{SECRET_WORD}']", id="list-of-yaml"),
        pytest.param(f"tokens=[x, {SECRET_WORD}]", id="list-without-quotes"),
        pytest.param(f'"tokens": [\n  "x]",\n  "{SECRET_WORD}"\n]', id="list-over-lines"),
        pytest.param(f'"tokens": ["x", "{SECRET_WORD}', id="list-cut-off"),
        pytest.param(f'["--password", "-{SECRET_WORD}"]', id="flag-with-dash"),
        pytest.param(f"['--password', 'two words {SECRET_WORD}']", id="flag-in-a-python-list"),
        pytest.param(json.dumps({"cmd": f'["--password", "x {SECRET_WORD}"]'}), id="flag-in-json"),
    ],
)
def test_a_secret_in_a_log_goes_with_all_of_its_tail(text):
    assert SECRET_WORD not in Redactor().text(text)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"tokens": [SECRET_WORD, 123456, True]}, id="list"),
        pytest.param({"data": {"passwords": [[SECRET_WORD]]}}, id="list-of-lists"),
        pytest.param({"args": ["--password", f"-{SECRET_WORD}"]}, id="argument-with-dash"),
        pytest.param({"args": ["--password-stdin", "--token", SECRET_WORD]}, id="switch-before-a-flag"),
    ],
)
def test_a_secret_in_an_object_goes(value):
    assert SECRET_WORD not in json.dumps(Redactor().object(value))


@pytest.mark.parametrize("value", ['a"quoted"secret', "a\\back\\slash", "two\nlines of it", "pässwörter-wie-diese"])
def test_a_value_of_the_environment_is_found_in_json_too(value):
    redactor = Redactor()
    redactor.object({"env": [{"name": "REGION", "value": value}]})

    once = json.dumps({"msg": f"started with {value}"})
    for log in (f"started with {value}", once, json.dumps({"log": once}), json.dumps({"m": value}, ensure_ascii=False)):
        assert "[redacted]" in redactor.text(log), log


def test_a_value_that_is_a_key_word_hides_no_secret():
    """`AUTH_MODE=password`: the word is taken out of logs, after what stands behind it."""
    redactor = Redactor()
    redactor.object({"env": [{"name": "AUTH_MODE", "value": "password"}]})

    assert redactor.text(f"password={SECRET_WORD}") == f"{GONE}={GONE}"


def test_what_stands_around_a_secret_stays():
    text = Redactor().text(json.dumps({"msg": json.dumps({"password": SECRET_WORD, "rows": 200}), "level": "info"}))

    assert json.loads(json.loads(text)["msg"]) == {"password": GONE, "rows": 200}
    spec = {"imagePullSecrets": [{"name": "registry"}], "volumes": [{"secret": {"secretName": "tls"}}]}
    assert Redactor().object(spec) == spec


@pytest.mark.parametrize("text", ["token=" * 40_000, '"token": [' * 20_000, "\\" * 200_000, "a" * 1_000_000])
def test_a_long_log_is_searched_in_time(text):
    began = time.monotonic()
    Redactor().text(text)

    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text",
    [
        "bypass: 3, passengers: 12, passed=7, compass=9",
        'roc_auc: 0.71, labels: {"slipway.dev/key": "1f0c"}',
        "automountServiceAccountToken: false",
        "secretName: registry-credentials",
        "sha256:64bcd09bb0b8494daf510e208725fa31c8f4203fa2e598ceea02645891e507e4",
        "https://git.test/airline/flight-delay.git",
        "[   0.01 s] installing 42 packages …",
        "reg.test/models/airline/flight-delay@sha256:00",
    ],
)
def test_plain_words_are_left_alone(text):
    assert Redactor().text(text) == text


def test_the_bundle_of_a_real_command_holds_none(slipway, api, make, tmp_path):
    """Planted in objects, events and logs; the bundle is searched byte by byte, names included."""
    core = f"/api/v1/namespaces/{make.NAMESPACE}"
    planted = pod("flight-delay-bbbbbbbbbb-1")
    planted["metadata"]["labels"] = {"slipway.dev/owner": make.NAME}
    api.put(f"{core}/pods", planted)
    config = {**CONFIG, "metadata": {"name": "settings", "labels": {"slipway.dev/owner": make.NAME}}}
    api.put(f"{core}/configmaps", config)
    api.put(f"{core}/secrets", {**SECRET, "metadata": {"name": "db", "labels": {"slipway.dev/owner": make.NAME}}})
    event = f"pull of https://bot:{SECRETS['url']}@git.test failed"
    api.put(f"{core}/events", {"metadata": {"name": "e1"}, "message": event})
    api.logs[f"{core}/pods/flight-delay-bbbbbbbbbb-1/log"] = LOG
    target = tmp_path / "bundle.zip"

    ended = slipway("report", "--to", str(target))

    assert ended.code == 0, ended.err
    with zipfile.ZipFile(target) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    everything = "".join([*texts, *texts.values()])
    assert [name for name, secret in SECRETS.items() if secret in everything] == []
    assert "person-token-4711" not in everything
    assert "fetching 42 packages" in texts["logs/flight-delay-bbbbbbbbbb-1/run.log"]
    assert {"README.txt", "doctor.json", "overview.json", "versions.json", "problems.txt"} <= set(texts)
    assert not any("secrets" in path for path, *_ in api.writes)
    assert re.search(r"\d+ values redacted", ended.out)


def test_a_report_is_never_written_over_another(slipway, tmp_path):
    (tmp_path / "bundle.zip").write_text("mine")

    ended = slipway("report", "--to", str(tmp_path / "bundle.zip"))

    assert ended.code == 1
    assert "File exists" in ended.err
    assert (tmp_path / "bundle.zip").read_text() == "mine"
