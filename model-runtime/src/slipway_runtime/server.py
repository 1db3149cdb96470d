"""A runtime's life in a pod: load, listen, drain, end.

Draining (SIGTERM): the pod says at once that it is not ready. For ``drain_seconds`` it still
accepts connections, as kube-proxies and clients learn of the change one after the other; every
answer says ``Connection: close``, and a connection on which nothing was asked for a moment is
closed. Then it stops listening, answers what it has begun, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from slipway_runtime.apart import Apart
from slipway_runtime.doors import Door, Listeners, listening
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.http.answers import HeadWriter
from slipway_runtime.http.connection import Connection, ProbeConnection
from slipway_runtime.http.guard import Guard
from slipway_runtime.http.limits import HttpLimits
from slipway_runtime.http.routes import Router
from slipway_runtime.http.shared import Shared
from slipway_runtime.identifiers import sequence
from slipway_runtime.memory import Thrift
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model
from slipway_runtime.observing.options import ObservingOptions, observers
from slipway_runtime.observing.watching import Watch
from slipway_runtime.security.keys import ApiKeys
from slipway_runtime.security.tls import Tls, TlsFiles

if TYPE_CHECKING:
    from slipway_runtime.grpc.site import Site
    from slipway_runtime.several.front import Front

_log = logging.getLogger(__name__)

_SWEEP_SECONDS = 0.5
_DRAIN_STEP_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to listen, and how to end."""

    host: str = ""
    """Empty: every address of this machine, of both families."""
    port: int = 8080
    grpc_port: int | None = None
    """None: no gRPC."""
    drain_seconds: float = 6.0
    settled_seconds: float = 0.25
    """While draining, a connection is closed after so long without a request."""
    last_answers_seconds: float = 15.0
    """How long after that begun requests may still take."""
    limits: HttpLimits = field(default_factory=HttpLimits)
    grpc_limits: GrpcLimits = field(default_factory=GrpcLimits)
    observing: ObservingOptions = field(default_factory=ObservingOptions)
    tls: TlsFiles | None = None
    api_keys: Path | None = None
    """A file of keys; None: nobody is asked for one."""
    probe_port: int | None = None
    """A port without TLS and keys, for health and metrics alone; None: there is none."""
    listeners: Listeners | None = None
    """A worker's own sockets, which the first process opened; None: open them."""


class Server:
    """Serves one model, or several, over HTTP and gRPC."""

    def __init__(self, models: Sequence[Model], metrics: Metrics, options: ServerOptions) -> None:
        """Prepare.

        Args:
            models: One or several, each with a name of its own.
            metrics: The model's; of several a `SeveralMetrics` of theirs.
            options: Where to listen, and how to end.
        """
        self._models = tuple(models)
        self._metrics = metrics
        self._options = options
        self._apart = Apart()
        max_body = options.limits.body_bytes
        self._router, self._routers = _routers(self._models, metrics, self._apart, max_body=max_body)
        # Of several, each names itself in its own answers.
        self._head = HeadWriter(self._models[0].makers_in_http if len(self._models) == 1 else b"")
        self._shared = Shared(self._router.handle, self._head, metrics, sequence())
        self._shared.shortcut = self._router.shortcut
        self._shared.limits = options.limits
        self._observers = observers(options.observing, [(one.signature, one.metrics) for one in models], metrics)
        self._shared.watch = Watch(metrics, self._observers.listeners)
        for model, router in zip(self._models, self._routers, strict=True):
            router.recorder = self._observers.recorders.get(model.name)
            router.secure = options.tls is not None
        self._keys = ApiKeys(options.api_keys) if options.api_keys is not None else None
        self._tls = Tls(options.tls) if options.tls is not None else None
        if self._keys is not None or options.probe_port is not None:
            self._shared.guard = Guard(self._keys)
        self._shared.keys = self._keys
        self._stop = asyncio.Event()
        self._now = False
        self._listening = asyncio.Event()
        self._site: Site | None = None
        self.port = 0
        """The port that it listens on."""
        self.grpc_port = 0
        """The port that it speaks gRPC on; 0: on none."""
        self.probe_port = 0
        """The port for probes; 0: none."""

    async def started(self) -> None:
        """Wait until it listens."""
        await self._listening.wait()

    def stop(self) -> None:
        """Drain and end; asked a second time, end without waiting for the endpoints."""
        self._now = self._stop.is_set()
        self._stop.set()

    async def run(self) -> None:
        """Serve until told to stop.

        Raises:
            OSError: If the address cannot be listened on.
        """
        options, tls = self._options, self._tls
        http, grpc, probe = options.listeners or open_listeners(options)
        self.port = http.getsockname()[1]
        doors = [Door(http, lambda: Connection(self._shared), lambda: tls.http if tls is not None else None)]
        if grpc is not None:
            self.grpc_port = grpc.getsockname()[1]
            doors.append(Door(grpc, self._grpc_connection, lambda: tls.grpc if tls is not None else None))
        if probe is not None:
            self.probe_port = probe.getsockname()[1]
            doors.append(Door(probe, lambda: ProbeConnection(self._shared)))
        for door in doors:
            await door.open()
        self._listening.set()
        self._ready(ready=True)
        _log.info("ready on port %d", self.port)
        sweeper = asyncio.create_task(self._sweep(doors))
        try:
            await self._stop.wait()
            await self._drain()
            for door in doors:
                door.close()
            await self._last_answers()
        finally:
            sweeper.cancel()
            for door in doors:
                door.close()
            self._ready(ready=False)
            for connection in tuple(self._shared.connections):
                connection.abort()
            for model in self._models:
                model.plane.close()
            await asyncio.to_thread(self._observers.close)
        _log.info("stopped")

    def _ready(self, *, ready: bool) -> None:
        self._router.ready = self._metrics.ready = ready
        self._each_ready()
        if self._site is not None:
            self._site.ready(ready=ready)

    def _each_ready(self) -> None:
        """Say of each of several models whether it answers: one that is away does not keep the others from it."""
        if len(self._models) == 1:
            return
        wanted = self._listening.is_set() and not self._shared.draining
        for model, router in zip(self._models, self._routers, strict=True):
            router.ready = wanted
            model.metrics.ready = wanted and model.plane.is_ready

    def _grpc_connection(self) -> asyncio.Protocol:
        # Imported when somebody first asks: who speaks HTTP alone pays neither its memory nor its start.
        from slipway_runtime.grpc import connection, site  # noqa: PLC0415

        if self._site is None:
            self._site = site.Site(self._models, self._shared, self._options.grpc_limits, self._apart)
            self._site.ready(ready=self._router.ready)
        return connection.Connection(self._site)

    async def _sweep(self, doors: list[Door]) -> None:
        ticks = (self._head.tick, self._metrics.tick, self._shared.watch.tick, Thrift().tick)
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            # Each by itself: what fails may not keep time-outs, readiness or keys from being looked at.
            for tick in (*ticks, self._sweep_connections, self._look_at_models, self._read_keys):
                with _logged():
                    tick()
            with _logged():
                if self._tls is not None and self._tls.reload() and not self._stop.is_set():
                    await self._reopen(doors)

    def _sweep_connections(self) -> None:
        self._shared.now = now = perf_counter()
        for connection in tuple(self._shared.connections):
            try:
                connection.sweep(now)
            except Exception:  # noqa: BLE001 -- as in `_logged`, which thousands of them would pay for
                _log.exception("a connection could not be swept")

    def _look_at_models(self) -> None:
        self._each_ready()
        ready = all(model.plane.is_ready for model in self._models)
        if not self._stop.is_set() and ready is not self._router.ready:
            _log.warning("ready again" if ready else "not ready: what computes is away")
            self._ready(ready=ready)

    def _read_keys(self) -> None:
        if self._keys is not None:
            self._keys.reload()

    async def _reopen(self, doors: list[Door]) -> None:
        for door in doors:
            try:
                await door.open()
            except OSError:
                _log.exception("a new certificate is not used on all ports yet")

    async def _drain(self) -> None:
        _log.info("draining")
        self._shared.draining = True
        self._ready(ready=False)
        # A connection's times are only as exact as the last sweep: what seems idle may have asked just now.
        self._shared.now = now = perf_counter()
        for connection in self._shared.connections:
            connection.touch(now)
        end = now + self._options.drain_seconds
        while not self._now and perf_counter() < end:
            self._close_idle(self._options.settled_seconds)
            await asyncio.sleep(_DRAIN_STEP_SECONDS)

    async def _last_answers(self) -> None:
        end = perf_counter() + self._options.last_answers_seconds
        while perf_counter() < end and self._shared.connections:
            self._close_idle(self._options.settled_seconds)
            await asyncio.sleep(_DRAIN_STEP_SECONDS)

    def _close_idle(self, settled: float) -> None:
        self._shared.now = now = perf_counter()
        for connection in tuple(self._shared.connections):
            connection.close_if_idle(now, settled)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Say what a step raised, and go on."""
    try:
        yield
    except Exception:  # noqa: BLE001 -- whatever a step may raise, the next one is due
        _log.exception("a step of the regular sweep failed")


def open_listeners(options: ServerOptions, *, shared: bool = False) -> Listeners:
    """Open the sockets that the options ask for.

    Raises:
        OSError: With the port as its file name.
    """
    return listening(options.host, (options.port, options.grpc_port, options.probe_port), shared=shared)


def _routers(
    models: Sequence[Model], metrics: Metrics, apart: Apart, *, max_body: int
) -> tuple[Router | Front, list[Router]]:
    """Give what answers all requests, and the part of it that answers each model's."""
    if len(models) == 1:
        router = Router(models[0], metrics, max_body=max_body, apart=apart)
        return router, [router]
    from slipway_runtime.several.front import Front  # noqa: PLC0415 -- most pods have one model

    routers = [Router(model, model.metrics, max_body=max_body, among=True, apart=apart) for model in models]
    return Front(models, routers, metrics), routers


async def serve(models: Sequence[Model], metrics: Metrics, options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT; also as process 1, which has no default for either."""
    server = Server(models, metrics, options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    # What is loaded stays: the collector need not look at it again, and seldom at the rest.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    await server.run()
