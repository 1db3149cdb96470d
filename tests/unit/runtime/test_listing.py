"""The list of models that a server of several is started with: what it may say, and how a wrong one is refused."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from dataclasses import replace

import httpx
import pytest
from tests.unit.runtime.test_process import ready

from lab.ports import free_port
from slipway_runtime.dataplane import PlaneLimits
from slipway_runtime.errors import CannotServe
from slipway_runtime.model import ModelOptions
from slipway_runtime.several.listing import read_listing

MATRIX = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}
COMMON = ModelOptions(None, None, None, None)  # type: ignore[arg-type]  # a listing says them


async def test_workers_share_them_all(listed):
    """As a pod runs it: by a listing, with two processes."""
    port = free_port()
    command = [sys.executable, "-m", "slipway_runtime", "--models", str(listed), "--port", str(port)]
    command += ["--workers", "2", "--drain-seconds", "0.2"]
    one = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        await ready(port)
        for _ in range(10):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                for name in ("linear", "doubled"):
                    answer = await client.post(f"/v2/models/{name}/infer", json={"inputs": [MATRIX]})
                    assert (answer.status_code, answer.json()["model_name"]) == (200, name)
        end = time.monotonic() + 10
        while True:  # each worker tells its numbers twice a second
            async with httpx.AsyncClient(trust_env=False) as client:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            if len(re.findall(r'endpoint="infer",code="200"\} 10$', text, re.MULTILINE)) == 2:
                break
            assert time.monotonic() < end, text
            await asyncio.sleep(0.02)
        one.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.wait(), 10) == 0
    finally:
        if one.returncode is None:
            one.kill()
        await one.communicate()
    for name, version in (("linear", "aaaa"), ("doubled", "bbbb")):
        labels = f'model="{name}",content="{version}",endpoint="infer",code="200"'
        assert f"slipway_requests_total{{{labels}}} 10" in text


def test_a_listing_says_what_each_model_has_of_its_own(listed):
    document = json.loads(listed.read_text())
    worker = {"socket": "w/worker.sock", "seconds": 5}
    document["models"][1] |= {"batchRows": 8, "maxRows": 100, "worker": worker}
    listed.write_text(json.dumps(document))
    common = replace(COMMON, plane=PlaneLimits(batch_rows=32))

    first, second, _ = read_listing(listed, common)

    assert (first.folder, first.plane.batch_rows, first.max_rows, first.worker) == (
        listed.parent / "linear", 32, 65_536, None
    )  # fmt: skip
    assert (second.plane.batch_rows, second.max_rows) == (8, 100)
    assert second.worker is not None
    assert second.worker.socket == listed.parent / "w" / "worker.sock"
    assert (second.worker.model, second.worker.seconds, second.worker.start_seconds) == ("model.joblib", 5.0, 300.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda d: d.clear(), "must name 1 to 100 models", id="nothing"),
        pytest.param(lambda d: d["models"].clear(), "must name 1 to 100 models", id="none"),
        pytest.param(lambda d: d["models"][0].update(name="../x"), "must have name: letters", id="name"),
        pytest.param(lambda d: d["models"][0].update(digest="sha256:1"), "must have digest: sha256:", id="digest"),
        pytest.param(lambda d: d["models"][0].pop("version"), "must have version", id="version"),
        pytest.param(lambda d: d["models"][0].update(name="echo"), "more than one model called echo", id="twice"),
        pytest.param(lambda d: d["models"][0].update(batchrows=3), "has batchrows, which is unknown", id="unknown"),
        pytest.param(lambda d: d["models"][0].update(batchRows=0), "whole number above 0", id="rows"),
        pytest.param(lambda d: d["models"][0].update(worker={"seconds": 1}), "must have socket", id="worker"),
        pytest.param(lambda d: d["models"].append(7), "must be an object", id="item"),
    ],
)
def test_a_listing_that_cannot_be_says_what_to_change(listed, change, message):
    document = json.loads(listed.read_text())
    change(document)
    listed.write_text(json.dumps(document))

    with pytest.raises(CannotServe, match=message):
        read_listing(listed, COMMON)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_listing_that_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "models.json").write_text(content)

    with pytest.raises(CannotServe, match=r"models\.json"):
        read_listing(tmp_path / "models.json", COMMON)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--name", "x"], 2, "leave --name out"),
        (["--worker-socket", "x"], 2, "leave --worker-socket out"),
        ([], 1, '"event":"echo: '),
    ],
)
async def test_a_server_of_several_says_what_is_wrong(listed, more, code, said):
    (listed.parent / "echo" / "model.onnx").write_bytes(b"another")
    command = [sys.executable, "-m", "slipway_runtime", "--models", str(listed), "--port", str(free_port()), *more]
    one = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, log = await asyncio.wait_for(one.communicate(), 30)

    assert one.returncode == code
    assert said in log.decode()
