"""Stands between the operator and the API server and does to each request what a test says.

Plain HTTP on loopback towards the operator; towards the API server the operator's own token is passed on. Each
namespace has a script of its own, so that many cases run beside each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
PASSED_ON = ("Accept", "Authorization", "Content-Type")
LARGEST = 8 << 20

HANG_SECONDS = 40.0
"""Longer than the operator waits for an answer."""

Deed = Literal["pass", "lose", "lose answer", "refuse", "refuse answer", "hang", "hang answer"]


@dataclass(frozen=True)
class Asked:
    """One request, as a script sees it."""

    method: str
    plural: str
    name: str
    subresource: str
    body: bytes

    @property
    def is_write(self) -> bool:
        """Whether it changes anything; events are a courtesy and do not count."""
        return self.method in WRITES and self.plural != "events"

    def __str__(self) -> str:
        return f"{self.method} {self.plural}/{self.name}{'/' if self.subresource else ''}{self.subresource}"


@dataclass(frozen=True)
class Answer:
    """What a script has done to a request."""

    deed: Deed = "pass"
    """``lose``: never sent, and the connection breaks; ``lose answer``: done, and the connection breaks;
    ``refuse``: not sent; ``refuse answer``: done, and answered as if not; ``hang``: not sent, and no answer comes;
    ``hang answer``: done, and no answer comes."""
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()


class Script:
    """What is done to the requests of one namespace; by itself nothing. To be overridden."""

    def __init__(self) -> None:
        self.writes: list[Asked] = []
        """Every write that came."""
        self.is_down = False
        """Nothing is answered, and what is open breaks."""
        self.broken = asyncio.Event()
        """Set to break the watches that are open."""
        self.begun = True
        """While false, everything passes."""
        self.watches: set[int] = set()
        """Watches that are open, by number."""

    def answer(self, asked: Asked) -> Answer:
        """What happens to a request."""
        del asked
        return Answer()

    async def done(self, asked: Asked) -> None:
        """A write has reached the API server, and its answer is on its way."""

    async def event(self, watch: int, line: bytes) -> list[bytes]:
        """What the operator gets of a line of a watch: nothing, itself, or more; and when."""
        del watch
        return [line]

    def take_over(self, before: Script) -> None:
        """Take the place of another; what is open stays open."""
        self.watches, self.broken = before.watches, before.broken

    def listed(self, plural: str, text: bytes) -> bytes:
        """What the operator gets of a list."""
        del plural
        return text


@dataclass
class Proxy:
    """The server."""

    upstream: str
    session: aiohttp.ClientSession
    scripts: dict[str, Script] = field(default_factory=dict)
    port: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """What the operator's kubeconfig names."""
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on, or not."""
        namespace, asked = _asked(request, await request.read())
        script = self.scripts.get(namespace) or Script()
        watches = request.query.get("watch") == "true"
        answer = Answer()
        if asked.is_write:
            script.writes.append(asked)
        if script.begun and not watches and not script.is_down:
            answer = script.answer(asked)
        if script.is_down or answer.deed == "lose":
            return _break(request)
        if answer.deed == "refuse":
            return _refused(answer)
        if answer.deed == "hang":
            await asyncio.sleep(HANG_SECONDS)
            return _break(request)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with self.session.request(
            request.method, self.upstream + request.raw_path, headers=headers, data=asked.body or None
        ) as got:
            if watches and got.status == 200:
                return await self._stream(request, got, (namespace, script))
            return await self._answer(request, got, (script, asked, answer))

    async def _answer(
        self, request: web.Request, got: aiohttp.ClientResponse, what: tuple[Script, Asked, Answer]
    ) -> web.StreamResponse:
        script, asked, answer = what
        text = await got.read()
        if script.begun and asked.is_write:
            await script.done(asked)
        if answer.deed == "hang answer":
            await asyncio.sleep(HANG_SECONDS)
        if answer.deed in {"lose answer", "hang answer"} or script.is_down:
            return _break(request)
        if answer.deed == "refuse answer":
            return _refused(answer)
        if script.begun and request.method == "GET" and not asked.name and got.status == 200:
            text = script.listed(asked.plural, text)
        more = {name: got.headers[name] for name in ("Retry-After",) if name in got.headers}
        return web.Response(status=got.status, body=text, content_type="application/json", headers=more)

    async def _stream(
        self, request: web.Request, got: aiohttp.ClientResponse, whose: tuple[str, Script]
    ) -> web.StreamResponse:
        _, script = whose
        response = web.StreamResponse(status=200, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        broken = asyncio.create_task(script.broken.wait())
        number = next(self.numbers)
        script.watches.add(number)
        passing = asyncio.create_task(self._pass_lines(got, response, whose, number))
        try:
            await asyncio.wait({broken, passing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            script.watches.discard(number)
            for task in (broken, passing):
                task.cancel()
            await asyncio.gather(broken, passing, return_exceptions=True)
        return _break(request) if script.broken.is_set() else response

    async def _pass_lines(
        self, got: aiohttp.ClientResponse, response: web.StreamResponse, whose: tuple[str, Script], number: int
    ) -> None:
        namespace, script = whose
        rest = b""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async for chunk in got.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    # Another script may have taken the place of the one that it was opened under.
                    now = self.scripts.get(namespace, script)
                    for given in await now.event(number, line) if now.begun else [line]:
                        await response.write(given + b"\n")


@contextlib.asynccontextmanager
async def proxy(upstream: str, authority: Path) -> AsyncIterator[Proxy]:
    """Serve until left."""
    context = ssl.create_default_context(cafile=str(authority))
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LARGEST) as session:
        served = Proxy(upstream, session)
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{path:.*}", served.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.port = int(runner.addresses[0][1])
        try:
            yield served
        finally:
            await runner.cleanup()


def _asked(request: web.Request, body: bytes) -> tuple[str, Asked]:
    """Namespace and words of a request, from its path ``/api…/namespaces/<namespace>/<plural>[/<name>[/<more>]]``."""
    parts = request.path.strip("/").split("/")
    if "namespaces" not in parts:
        return "", Asked(request.method, "", "", "", body)
    after = parts[parts.index("namespaces") + 1 :]
    words = [*after, "", "", "", ""]
    return words[0], Asked(request.method, words[1], words[2], words[3], body)


def _break(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _refused(answer: Answer) -> web.Response:
    reasons: dict[int, Any] = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": answer.status,
        "reason": reasons.get(answer.status, ""),
        "message": f"the test answers {answer.status}",
    }
    return web.Response(
        status=answer.status, text=json.dumps(body), content_type="application/json", headers=dict(answer.headers)
    )
