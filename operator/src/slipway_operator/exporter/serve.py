"""``serve``: answers a runtime's requests with the original model, for models that cannot be ONNX.

Two processes, as everything that a project's code can do must be survived: this one, which uses
the standard library alone, starts a second one that loads the model and answers, and starts it
again whenever it ends, later each time it ends soon. The second one is ended by a watchdog of the
interpreter, which needs no help from Python code, when a prediction takes longer than the request
allows; and it ends by itself, between two requests, when it has grown beyond its limit of memory.

The runtime and its messages are described in ``docs/worker-protocol.md``.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import Failure
from .model_answers import answering
from .train import usable_processors
from .wire import Channel, Closed

VARIABLE = "SLIPWAY_WORKER"
_GRACE_SECONDS = 0.5
"""What a prediction may take beyond the runtime's patience: the runtime should be the first to give up."""
_LONG_LIFE_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """What the pod says, in ``SLIPWAY_WORKER`` as JSON."""

    socket: Path
    """Where to listen; files of large tensors lie beside it."""
    model: Path
    signature: Path
    function: str | None
    """``module:function`` of the project that answers instead of the model's own methods."""
    memory_bytes: int
    """Resident size at which the second process is replaced; 0: never."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read them.

        Raises:
            Failure: ``RequestInvalid``, if they are not as this class says.
        """
        try:
            raw = json.loads(os.environ[VARIABLE])
            return cls(
                socket=Path(raw["socket"]),
                model=Path(raw["model"]),
                signature=Path(raw["signature"]),
                function=raw.get("function"),
                memory_bytes=int(raw.get("memoryBytes", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Failure("RequestInvalid", f"{VARIABLE} is not as it should be: {error!r}.") from error


def main() -> int:
    """Run the first process, or the second one in it."""
    if os.environ.get("SLIPWAY_WORKER_ROLE") == "answer":
        return _answer(Settings.from_environment())
    return _supervise()


def _supervise() -> int:
    """Keep one answering process alive until told to stop."""
    stopping = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def stop(_number: int, _frame: Any) -> None:
        stopping.set()
        for process in current:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    pause = 0.0
    while not stopping.is_set():
        began = time.monotonic()
        environment = {**_threads(), **os.environ, "SLIPWAY_WORKER_ROLE": "answer"}
        process = subprocess.Popen([sys.executable, sys.argv[0], "serve"], env=environment)
        current[:] = [process]
        if stopping.is_set():
            process.terminate()
        status = process.wait()
        if stopping.is_set():
            break
        lived = time.monotonic() - began
        pause = 0.0 if lived > _LONG_LIFE_SECONDS else min(max(2 * pause, 0.1), _LONGEST_PAUSE_SECONDS)
        _say(f"the worker ended with status {status} after {lived:.1f} s; another begins in {pause:.1f} s")
        stopping.wait(pause)
    return 0


def _threads() -> dict[str, str]:
    """Say how many processors there are to those who would count the node's, unless the pod says otherwise."""
    count = str(usable_processors())
    # Threads that spin while they wait take the time of the runtime beside them.
    return {"OMP_NUM_THREADS": count, "LOKY_MAX_CPU_COUNT": count, "OMP_WAIT_POLICY": "PASSIVE"}


def _say(what: str) -> None:
    print(f"worker: {what}", file=sys.stderr, flush=True)  # noqa: T201 - the container's log


def _answer(settings: Settings) -> int:
    """Load, listen, and answer until this process should be replaced."""
    try:
        answer = answering(settings.model, settings.signature, settings.function)
    except Failure as failure:
        _say(failure.message)
        return 1
    except Exception:  # noqa: BLE001 - a project's code may raise anything
        _say(traceback.format_exc())
        return 1
    # It listens when it can answer, and not before: to be connected is to be ready.
    fresh = settings.socket.with_name(settings.socket.name + ".new")
    fresh.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(fresh))
        fresh.chmod(0o660)
        listener.listen(64)
        for old in settings.socket.parent.glob("worker-*"):
            old.unlink(missing_ok=True)  # files of a process that is no more
        fresh.replace(settings.socket)
        turn = threading.Lock()
        number = 0
        while True:
            connection, _ = listener.accept()
            number += 1
            channel = Channel(connection, settings.socket.parent, number)
            threading.Thread(target=_serve, args=(channel, answer, turn, settings), daemon=True).start()


def _serve(channel: Channel, answer: Callable[..., Any], turn: threading.Lock, settings: Settings) -> None:
    """Answer one connection, one request after the other; models are asked by one thread at a time."""
    try:
        while True:
            header, raw = channel.receive()
            with turn:
                # Ends the process from a thread of the interpreter's own, even if the model holds its lock.
                faulthandler.dump_traceback_later(float(header["timeout"]) + _GRACE_SECONDS, exit=True)
                try:
                    outputs, parts = answer(header, raw)
                    reply: dict[str, Any] = {"id": header.get("id"), "outputs": outputs}
                except (Exception, SystemExit) as error:  # noqa: BLE001 - a project's code may raise anything
                    _say(traceback.format_exc())
                    reply, parts = {"id": header.get("id"), "error": type(error).__name__}, []
                finally:
                    faulthandler.cancel_dump_traceback_later()
            del raw  # what is mapped is memory of the pod for as long
            channel.send(reply, parts)
            del parts
            _end_if_grown(settings.memory_bytes)
    except (Closed, OSError, ValueError, KeyError):
        pass
    finally:
        channel.close()  # or the runtime would wait for an answer until its patience ends


def _end_if_grown(limit: int) -> None:
    if limit and _resident_bytes() > limit:
        _say(f"it has grown beyond {limit} bytes and is replaced")
        os._exit(0)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
