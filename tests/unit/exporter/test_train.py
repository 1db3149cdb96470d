# ruff: noqa: E501 - a table reads line by line
"""The supervisor of training, run as its container runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

PYTHON = "python"
WRITES_MODEL = "import pathlib; pathlib.Path('model.joblib').write_bytes(b'fitted')"


def script(station, text: str) -> tuple[str, str]:
    (station.project / "train.py").write_text(text, encoding="utf-8")
    return PYTHON, "train.py"


def test_a_training_leaves_model_metrics_log_and_facts(station):
    text = (
        f"{WRITES_MODEL}; import json; json.dump({{'roc_auc': 0.71, 'rows': 3}}, open('m.json', 'w')); print('done ✓')"
    )
    station.train(*script(station, text), metricsPath="m.json")

    assert station.status == 0, station.output
    assert (station.work / "trained" / "model.joblib").read_bytes() == b"fitted"
    assert json.loads((station.work / "trained" / "metrics.json").read_text("utf-8")) == {"roc_auc": 0.71, "rows": 3.0}
    facts = json.loads((station.work / "train.json").read_text("utf-8"))
    assert (facts["exitCode"], facts["model"], facts["seconds"] > 0) == (0, "model.joblib", True)
    assert (station.work / "train.log").read_text("utf-8") == "done ✓\n"
    assert "done ✓" in station.output


def test_the_project_is_importable_and_is_the_working_directory(station):
    package = station.project / "src" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text(f"{WRITES_MODEL}; import os; print(os.getcwd())", encoding="utf-8")
    station.train(PYTHON, "-m", "mine.train")

    assert station.status == 0, station.output
    assert str(station.project) in station.output


@pytest.mark.parametrize(("text", "request_", "reason", "says"), [
    pytest.param("print('before'); raise SystemExit(3)", {}, "TrainingFailed", "exited with 3. Last lines: before", id="exit-status"),
    pytest.param("raise ValueError('no column late')", {}, "TrainingFailed", "ValueError: no column late", id="exception"),
    pytest.param("raise MemoryError", {}, "TrainingOutOfMemory", "MemoryError", id="memory-error"),
    pytest.param("import os; os.kill(os.getpid(), 9)", {}, "TrainingOutOfMemory", "SIGKILL", id="killed"),
    pytest.param("import os; os.kill(os.getpid(), 11)", {}, "TrainingFailed", "SIGSEGV", id="crash"),
    pytest.param("import time; print('slow', flush=True); time.sleep(60)", {"timeoutSeconds": 1}, "TrainingTimedOut", "within 1 s", id="hang"),
    pytest.param("pass", {}, "ModelFileMissing", "Save the model to that path", id="no-model"),
    pytest.param("open('forest.pkl', 'w').close()", {}, "ModelFileMissing", "forest.pkl: set spec.model.path", id="model-elsewhere"),
    pytest.param("import os; os.symlink('/etc/hostname', 'model.joblib')", {}, "ModelFileUnsafe", "out of the project", id="link-out"),
    pytest.param("import os; os.mkfifo('model.joblib')", {}, "ModelFileUnsafe", "not a regular file", id="pipe"),
    pytest.param("import os; os.mkdir('model.joblib')", {}, "ModelFileUnsafe", "regular file", id="directory"),
    pytest.param(WRITES_MODEL, {"metricsPath": "m.json"}, "MetricsMissing", "wrote no m.json", id="no-metrics"),
    pytest.param(f"{WRITES_MODEL}; open('m.json', 'w').write('{{\"a\": NaN}}')", {"metricsPath": "m.json"}, "MetricsInvalid", "NaN", id="metrics-nan"),
    pytest.param(f"{WRITES_MODEL}; open('m.json', 'w').write('[1]')", {"metricsPath": "m.json"}, "MetricsInvalid", "object", id="metrics-list"),
    pytest.param(f"{WRITES_MODEL}; open('m.json', 'w').write('{{\"a\": true}}')", {"metricsPath": "m.json"}, "MetricsInvalid", "'a'", id="metrics-bool"),
    pytest.param(f"{WRITES_MODEL}; open('m.json', 'w').write('{{\"a\": 1e999}}')", {"metricsPath": "m.json"}, "MetricsInvalid", "'a'", id="metrics-infinite"),
    pytest.param(f"{WRITES_MODEL}; open('m.json', 'wb').write(b'\\xff')", {"metricsPath": "m.json"}, "MetricsInvalid", "JSON", id="metrics-not-text"),
])  # fmt: skip
def test_what_goes_wrong_has_a_reason_and_a_sentence(station, text, request_, reason, says):
    station.train(*script(station, text), **request_)

    assert station.status == 1
    assert (station.message["ok"], station.message["reason"], station.message["retry"]) == (False, reason, False)
    assert says in station.message["message"]
    assert (station.root / "termination").stat().st_size <= 1024
    assert not (station.work / "train.json").exists()


@pytest.mark.parametrize("command", [("no-such-program",), ("./train.sh",)], ids=["absent", "script-without-shell"])
def test_a_command_that_the_image_has_not_says_what_to_use(station, command):
    (station.project / "train.sh").write_text("#!/no/such/shell\n")
    (station.project / "train.sh").chmod(0o755)
    station.train(*command)

    assert station.message["reason"] == "CommandNotFound"
    assert "[python, -m, your.module]" in station.message["message"]


def test_no_shell_reads_the_command(station):
    (station.project / "train.py").write_text(f"{WRITES_MODEL}; import sys; print(sys.argv[1:])", encoding="utf-8")
    station.train(PYTHON, "train.py", "$(id)", "; true", "*")

    assert "['$(id)', '; true', '*']" in station.output


def test_a_committed_model_that_training_leaves_alone_does_not_pass_for_a_new_one(station):
    (station.project / "model.joblib").write_bytes(b"old")
    station.train(*script(station, "pass"))

    assert station.message["reason"] == "ModelFileMissing"
    assert "was not written by this training" in station.message["message"]


def test_output_without_end_is_bounded_in_log_and_message(station):
    text = "import sys\nfor n in range(120000): print('x' * 60, n)\nprint('the end'); sys.exit(1)"
    station.train(*script(station, text))

    log = (station.work / "train.log").read_bytes()
    assert len(log) < 5 << 20
    assert b" 0\n" in log
    assert log.endswith(b"the end\n")
    assert b"bytes left out" in log
    assert station.message["message"].endswith("the end")


def test_bytes_that_are_no_text_reach_log_and_message_harmlessly(station):
    station.train(*script(station, "import os; os.write(1, b'\\xff\\xfe\\x00\\x1b[31mred'); raise SystemExit(1)"))

    assert b"\xff\xfe\x00" in (station.work / "train.log").read_bytes()
    assert "\x1b" not in station.message["message"]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def eventually(is_true, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_true():
            return True
        time.sleep(0.02)
    return False


LEAVES_A_CHILD = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
pathlib.Path("child").write_text(str(child.pid))
pathlib.Path("ready").touch()
"""


def test_a_time_limit_ends_what_the_command_started_too(station):
    station.train(*script(station, LEAVES_A_CHILD + "time.sleep(60)"), timeoutSeconds=2)

    assert station.message["reason"] == "TrainingTimedOut"
    child = int((station.project / "child").read_text())
    assert eventually(lambda: gone(child))


def test_a_child_that_keeps_the_output_open_does_not_hold_up_the_end(station):
    began = time.monotonic()
    station.train(*script(station, LEAVES_A_CHILD + WRITES_MODEL))

    assert station.status == 0, station.output
    assert time.monotonic() - began < 20
    assert eventually(lambda: gone(int((station.project / "child").read_text())))


@pytest.mark.parametrize("apart", [False, True], ids=["in-its-group", "in-a-session-of-its-own"])
def test_a_child_that_writes_without_end_does_not_hold_up_the_end(station, apart):
    began = time.monotonic()
    noisy = f"import subprocess, time; subprocess.Popen(['yes'], start_new_session={apart}); time.sleep(0.3); "
    station.train(*script(station, noisy + WRITES_MODEL))

    assert station.status == 0, station.output[-500:]
    assert time.monotonic() - began < 20


def test_sigterm_ends_the_command_and_asks_for_another_try(station):
    script(station, "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(60)")
    request = {"command": [PYTHON, "train.py"], "timeoutSeconds": 60, "modelPath": "model.joblib"}
    with subprocess.Popen(station.command("train"), env=station.environment(request), stdout=subprocess.DEVNULL) as pod:
        assert eventually((station.project / "ready").exists)
        os.kill(pod.pid, signal.SIGTERM)
        pod.wait(timeout=10)

    assert (station.message["reason"], station.message["retry"]) == ("Interrupted", True)


@pytest.mark.parametrize("path", ["../outside.joblib", "/etc/passwd", "link/model.joblib"])
def test_a_model_path_out_of_the_project_is_refused_before_anything_runs(station, path):
    (station.project / "link").symlink_to(station.root)
    station.train(*script(station, "open('ran', 'w')"), modelPath=path)

    assert station.message["reason"] == "ModelFileUnsafe"
    assert not (station.project / "ran").exists()


def test_a_request_that_is_none_is_refused(station):
    ended = subprocess.run(
        station.command("train"),
        env=station.environment({}) | {"SLIPWAY_REQUEST": "[]"},
        check=False,
        capture_output=True,
    )

    assert (ended.returncode, station.message["reason"]) == (1, "RequestInvalid")
