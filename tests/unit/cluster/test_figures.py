"""What pods answer about their predictions, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from slipway_operator.cluster import figures
from slipway_operator.cluster.figures import LARGEST_PAGE, Figures
from slipway_operator.plan.observed import Sample

PAGE = b"""\
# TYPE slipway_requests_total counter
slipway_requests_total{endpoint="infer",code="500"} 100
slipway_requests_total{endpoint="infer",code="200"} 1900
# TYPE slipway_failures_total counter
slipway_failures_total{kind="Refused"} 7
slipway_failures_total{kind="InvalidRequest"} 5
"""
WHOLE = Sample(requests=2000, errors=100, refused=7, buckets=())
POD = {"metadata": {"name": "p"}, "status": {"podIP": "127.0.0.1"}}


async def asked(monkeypatch: pytest.MonkeyPatch, parts: Sequence[bytes], *, missing: int = 0) -> Sample | None:
    """What is read of a pod whose server sends its page in parts, with a moment between them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        page = web.StreamResponse()
        page.content_length = sum(map(len, parts)) + missing
        await page.prepare(request)
        for part in parts:
            await asyncio.sleep(0.05)
            await page.write(part)
        return page

    pod = web.Application()
    pod.router.add_get("/metrics", answer)
    async with TestServer(pod) as server, aiohttp.ClientSession() as session:
        monkeypatch.setattr(figures, "figures_port", lambda _pod: server.port)
        return (await Figures(session).of([POD])).get("p")


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(len(PAGE), id="in-one-part"),
        pytest.param(PAGE.index(b"1900") + 1, id="inside-a-number"),
        pytest.param(PAGE.index(b"infer"), id="inside-a-label"),
        pytest.param(PAGE.index(b"slipway_requests_total{"), id="before-the-first-line"),
    ],
)
async def test_a_page_counts_as_a_whole_in_however_many_parts_it_comes(monkeypatch, cut):
    assert await asked(monkeypatch, [PAGE[:cut], PAGE[cut:]]) == WHOLE


async def test_a_page_that_breaks_off_inside_a_number_gives_no_figures(monkeypatch):
    assert await asked(monkeypatch, [PAGE[: PAGE.index(b"1900") + 1]], missing=4) is None


async def test_a_page_larger_than_any_runtimes_gives_no_figures(monkeypatch):
    """A comment is nothing, but what would follow it is not read any more."""
    assert await asked(monkeypatch, [PAGE, b"#" * LARGEST_PAGE + b"\n"]) is None
