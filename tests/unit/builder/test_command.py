"""The command of the builder image: verbs, termination messages, signals."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway_operator.builder import answers, command
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.programs import Program, Said
from slipway_operator.builder.uv_errors import failure, only_source
from slipway_operator.builder.workplace import Limits
from slipway_operator.domain.requests import Failed, Trained

COMMAND = [sys.executable, "-m", "slipway_operator.builder"]


def run(tmp_path, *words, request=None):
    environment = {**os.environ, "SLIPWAY_TERMINATION_LOG": str(tmp_path / "message"), "SLIPWAY_WORK": str(tmp_path)}
    if request is not None:
        environment["SLIPWAY_REQUEST"] = request
    done = subprocess.run([*COMMAND, *words], env=environment, capture_output=True, text=True, check=False)
    message = tmp_path / "message"
    return done, json.loads(message.read_text()) if message.exists() else None


def test_probe_ends_at_once_and_says_nothing(tmp_path):
    done, message = run(tmp_path, "probe")

    assert (done.returncode, message) == (0, None)


def test_nothing_to_build_ends_without_reading_a_request(tmp_path):
    done, message = run(tmp_path, "run", request="{")

    assert (done.returncode, message) == (0, None)
    assert "nothing to build" in done.stdout


@pytest.mark.parametrize("words", [["explode"], ["fetch", "more"], ["pull-model", "x"]])
def test_an_unknown_verb_is_explained(tmp_path, words):
    done, message = run(tmp_path, *words)

    assert done.returncode == 1
    assert message["reason"] == "InvalidRequest"


@pytest.mark.parametrize("request_text", ["", "{", "{}", '{"source": {"kind": "ftp"}}'])
def test_a_request_that_cannot_be_read_is_explained(tmp_path, request_text):
    done, message = run(tmp_path, "resolve", request=request_text)

    assert done.returncode == 1
    assert (message["reason"], message["retry"]) == ("InvalidRequest", False)


def test_a_failure_is_said_in_the_log_and_in_the_message(tmp_path):
    request = '{"source": {"kind": "git", "url": "file:///etc", "ref": "main"}}'

    done, message = run(tmp_path, "resolve", request=request)

    assert done.returncode == 1
    assert message["ok"] is False
    assert message["reason"] == "InvalidSource"
    assert "InvalidSource" in done.stdout


def test_term_ends_it_within_seconds(tmp_path):
    """A server that accepts and says nothing holds git for a minute; SIGTERM does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        request = json.dumps({"source": {"kind": "git", "url": f"git://127.0.0.1:{port}/x", "ref": "main"}})
        environment = {**os.environ, "SLIPWAY_TERMINATION_LOG": str(tmp_path / "message"), "SLIPWAY_REQUEST": request}
        process = subprocess.Popen([*COMMAND, "resolve"], env=environment, stdout=subprocess.DEVNULL)
        connection, _ = silent.accept()
        with connection:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
    message = json.loads((tmp_path / "message").read_text())
    assert time.monotonic() - began < 25
    assert code == 1
    assert (message["reason"], message["retry"]) == ("Terminated", True)


@settings(deadline=None)
@given(message=st.text(max_size=3000))
def test_an_answer_always_fits(message):
    text = answers.text_of(Failed(reason="X", message=message))

    assert len(text) < 1024
    assert Failed.model_validate_json(text).reason == "X"


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "WorkVolumeFull"),
        (OSError(errno.EIO, "Input/output error"), 2, "InternalError"),
        (KeyError("x"), 2, "InternalError"),
        (command.Terminated(), 1, "Terminated"),
    ],
)
def test_whatever_is_raised_becomes_a_message(tmp_path, monkeypatch, error, code, reason):
    def fail(*_):
        raise error

    monkeypatch.setattr(command, "call", fail)
    target = tmp_path / "message"

    assert command.run(["probe"], {"SLIPWAY_TERMINATION_LOG": str(target)}) == code
    assert json.loads(target.read_text())["reason"] == reason


def test_a_long_message_keeps_its_end_which_says_what_to_change():
    text = answers.text_of(Failed(reason="X", message="begin " + "x" * 3000 + " do this"))

    assert json.loads(text)["message"].startswith("begin")
    assert json.loads(text)["message"].endswith("do this")


def test_metrics_are_left_out_before_an_answer_is_too_long():
    answer = Trained(
        artifact="sha256:" + "a" * 64,
        model="sha256:" + "b" * 64,
        seconds=1,
        metrics={f"{number}" + "é" * 60: 1.0 / 3 for number in range(10)},
    )

    found = Trained.model_validate_json(answers.text_of(answer))

    assert 0 < len(found.metrics) < 10


def test_a_program_is_ended_with_its_children_when_its_time_is_over():
    began = time.monotonic()

    said = Program(
        command=[sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"],
        variables=dict(os.environ),
        seconds=0.5,
    ).run()

    assert said.timed_out
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_limit_is_a_positive_number(text):
    with pytest.raises(StepFailed, match="SLIPWAY_PROJECT_BYTES"):
        Limits.from_environment({"SLIPWAY_PROJECT_BYTES": text})


NO_SOLUTION = "error: No solution found when resolving dependencies\n  cause: "


@pytest.mark.parametrize(
    ("words", "reason", "shown", "retry"),
    [
        (
            "error: Failed to download `six==1.16.0`\n  cause: Hash mismatch for `six==1.16.0`\n\n Expected:",
            "HashMismatch",
            "six 1.16.0",
            False,
        ),
        (
            NO_SOLUTION + "Because there is no version of six==1.16.99 and you require six==1.16.99, we",
            "PackageNotAvailable",
            "six 1.16.99",
            False,
        ),
        (
            NO_SOLUTION + "Because pywin32==306 has no wheels with a matching platform tag (e.g., `m`) and you",
            "PackageNotAvailable",
            "pywin32 306",
            False,
        ),
        (
            NO_SOLUTION + "Because gone was not found in the package registry and you",
            "PackageNotAvailable",
            "gone",
            False,
        ),
        (
            NO_SOLUTION + "Because the current Python version (3.11.2) does not satisfy Python>=3.12 and x==1 depends",
            "PythonVersionMismatch",
            "3.11.2",
            False,
        ),
        (
            "error: Request failed\n  cause: Failed to fetch: http://u:hunter2@h:1/s/x/\n  cause: Connection refused",
            "IndexUnavailable",
            "http://h:1/s/x/",
            True,
        ),
        (
            "error: Request failed\n  cause: Failed to fetch: http://no.invalid/simple/six/\n  cause: dns error\n",
            "IndexHostUnknown",
            "http://no.invalid/simple/six/",
            False,
        ),
        (
            "error: Failed to fetch: `https://h/simple/x/`\n  cause: HTTP status client error (401 Unauthorized)",
            "IndexAccessDenied",
            "https://h/simple/x/",
            False,
        ),
        (
            "error: Failed to fetch: `https://h/simple/x/`\n  cause: HTTP status server error (503 Unavailable)",
            "IndexUnavailable",
            "https://h/simple/x/",
            True,
        ),
        (
            "error: Failed to fetch: `https://h/simple/x/`\n  cause: invalid peer certificate: UnknownIssuer",
            "IndexNotTrusted",
            "https://h/simple/x/",
            False,
        ),
        ("error: No space left on device (os error 28)", "WorkVolumeFull", "workVolumeLimit", False),
        ("error: something new", "InstallFailed", "something new", False),
    ],
)
def test_what_uv_says_has_a_reason(words, reason, shown, retry):
    failed = failure(Said(code=1, out=b"", errors=words))

    assert (failed.reason, failed.retry) == (reason, retry), failed.message
    assert shown in failed.message
    assert "hunter2" not in failed.message


def test_a_package_without_a_wheel_is_named():
    words = (
        NO_SOLUTION + "Because docopt==0.6.2 has no usable wheels and you require docopt==0.6.2, we can conclude\n\n"
        "hint: Wheels are required for `docopt` because building from source is disabled for all packages"
    )

    assert only_source(words) == "docopt"
    assert only_source("error: Hash mismatch for `six==1.16.0`") is None
