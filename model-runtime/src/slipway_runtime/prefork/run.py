"""Serve loaded models by several processes."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Sequence
from dataclasses import replace

import uvloop

from slipway_runtime.doors import Listeners
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model
from slipway_runtime.prefork.board import Board
from slipway_runtime.prefork.supervisor import Supervisor
from slipway_runtime.server import ServerOptions, open_listeners, serve

_log = logging.getLogger(__name__)


def serve_by(workers: int, models: Sequence[Model], metrics: Metrics, options: ServerOptions) -> int:
    """Serve until told to stop; gives the exit status.

    Each worker has a listening socket of its own on the same port, so that the kernel divides
    connections evenly. All of them are open in this process, too: what waits in the socket of a
    worker that died is answered by the one that takes its place.

    Raises:
        OSError: If the port cannot be listened on.
    """
    # Opened by themselves first: sockets that share a port would share it with another program, too.
    open_listeners(options).close()
    listeners = [open_listeners(options, shared=True) for _ in range(workers)]
    board = Board(workers)

    def close(several: Sequence[Listeners]) -> None:
        for one in several:
            one.close()

    def work(place: int) -> int:
        metrics.others = functools.partial(board.others, place)
        metrics.tell = functools.partial(board.write, place)
        close(listeners[:place] + listeners[place + 1 :])
        uvloop.run(serve(models, metrics, replace(options, listeners=listeners[place])))
        return 0

    def stop_listening() -> None:
        # Each worker listens until it has drained; what this process held open would be answered by nobody.
        close(listeners)

    _log.info("%d workers share port %d", workers, options.port)
    # What is loaded is never looked at by the collector again, so its pages stay shared.
    gc.collect()
    gc.freeze()
    return Supervisor(workers, work, board.retire, stop_listening).run()
