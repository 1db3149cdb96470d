"""Several models in one server: each answers, counts, names itself and is refused as if it were alone."""

from __future__ import annotations

import asyncio
import json
import re

import grpc  # type: ignore[import-untyped]  # it ships no types
import httpx
import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
import tritonclient.grpc as triton_grpc  # type: ignore[import-untyped]  # as above
import tritonclient.http as triton  # type: ignore[import-untyped]  # as above
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.unit.runtime.test_process import until

from slipway_runtime.errors import Unavailable
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import ModelOptions, load_model
from slipway_runtime.observing.options import ObservingOptions
from slipway_runtime.server import Server, ServerOptions
from slipway_runtime.several.listing import read_listing
from slipway_runtime.several.metrics import metrics_of

COMMON = ModelOptions(None, None, None, None)  # type: ignore[arg-type]  # a listing says them
MATRIX = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}
COLUMNS = [
    {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
    {"name": "distance", "datatype": "FP32", "shape": [1], "data": [719.5]},
    {"name": "month", "datatype": "INT64", "shape": [1], "data": [2]},
]
ROW = {"carrier": "UA", "distance": 719.5, "month": 2}


@pytest.fixture
async def several(listed):
    """Start a server of the three; ends with the test."""
    started = []

    async def begin(**options):
        models = [load_model(one, Metrics(one.name, one.version)) for one in read_listing(listed, COMMON)]
        chosen = ServerOptions(host="127.0.0.1", port=0, grpc_port=0, drain_seconds=0, **options)
        server = Server(models, metrics_of([model.metrics for model in models]), chosen)
        started.append((server, asyncio.create_task(server.run())))
        await asyncio.wait_for(server.started(), 5)
        return server

    yield begin
    for server, task in started:
        server.stop()
        server.stop()
        await asyncio.wait_for(task, 20)


@pytest.fixture
async def server(several):
    return await several()


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        yield client


@pytest.mark.parametrize("versioned", [False, True])
async def test_each_answers_under_its_name_and_names_itself(client, versioned):
    for name, version, inputs in (
        ("linear", "aaaa", [MATRIX]),
        ("doubled", "bbbb", [MATRIX]),
        ("echo", "cccc", COLUMNS),
        ("linear", "aaaa", [{**MATRIX, "data": [[1, 0]], "parameters": {}}]),  # not of the usual form
    ):
        base = f"/v2/models/{name}/versions/{version}" if versioned else f"/v2/models/{name}"
        answer = await client.post(f"{base}/infer", json={"id": "mine", "inputs": inputs})
        metadata = await client.get(base)

        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert (document["model_name"], document["model_version"], document["id"]) == (name, version, "mine")
        assert answer.headers.get_list("slipway-content") == [version]
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", answer.headers["slipway-model-digest"])
        assert (metadata.json()["name"], metadata.json()["versions"]) == (name, [version])
        assert (await client.get(f"{base}/ready")).json() == {"name": name, "ready": True}


async def test_named_outputs_are_each_models_own(client):
    """Labels, probabilities and decision values, chosen by name, in JSON and as raw bytes."""
    for name, weight in (("linear", 1.0), ("doubled", 2.0)):
        wanted = [{"name": "decision"}, {"name": "label", "parameters": {"binary_data": True}}]
        answer = await client.post(f"/v2/models/{name}/infer", json={"inputs": [MATRIX], "outputs": wanted})

        size = int(answer.headers["inference-header-content-length"])
        decision, label = orjson.loads(answer.content[:size])["outputs"]
        assert decision["data"] == [weight, -weight]
        assert (label["parameters"], answer.content[size:]) == ({"binary_data_size": 8}, bytes(8))
        everything = (await client.post(f"/v2/models/{name}/infer", json={"inputs": [MATRIX]})).json()
        assert [output["name"] for output in everything["outputs"]] == ["label", "probabilities", "decision"]
        rows = (await client.post(f"/models/{name}/predict", json={"rows": [{"a": 1, "b": 0}]})).json()
        (prediction,) = rows["predictions"]
        assert (prediction["label"], prediction["decision"]) == (0, {"no": weight, "yes": -weight})
        assert prediction["probabilities"]["no"] == pytest.approx(1 / (1 + np.exp(-2 * weight)), abs=1e-6)
    refused = await client.post("/v2/models/echo/infer", json={"inputs": COLUMNS, "outputs": [{"name": "decision"}]})
    assert (refused.status_code, "no output" in refused.json()["error"]) == (400, True)


async def test_rows_go_to_the_model_that_is_named(client):
    given = await client.post("/models/echo/predict", json={"rows": [ROW]})
    table = await client.post(
        "/models/echo/predict",
        content="carrier,distance,month\nUA,1,0\n",
        headers={"content-type": "text/csv", "accept": "text/csv"},
    )

    assert given.json()["predictions"] == [{"carrier": "UA", "distance": 719.5, "month": 12.0}]
    assert table.text.splitlines() == ["carrier,distance,month", "UA,1.0,10.0"]
    assert table.headers["slipway-content"] == "cccc"


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/predict", "POST /models/<name>/predict"),
        ("POST", "/feedback", "POST /models/<name>/feedback"),
        ("POST", "/v2/models/other/infer", "no model of that name"),
        ("GET", "/v2/models/other", "no model of that name"),
        ("GET", "/models/other", "no model of that name"),
        ("POST", "/models/other/predict", "no model of that name"),
    ],
)
async def test_an_unknown_model_is_told_which_there_are(client, method, path, said):
    answer = await client.request(method, path, content=b"{}")

    assert answer.status_code == 404
    assert said in answer.json()["error"]
    assert '"linear", "doubled", "echo"' in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/models/linear/versions/bbbb", 'this is "aaaa"'),
        ("/v2/models/linear/nothing", "nothing at this path"),
        ("/models", "nothing at this path"),
        ("/v2/models/../../etc/passwd", ""),
    ],
)
async def test_other_paths_are_refused(client, path, said):
    answer = await client.get(path)

    assert (answer.status_code, said in answer.json()["error"]) == (404, True)


async def test_paths_may_be_written_otherwise(client):
    for path in ("/v2/models/%6Cinear/ready?x=1", "/v2/models/linear/ready/"):
        assert (await client.get(path)).json() == {"name": "linear", "ready": True}
    head = await client.head("/v2/models/linear")
    assert (head.status_code, head.content, head.headers["slipway-content"]) == (200, b"", "aaaa")
    assert (await client.delete("/v2/models/linear")).status_code == 405


async def test_a_connection_asks_one_after_the_other_without_waiting(server):
    """Pipelined requests to different models run in batches of their own, and are answered in order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    names = ["linear", "doubled", "linear", "doubled"] * 4
    body = orjson.dumps({"inputs": [MATRIX]})
    for name in names:
        head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
    writer.write_eof()
    raw = await asyncio.wait_for(reader.read(), 10)
    writer.close()

    assert re.findall(rb'"model_name":"(\w+)"', raw) == [name.encode() for name in names]
    contents = [{"linear": b"aaaa", "doubled": b"bbbb"}[name] for name in names]
    assert re.findall(rb"slipway-content: (\w+)", raw) == contents


async def test_metrics_have_each_models_labels(client):
    for name, inputs in (("linear", [MATRIX]), ("linear", [MATRIX]), ("echo", COLUMNS), ("echo", [])):
        await client.post(f"/v2/models/{name}/infer", json={"inputs": inputs})
    await client.get("/v2")
    await client.post("/predict")
    text = (await client.get("/metrics")).text

    for line in (
        'slipway_requests_total{model="linear",content="aaaa",endpoint="infer",code="200"} 2',
        'slipway_requests_total{model="echo",content="cccc",endpoint="infer",code="200"} 1',
        'slipway_requests_total{model="echo",content="cccc",endpoint="infer",code="400"} 1',
        'slipway_failures_total{model="echo",content="cccc",kind="InvalidRequest"} 1',
        'slipway_requests_total{endpoint="metadata",code="200"} 1',
        'slipway_failures_total{kind="UnknownModel"} 1',
        'slipway_rows_total{model="linear",content="aaaa"} 2',
        'slipway_rows_total{model="doubled",content="bbbb"} 0',
        'slipway_batch_rows_count{model="echo",content="cccc"} 1',
        'slipway_step_duration_seconds_count{model="linear",content="aaaa",step="run"} 2',
        'slipway_ready{model="doubled",content="bbbb"} 1',
        "slipway_ready 1",
        "slipway_connections 1",
    ):
        assert line in text.splitlines(), text
    assert len(re.findall("^# TYPE slipway_rows_total", text, re.MULTILINE)) == 1


async def test_the_values_of_each_are_counted_against_its_own_reference(listed, several):
    for name, share in (("linear", 0.0), ("doubled", 10.0)):
        reference = {
            "rows": 4,
            "features": [
                {"name": "a", "input": "input", "column": 0, "edges": [share], "counts": [2, 2]},
                {"name": "b", "input": "input", "column": 1, "edges": [share], "counts": [2, 2]},
            ],
            "outputs": [],
        }
        (listed.parent / name / "reference.json").write_text(json.dumps(reference))
    server = await several()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        for name in ("linear", "doubled"):
            await client.post(f"/v2/models/{name}/infer", json={"inputs": [MATRIX]})
        text = (await client.get("/metrics")).text

    for line in (
        'slipway_feature_value_bucket{model="linear",content="aaaa",feature="a",le="0.0"} 0',
        'slipway_feature_value_bucket{model="doubled",content="bbbb",feature="a",le="10.0"} 1',
        'slipway_reference_ratio{model="doubled",content="bbbb",feature="a",le="10.0"} 0.5',
        'slipway_observed_rows_total{model="linear",content="aaaa"} 1',
    ):
        assert line in text.splitlines(), text
    assert 'slipway_feature_psi{model="linear",content="aaaa",feature="b"}' in text


async def test_the_page_lists_them_and_each_has_its_own(client):
    page = await client.get("/")
    own = await client.get("/models/echo")

    assert page.headers["content-type"] == own.headers["content-type"] == "text/html; charset=utf-8"
    for name in ("linear", "doubled", "echo"):
        assert f'href="/models/{name}"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert 'action="/models/echo/predict"' in own.text
    assert "/models/echo/predict" in re.findall(r"<h3>curl</h3>.*?</pre>", own.text, re.DOTALL)[0]
    assert own.headers["slipway-content"] == "cccc"


async def test_one_document_describes_them_all(client):
    document = (await client.get("/openapi.json")).json()

    OpenAPIV31SpecValidator(document).validate()
    for name in ("linear", "doubled", "echo"):
        path = document["paths"][f"/models/{name}/predict"]["post"]
        example = path["requestBody"]["content"]["application/json"]["example"]
        assert (await client.post(f"/models/{name}/predict", json=example)).status_code == 200
        assert f"/v2/models/{name}/infer" in document["paths"]
    assert "/predict" not in document["paths"]


async def test_foreign_clients_find_and_ask_them(server):
    def ask(module, port, **more):
        with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
            index = client.get_model_repository_index()
            tensor = module.InferInput("input", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[1, 0]], np.float32))
            values = [client.infer(name, [tensor]).as_numpy("decision")[0, 0] for name in ("linear", "doubled")]
            known = [client.is_model_ready(name) for name in ("echo", "linear")]
            assert not more or not client.is_model_ready("other")
            return index, values, known, client.get_model_metadata("echo")

    index, values, known, metadata = await asyncio.to_thread(ask, triton, server.port, unknown=True)
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("linear", "aaaa", "READY"),
        ("doubled", "bbbb", "READY"),
        ("echo", "cccc", "READY"),
    ]
    assert (values, known, metadata["versions"]) == ([1.0, 2.0], [True, True], ["cccc"])

    index, values, known, metadata = await asyncio.to_thread(ask, triton_grpc, server.grpc_port)
    assert [(one.name, one.version, one.state) for one in index.models][2] == ("echo", "cccc", "READY")
    assert (values, known, list(metadata.versions)) == ([1.0, 2.0], [True, True], ["cccc"])


async def test_calls_name_the_model_that_answered_and_are_told_which_there_are(server):
    tensor = triton_grpc.InferInput("input", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 0]], np.float32))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=triton_grpc.service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=triton_grpc.service_pb2.ModelInferResponse.FromString,
        )

        def request(name, version=""):
            made = triton_grpc.service_pb2.ModelInferRequest(model_name=name, model_version=version)
            made.inputs.append(tensor._get_tensor())
            made.raw_input_contents.append(tensor._get_content())
            return made

        for name, version in (("linear", "aaaa"), ("doubled", "bbbb"), ("linear", "aaaa")):
            call = infer(request(name))
            fields = dict(await call.initial_metadata())
            answer = await call
            assert (answer.model_name, answer.model_version) == (name, version)
            assert fields["slipway-content"] == version
            assert fields["slipway-model-digest"].startswith("sha256:")
        for name, version, said in (("other", "", '"linear", "doubled", "echo"'), ("linear", "bbbb", 'this is "aaaa"')):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await infer(request(name, version))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert said in refused.value.details()
    assert 'model="linear",content="aaaa",endpoint="infer",code="200"} 2' in server._metrics.render().decode()


async def test_one_that_is_away_keeps_no_other_from_answering(server, client, monkeypatch):
    away = server._models[0].plane._engine
    run = type(away).run
    monkeypatch.setattr(type(away), "is_ready", lambda self: self is not away)

    def broken(self, feeds):
        if self is away:
            raise Unavailable("the model's worker ended; try again in a moment")
        return run(self, feeds)

    monkeypatch.setattr(type(away), "run", broken)
    await until(lambda: not server._router.ready)

    readiness = await client.get("/v2/health/ready")
    assert (readiness.status_code, readiness.json()["error"]) == (503, 'the worker of "linear" is away')
    assert (await client.get("/v2/models/linear/ready")).status_code == 503
    assert (await client.post("/v2/models/linear/infer", json={"inputs": [MATRIX]})).status_code == 503
    assert (await client.get("/v2/models/doubled/ready")).status_code == 200
    assert (await client.post("/v2/models/doubled/infer", json={"inputs": [MATRIX]})).status_code == 200
    states = {one["name"]: one["state"] for one in (await client.get("/v2/repository/index")).json()}
    assert states == {"linear": "UNAVAILABLE", "doubled": "READY", "echo": "READY"}
    only = await client.post("/v2/repository/index", json={"ready": True})
    assert [one["name"] for one in only.json()] == ["doubled", "echo"]
    wrong = await client.post("/v2/repository/index", json={"ready": "yes"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, '"ready" must be true or false')


async def test_records_feedback_and_lines_are_each_models_own(several, tmp_path, monkeypatch):
    lines: list[bytes] = []
    monkeypatch.setattr("slipway_runtime.observing.access_log._written", lambda _, raw: lines.append(raw))
    options = ObservingOptions(access_log=True, record_to=str(tmp_path / "records"), redacted=("carrier",))
    server = await several(observing=options)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        await client.post("/v2/models/linear/infer", json={"inputs": [MATRIX]}, headers={"x-request-id": "one"})
        await client.post("/models/echo/predict", json={"rows": [ROW]}, headers={"x-request-id": "two"})
        truth = await client.post("/models/echo/feedback", json={"id": "two", "truth": 1})
    server.stop()
    server.stop()
    await until(lambda: b"feedback" in b"".join(lines))

    assert truth.status_code == 202
    pieces = await until(lambda: len(found := list((tmp_path / "records").glob("[!.]*.arrows"))) == 3 and found)
    tables = {path.name.split("-")[0] + table["content"][0].as_py(): table for path in pieces
              for table in [pa.ipc.open_stream(path.read_bytes()).read_all()]}  # fmt: skip
    assert tables["predictionsaaaa"]["request_id"].to_pylist() == ["one"]
    assert "in.a" in tables["predictionsaaaa"].column_names
    assert "in.carrier" not in tables["predictionscccc"].column_names
    assert tables["feedbackcccc"]["truth"].to_pylist() == ["1"]
    logged = [json.loads(line) for line in b"".join(lines).splitlines()]
    assert [(line["model"], line["endpoint"]) for line in logged] == [
        ("linear", "infer"),
        ("echo", "predict"),
        ("echo", "feedback"),
    ]
