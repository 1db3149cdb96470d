"""Requests as bytes, for servers of a test's own process, and what came back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import orjson

TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}
INFER = orjson.dumps({"inputs": [TENSOR]})
PATH = "/v2/models/toy/infer"


def post(body: bytes = INFER, *headers: str, path: str = PATH, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def statuses(raw: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1.1 (\d{3}) ", raw)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- what is waited for knows nothing of this test
            await asyncio.sleep(0.01)
