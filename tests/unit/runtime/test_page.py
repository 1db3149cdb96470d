"""The door for people: the page, the programs on it, the OpenAPI document, and CSV."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import hashlib
import html
import io
import re
import subprocess
import sys

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from slipway_runtime.errors import InvalidRequest
from slipway_runtime.http.page import Page
from slipway_runtime.http.page.snippets import snippets
from slipway_runtime.protocol.datatypes import DATATYPES
from slipway_runtime.protocol.openapi import Served, openapi
from slipway_runtime.protocol.signature import read_signature
from slipway_runtime.protocol.tables import read_table, wants_table, write_table

ROW = {"carrier": "UA", "distance": 719, "month": 2}


@pytest.fixture
async def echo(start, parts):
    return await start(parts.echo())


@pytest.fixture
async def client(echo):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{echo.server.port}", trust_env=False) as client:
        yield client


async def test_the_page_holds_what_a_person_needs_and_nothing_from_elsewhere(client):
    answer = await client.get("/")

    text = answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for shown in ('name="carrier"', 'value="UA"', 'value="719"', "<code>distance</code>", "c0ffee1234", "curl http"):
        assert shown in text
    for language in ("curl", "Python", "Java", "C#"):
        assert f"<h3>{language}</h3>" in text
    assert not re.findall(r'(?:src|href)="(?!/|data:)', text)
    assert "<noscript>" in text


async def test_the_pages_policy_lets_nothing_run_but_its_own_script_and_style(client):
    answer = await client.get("/")

    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert " style=" not in answer.text
    assert " onclick=" not in answer.text


@pytest.mark.parametrize(
    ("host", "shown"),
    [(b"model.airline:80", "http://model.airline:80/"), (b"[::1]:8080", "http://[::1]:8080/"),
     (b'x"><script>alert(1)</script>', "http://localhost:8080/"), (b"a b", "http://localhost:8080/")],
)  # fmt: skip
def test_the_address_is_the_one_that_was_asked_if_it_is_one(parts, host, shown):
    page = Page(read_signature(orjson.dumps(parts.echo().signature)), "toy", "v1", ROW).render(host).decode()

    assert shown in html.unescape(page)
    assert "alert(1)" not in page


def test_names_and_values_cannot_break_out_of_the_page(parts):
    files = parts.echo()
    evil = '"><script>alert(1)</script><!--tabs-->$name'
    files.signature["inputs"][0] |= {"name": evil, "tensor": "carrier"}
    files.signature["columns"][0] = evil
    signature = read_signature(orjson.dumps(files.signature))

    page = Page(signature, "toy", "v1", {evil: evil, "distance": 1, "month": 2}).render(b"x").decode()

    assert "<script>alert" not in page
    assert html.escape(evil) in page


async def test_the_programs_of_the_page_give_the_prediction(echo):
    """curl and Python as they are copied; Java and C# are compiled and run in tests/clients."""
    texts = dict(
        snippets(f"http://127.0.0.1:{echo.server.port}", {"carrier": "O'Hare \"é\\", "distance": 1.5, "month": 2})
    )
    for command in (["bash", "-c", texts["curl"] + " -s"], [sys.executable, "-c", texts["Python"]]):
        said = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20, check=True)
        assert "Hare" in said.stdout
        assert "12.0" in said.stdout
    assert '\\\\"é\\\\\\\\' in texts["Java"], "a text block takes backslashes away"
    assert '\\""é\\\\' in texts["C#"], "a verbatim string doubles its quotes, and takes nothing away"


def test_the_document_is_openapi(parts):
    for files in (parts.echo(), parts.linear()):
        signature = read_signature(orjson.dumps(files.signature))
        document = openapi([Served(signature, "toy", "v1", ROW)])

        OpenAPIV31SpecValidator(document).validate()
        row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert row["properties"]["rows"]["items"]["required"] == list(signature.columns)


async def test_the_document_is_served(client):
    document = (await client.get("/openapi.json")).json()

    assert document["openapi"].startswith("3.1")
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await client.post("/predict", json=example)).status_code == 200


async def test_csv_in_and_objects_out(client):
    body = "month,carrier,distance\n2,UA,719\n0,,\n"
    answer = await client.post("/predict", content=body, headers={"content-type": "text/csv"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == [
        {"carrier": "UA", "distance": 719.0, "month": 12.0},
        {"carrier": "(none)", "distance": None, "month": 10.0},
    ]


async def test_csv_out(client):
    rows = {"rows": [ROW, ROW | {"carrier": 'a "b", c', "distance": None}]}
    answer = await client.post("/predict", json=rows, headers={"accept": "text/csv"})

    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["slipway-content"] == "c0ffee1234"
    assert list(csv.DictReader(io.StringIO(answer.text))) == [
        {"carrier": "UA", "distance": "719.0", "month": "12.0"},
        {"carrier": 'a "b", c', "distance": "", "month": "12.0"},
    ]


async def test_probabilities_have_a_column_for_each_class(start):
    served = await start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.server.port}", trust_env=False) as client:
        answer = await client.post(
            "/predict", content="a,b\n1,0\n", headers={"content-type": "text/csv", "accept": "text/csv"}
        )

    assert answer.text.splitlines()[0] == "label,probabilities.no,probabilities.yes"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "send CSV such as", id="empty"),
        pytest.param(b"carrier,distance,month\n", "there are no rows", id="header-only"),
        pytest.param(b"carrier,distance\nUA,1\n", 'no "month"', id="column-missing"),
        pytest.param(b"carrier,distance,month,x\nUA,1,2,3\n", '"x"', id="column-unknown"),
        pytest.param(b"carrier,distanc,month\nUA,1,2\n", 'did you mean "distance"', id="column-misspelt"),
        pytest.param(b"carrier,distance,month,month\nUA,1,2,2\n", "twice", id="column-twice"),
        pytest.param(b"carrier,distance,month\nUA,1\n", "line 2 has 2 fields", id="short-line"),
        pytest.param(b"carrier,distance,month\nUA,far,2\n", 'row 0, "distance" is "far"', id="word"),
        pytest.param(b"carrier,distance,month\nUA,1_0,2\n", '"1_0"', id="underscore"),
        pytest.param(b"carrier,distance,month\nUA,1e999,2\n", '"1e999"', id="infinite"),
        pytest.param(b"carrier,distance,month\nUA,1,2.5\n", "whole numbers", id="fraction"),
        pytest.param(b"carrier,distance,month\nUA,1," + b"9" * 30 + b"\n", "whole numbers", id="large"),
        pytest.param("carrier,distance,month\nUA,٣,2\n".encode(), "numbers up to", id="other-digits"),
        pytest.param(b"carrier,distance,month\nUA,1,\n", "whole numbers", id="missing-whole"),
        pytest.param(b'carrier,distance,month\n"UA,1,2\n', "not valid CSV", id="open-quote"),
        pytest.param(b"carrier,distance,month\n" + b"x" * 200_000 + b",1,2\n", "not valid CSV", id="long-field"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="utf-16"),
    ],
)
async def test_csv_that_is_refused(client, body, message):
    answer = await client.post("/predict", content=body, headers={"content-type": "text/csv"})

    assert answer.status_code == 400
    assert message in answer.json()["error"]


async def test_csv_is_for_predict_only(client):
    answer = await client.post("/v2/models/toy/infer", content="a", headers={"content-type": "text/csv"})

    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/csv", True),
        (b"text/csv, application/json;q=0.5", True),
        (b"application/json, text/csv;q=0.9", False),
        (b"text/csv;q=0", False),
        (b"text/csv;q=much", False),
    ],
)
def test_who_wants_csv(accept, expected):
    assert wants_table(accept) is expected


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.none() | st.floats(allow_nan=False, width=32)),
        min_size=1,
    )
)
def test_tables_come_back_as_they_went(rows):
    names, numbers = [name for name, _ in rows], [None if one is None or np.isinf(one) else one for _, one in rows]
    raw = write_table(["text", "number"], [names, numbers])

    found = read_table(raw, {"text": DATATYPES["BYTES"], "number": DATATYPES["FP64"]}, "", max_rows=99)

    assert found == {"text": names, "number": numbers}


@given(st.binary())
def test_no_bytes_bring_another_error(raw):
    with contextlib.suppress(InvalidRequest):
        read_table(raw, {"a": DATATYPES["FP32"], "b": DATATYPES["BOOL"], "c": DATATYPES["INT8"]}, "", max_rows=99)
