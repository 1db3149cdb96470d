"""A steady load that notices everything: which content answered which request, what failed, what was cut off.

Some connections are kept open and used again, some are made anew for each request. A
request whose connection was closed before the first byte of its answer is sent once more,
as HTTP clients do, and counted; anything else that goes wrong is a failure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

FRESH_SECONDS = 0.006
"""Between two fresh connections of a loop, at least: who closes one keeps its port for a minute, of which there are
28,000 for one address."""


@dataclass
class Seen:
    """What the load has seen. Times are `time.monotonic`, in seconds."""

    requests: int = 0
    retried: int = 0
    failures: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """Answers by content."""
    first: dict[str, asyncio.Future[float]] = field(default_factory=dict)
    """When a content's first answer since the last mark arrived, for who waits for it."""
    enough: int = 0
    """So many answers set ``reached``."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    last_sent: dict[tuple[str, str], float] = field(default_factory=dict)
    """When the newest request was sent that a content answered, by content and kind of connection."""
    age: int = 0
    """Connections that were opened at another age are closed after their answer, and opened anew."""

    def first_of(self, content: str) -> asyncio.Future[float]:
        """The time of the content's next answer on a fresh connection."""
        self.first[content] = asyncio.get_running_loop().create_future()
        return self.first[content]

    def answered(self, kind: str, content: str, sent: float) -> None:
        """Count one whole answer."""
        now = time.monotonic()
        self.requests += 1
        self.answers[content] += 1
        # A connection that was kept may have stayed with a content all along.
        waiting = self.first.pop(content, None) if kind == "fresh" else None
        if waiting is not None:
            waiting.set_result(now)
        if self.requests >= self.enough:
            self.reached.set()
        key = (content, kind)
        self.last_sent[key] = max(sent, self.last_sent.get(key, 0.0))


class _Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.open = False
        self._bytes = bytearray()
        self._answer: asyncio.Future[tuple[str, bool]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self.transport, self.open = cast(asyncio.Transport, transport), True  # uvloop's is none of asyncio's own

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits: with nothing received it may be sent again."""
        del exc
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_CutError() if self._bytes else _ClosedError())

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._bytes += data
        end = self._bytes.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._bytes[:end]).lower()
        size = int(_header(head, b"content-length") or b"0")
        if len(self._bytes) < end + 4 + size or self._answer is None or self._answer.done():
            return
        if not head.startswith(b"http/1.1 200"):
            self._answer.set_exception(
                RuntimeError(bytes(self._bytes[: end + 4 + size]).decode(errors="replace")[:300])
            )
            return
        content = _header(head, b"slipway-content").decode()
        self._answer.set_result((content, b"close" in _header(head, b"connection")))

    def ask(self, request: bytes) -> asyncio.Future[tuple[str, bool]]:
        """Send a request; the content that answered, and whether the connection ends with it."""
        self._bytes.clear()
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport is None or not self.open:
            self._answer.set_exception(_ClosedError())
        else:
            self.transport.write(request)
        return self._answer

    def close(self) -> None:
        """End it."""
        if self.transport is not None:
            self.transport.close()


class _ClosedError(Exception):
    """The connection was closed before the first byte of the answer."""


class _CutError(Exception):
    """The answer was cut off in the middle."""


def question(body: Mapping[str, Any]) -> bytes:
    """A whole request for predictions."""
    text = json.dumps(body).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nhost: lab\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


@dataclass(frozen=True)
class Loops:
    """Who asks: each loop has one request at a time."""

    kept: int
    """Connections that are used again."""
    fresh: int
    """Loops that make a connection for each request."""
    every: float = 0.0
    """Seconds between an answer and the loop's next request."""


async def drive(host: str, request: bytes, seen: Seen, stop: asyncio.Event, loops: Loops) -> None:
    """Keep asking until told to stop.

    Args:
        host: Address of the Service; port 80.
        request: A whole HTTP/1.1 request.
        seen: Where to count.
        stop: Ends the load.
        loops: How many ask, and how often.
    """

    async def loop(kind: str) -> None:
        client: _Client | None = None
        age = seen.age
        while not stop.is_set():
            if client is not None and age != seen.age:
                client.close()
                client = None
            age = seen.age
            client = await _ask_once(host, request, seen, kind, client)
            pause = max(loops.every, FRESH_SECONDS if kind == "fresh" else 0.0)
            if pause:
                await asyncio.sleep(pause)
        if client is not None:
            client.close()

    kinds = ["kept"] * loops.kept + ["fresh"] * loops.fresh
    await asyncio.gather(*map(loop, kinds))


async def _ask_once(host: str, request: bytes, seen: Seen, kind: str, client: _Client | None) -> _Client | None:
    """Have one request answered, on the connection that is open, if any; the one for the next request."""
    for again in (False, True):
        sent = time.monotonic()
        try:
            if client is None or not client.open:
                client = await _connect(host)
            content, closing = await asyncio.wait_for(client.ask(request), timeout=20)
        except _ClosedError:
            client = None
            if again:
                seen.failures.append("closed twice before the first byte")
            else:
                seen.retried += 1
            continue
        except (_CutError, RuntimeError, OSError, TimeoutError) as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
            return None
        seen.answered(kind, content, sent)
        if closing or kind == "fresh":
            client.close()
            return None
        return client
    return None


async def _connect(host: str) -> _Client:
    _, client = await asyncio.wait_for(asyncio.get_running_loop().create_connection(_Client, host, 80), timeout=20)
    return client


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    end = head.find(b"\r\n", start + 2)
    return head[start + len(name) + 3 : end if end >= 0 else len(head)].strip()
