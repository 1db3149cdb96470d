"""The operator's small web server: is it alive, is it ready, and a few numbers."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

PORT = 8081


async def serve(
    *, alive: Callable[[], bool], ready: Callable[[], bool], metrics: Callable[[], str], port: int
) -> web.AppRunner:
    """Start serving; the caller cleans the runner up."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(alive(), "alive", "a watch is behind, or the loop stands still")

    async def readyz(_: web.Request) -> web.Response:
        return _answer(ready(), "ready", "the API server has not answered for a while")

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(text=metrics(), content_type="text/plain")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", numbers)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def _answer(good: bool, yes: str, no: str) -> web.Response:
    return web.Response(text=(yes if good else no) + "\n", status=200 if good else 503)
