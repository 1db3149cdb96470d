"""Bad requests for the runtime, made from a seed: mutations of good ones, and what has been tried on others.

Each is the raw bytes of one HTTP/1.1 request. A few turn out to be good (a changed digit is another
number); whoever sends them counts those apart.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import random
import re
from collections.abc import Callable
from typing import Any

GOOD: dict[str, Any] = {
    "inputs": [
        {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["UA"]},
        {"name": "distance", "datatype": "FP32", "shape": [1], "data": [719.0]},
        {"name": "month", "datatype": "INT64", "shape": [1], "data": [2]},
    ]
}
ROWS: dict[str, Any] = {"rows": [{"carrier": "UA", "distance": 719, "month": 2}]}
TABLE = b"carrier,distance,month\nUA,719,2\n"
INFER = "/v2/models/toy/infer"

_ODD: list[Any] = [
    None, True, -1, 0, 2**63, 2**64, -(2**63) - 1, 1e308, -1e308, 5e-324, "", "\x00", "\ud800", "NaN", "é" * 300,
    "A" * 5000, [], {}, [[]], [[[[]]]], {"a": {"b": 1}}, [None], "../../etc/passwd", "$(id)", "' OR 1=1 --",
    "__class__", "file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", [1] * 200, "%s%n%x", "{{7*7}}",
]  # fmt: skip

_PATHS = [
    "/../../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/..%252f..%252fetc/passwd",
    "/..\\..\\windows\\win.ini", "/v2/models/..%5c..%5c/infer", "/v2/models/../../model.onnx", "/model.onnx",
    "/v2/models/toy/versions/../../../signature.json", "//etc/passwd", "/v2/repository/index",
    "/v2/repository/models/toy/load", "/v2/models/file:%2f%2f%2fetc%2fpasswd/infer", "/v2/models/toy%00/infer",
    "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "/v2/models/toy/infer/../../../..",
    "/v2/models/" + "a" * 5000 + "/infer", "/api/jobs/", "/admin", "/.git/config", "/debug/pprof", "*", "/\x7f",
    "/v2/models/$(id)/infer", "/v2/models/toy/versions/' OR 1=1/infer", "/predict/../../x", "/?a=" + "b" * 3000,
]  # fmt: skip


class _Bomb:
    """What a pickle would run, if anybody loaded it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit(86)",))


PICKLE = pickle.dumps(_Bomb())
CUT = gzip.compress(bytes(1 << 20), 1)[:-8]
BOMB = gzip.compress(bytes(17 << 20), 1)


async def faults_of(port: int) -> list[str]:
    """Give the counts of predictions that a runtime holds against itself: each could roll a good model back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    if 'endpoint="infer",code="400"' not in text:
        return ["no bad request is counted"]
    return re.findall(r'^slipway_requests_total.*endpoint="(?:infer|predict)",code="5.*', text, re.MULTILINE)


def request(body: bytes, *headers: str, path: str = INFER, method: str = "POST") -> bytes:
    """Write a request whose length is right."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + body


def _text(document: Any) -> bytes:
    # Lone surrogates stay escapes: valid JSON that is no valid text.
    return json.dumps(document).encode()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


def _changed(document: Any, pick: random.Random) -> Any:
    """Put something odd in one place, take one away, or add one."""
    copy = json.loads(json.dumps(document))
    *way, last = pick.choice(_places(copy))
    inside = copy
    for key in way:
        inside = inside[key]
    kind = pick.randrange(4)
    if kind == 0:
        del inside[last]
    elif kind == 1 and isinstance(inside, dict):
        inside[pick.choice(["x", "", "name ", "DATA", "__proto__"])] = inside.pop(last)
    else:
        inside[last] = pick.choice(_ODD)
    return copy


def mutated_infer(pick: random.Random) -> bytes:
    """An infer request with one part that is wrong."""
    return request(_text(_changed(GOOD, pick)))


def mutated_rows(pick: random.Random) -> bytes:
    """Rows with one part that is wrong."""
    return request(_text(_changed(ROWS, pick)), path="/predict")


def broken_bytes(pick: random.Random) -> bytes:
    """JSON or CSV with bytes that are changed, cut, repeated or strange."""
    body, path, kind = pick.choice([
        (_text(GOOD), INFER, "application/json"),
        (_text(ROWS), "/predict", "application/json"),
        (TABLE, "/predict", "text/csv"),
    ])  # fmt: skip
    raw = bytearray(body)
    for _ in range(pick.randrange(1, 4)):
        place = pick.randrange(len(raw))
        match pick.randrange(4):
            case 0:
                raw[place] = pick.randrange(256)
            case 1:
                del raw[place:]
                raw += b" "
            case 2:
                raw[place:place] = raw[place : place + 9] * pick.randrange(1, 40)
            case _:
                raw[place:place] = pick.choice(
                    [b"\x00", b"\xff\xfe", b"\xc0\xaf", b'"', b"\\u", b"1e999", b"NaN", b"[[["]
                )
    return request(bytes(raw), f"Content-Type: {kind}", path=path)


def nested(pick: random.Random) -> bytes:
    """Brackets without end."""
    depth = pick.choice([50, 500, 5000, 50_000])
    opening, closing = pick.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inside = opening * depth + b"1" + (closing * depth if pick.random() < 0.5 else b"")
    body = pick.choice([inside, b'{"inputs":' + inside + b"}", b'{"rows":[' + inside + b"]}"])
    return request(body, path=pick.choice([INFER, "/predict"]))


def lying_shape(pick: random.Random) -> bytes:
    """Shapes that would need more memory than there is, or do not fit."""
    sizes = pick.choice(
        [[2**31, 2**31], [2**62], [0], [1, 1, 1, 1, 1, 1, 1, 1, 1], [-1], [1.5], [2**40], [65537], [1, 0]]
    )
    tensor = {"name": pick.choice(["distance", "input"]), "datatype": pick.choice(["FP32", "FP64", "INT8", "BYTES"])}
    return request(_text({"inputs": [{**tensor, "shape": sizes, "data": [1.0]}]}))


def lying_binary(pick: random.Random) -> bytes:
    """Raw tensors whose sizes are not those of the JSON or of the header."""
    size = pick.choice([0, 1, 3, 4, 8, 2**31, 2**63, -1])
    head = _text({
        "inputs": [{
            "name": "distance", "datatype": pick.choice(["FP32", "BYTES", "INT64"]), "shape": [pick.choice([1, 2**30])],
            "parameters": {"binary_data_size": size},
        }],
    })  # fmt: skip
    raw = pick.randbytes(pick.choice([0, 3, 4, 64]))
    length = pick.choice([len(head), len(head) - 1, len(head) + 1, 0, 10**11, -1])
    return request(head + raw, f"Inference-Header-Content-Length: {length}")


def strange_path(pick: random.Random) -> bytes:
    """Ways to files, other hosts, and other systems' interfaces."""
    method = pick.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
    body = _text(GOOD) if method == "POST" else b""
    path = pick.choice(_PATHS).replace(" ", "%20")
    return request(body, path=path, method=method)


def foreign_body(pick: random.Random) -> bytes:
    """Pickles, multipart, XML, and bodies that say they are compressed."""
    boundary = pick.choice(["a", "-" * 5000, "a\tb", ""])
    headers, body = pick.choice([
        (("Content-Type: application/vnd.bentoml+pickle",), PICKLE),
        (("Content-Type: application/octet-stream",), PICKLE),
        (("Content-Type: application/python-pickle", "Payload-Container: NdarrayContainer"), PICKLE),
        ((f"Content-Type: multipart/form-data; boundary={boundary}",), b"--" * 2000),
        (("Content-Type: application/xml",), b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        (("Content-Encoding: gzip",), CUT),
        (("Content-Encoding: gzip",), BOMB),
        (("Content-Encoding: br",), b"\x0b\x02\x80"),
        (("Content-Encoding: deflate",), b"\x78\x9c\xff\xff"),
    ])  # fmt: skip
    return request(body, *headers, path=pick.choice([INFER, "/predict"]))


def strange_header(pick: random.Random) -> bytes:
    """Headers that contradict each other, are too many, too long, or no headers."""
    body = _text(GOOD)
    line = pick.choice([
        f"Content-Length: {len(body) + 1}", "Content-Length: -1", "Content-Length: 1e3", "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip", "Expect: the moon", "X: " + "y" * 20_000, "X y: z", ": z", "X\x01: y",
        "Inference-Header-Content-Length: 99999999999999999999", "Content-Type: text/html", "Host: a\x00b",
        *["\r\n".join(f"X-{number}: y" for number in range(150))],
    ])  # fmt: skip
    return request(body, line)


def no_http(pick: random.Random) -> bytes:
    """Bytes of other protocols, or of none."""
    return pick.choice([
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n\r\n", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v2\r\n\r\n", b"get /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\nHost x\n\n", pick.randbytes(40) + b"\r\n\r\n", b"\x00" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ])  # fmt: skip


def tiny_chunks(pick: random.Random) -> bytes:
    """A body in chunks of one byte, more of them than are taken."""
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"1\r\n \r\n" * pick.choice([3000, 9000]) + b"0\r\n\r\n"


ATTACKS: list[tuple[Callable[[random.Random], bytes], int]] = [
    (mutated_infer, 30), (mutated_rows, 20), (broken_bytes, 20), (nested, 2), (lying_shape, 6), (lying_binary, 6),
    (strange_path, 6), (foreign_body, 3), (strange_header, 4), (no_http, 3), (tiny_chunks, 1),
]  # fmt: skip
"""Makers of bad requests, and how often each is taken."""


def attacks(seed: int) -> Callable[[], tuple[str, bytes]]:
    """Make a source of bad requests; gives the name of the kind with each."""
    pick = random.Random(seed)  # noqa: S311 -- attacks that can be repeated
    makers, weights = zip(*ATTACKS, strict=True)

    def one() -> tuple[str, bytes]:
        (maker,) = pick.choices(makers, weights)
        return maker.__name__, maker(pick)

    return one
