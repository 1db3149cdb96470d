"""``python -m slipway_runtime``: serve one model, or several."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from slipway_runtime import __version__
from slipway_runtime.dataplane import PlaneLimits
from slipway_runtime.errors import CannotServe
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.http.limits import HttpLimits
from slipway_runtime.logs import log_as_json
from slipway_runtime.memory import share_one_heap
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model, ModelOptions, WorkerOptions, load_model
from slipway_runtime.observing.options import add_arguments, observing_options
from slipway_runtime.security.keys import ApiKeys
from slipway_runtime.security.tls import Tls, TlsFiles
from slipway_runtime.server import ServerOptions, serve
from slipway_runtime.several.listing import DIGEST, NAME, read_listing
from slipway_runtime.several.metrics import metrics_of

_log = logging.getLogger("slipway_runtime")

_TERMINATION_LOG = Path("/dev/termination-log")
"""Where the kubelet looks for a container's last words."""


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    """Make an argument's type: text of one form."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise argparse.ArgumentTypeError(what)
        return value

    return check


def _count(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64")
    return int(value)


def _above_zero(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= 1_000_000_000:
        raise argparse.ArgumentTypeError("a number from 1 to 1000000000")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slipway-runtime", description="Serve one model, or several, over the Open Inference Protocol."
    )
    name = _matching(NAME, "letters, digits, '.', '_' and '-' only")
    one = parser.add_argument_group("one model")
    one.add_argument("--model-dir", type=Path, help="folder with model.onnx, signature.json, examples.json")
    one.add_argument("--name", type=name, help="the model's name in the protocol")
    one.add_argument("--version", type=name, help="the content's short digest; comes back as model_version")
    one.add_argument(
        "--model-digest",
        type=_matching(DIGEST, "sha256: and 64 hexadecimal digits"),
        help="digest that model.onnx must have",
    )
    parser.add_argument("--models", type=Path, help="several models: a file of JSON that names them (docs/runtime.md)")
    parser.add_argument("--host", default="", help="address to listen on; all of them if not given")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default %(default)s)")
    parser.add_argument(
        "--grpc-port", type=int, help="port for gRPC; 0: none (default 8081, and none if --port is not 8080)"
    )
    parser.add_argument(
        "--workers", type=_count, default=1, help="processes that share the loaded model (default %(default)s)"
    )
    worker = parser.add_argument_group("a model that is not ONNX (docs/worker-protocol.md)")
    worker.add_argument("--worker-socket", type=Path, help="socket of the worker that answers")
    worker.add_argument(
        "--worker-model", default="model.joblib", help="file that the worker loads (default %(default)s)"
    )
    worker.add_argument("--worker-seconds", type=float, default=30.0, help="of a prediction (default %(default)s)")
    worker.add_argument(
        "--worker-start-seconds", type=float, default=300.0, help="until it has loaded (default %(default)s)"
    )
    parser.add_argument("--max-body-bytes", type=int, default=HttpLimits().body_bytes, help="(default %(default)s)")
    parser.add_argument("--max-rows", type=int, default=65_536, help="rows of one request (default %(default)s)")
    parser.add_argument(
        "--watched-features",
        type=int,
        default=100,
        help="columns whose values are counted; 0: none (default %(default)s)",
    )
    parser.add_argument(
        "--queue-requests",
        type=_above_zero,
        default=PlaneLimits().queue_requests,
        help="requests that wait for the model (default %(default)s)",
    )
    parser.add_argument(
        "--connections",
        type=_above_zero,
        default=HttpLimits().connections,
        help="open connections, of HTTP and of gRPC (default %(default)s)",
    )
    parser.add_argument(
        "--connection-seconds",
        type=_above_zero,
        default=int(HttpLimits().connection_seconds),
        help="age at which a connection is closed with an answer (default %(default)s)",
    )
    parser.add_argument("--batch-rows", type=int, default=64, help="rows that run together (default %(default)s)")
    parser.add_argument(
        "--drain-seconds", type=float, default=6.0, help="how long to answer after SIGTERM (default %(default)s)"
    )
    group = parser.add_argument_group("who may ask; all files are read again when they change")
    group.add_argument("--tls-cert", type=Path, help="certificate, with its chain, in PEM")
    group.add_argument("--tls-key", type=Path, help="its key")
    group.add_argument("--tls-client-ca", type=Path, help="who must have signed the certificates of clients")
    group.add_argument("--api-keys", type=Path, help="keys, one a line, of which callers must show one")
    group.add_argument("--probe-port", type=int, help="port for health and metrics alone, without TLS and keys")
    add_arguments(parser)
    return parser


def _arguments() -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args()
    own = {"--model-dir": "model_dir", "--name": "name", "--version": "version", "--model-digest": "model_digest"}
    given = [name for name, place in own.items() if getattr(arguments, place) is not None]
    if arguments.models is not None and (given or arguments.worker_socket is not None):
        parser.error(f"--models says all of it; leave {(given or ['--worker-socket'])[0]} out")
    if arguments.models is None and len(given) < len(own):
        parser.error(f"{', '.join(own)} are needed, or --models")
    return arguments


def _asked_for(arguments: argparse.Namespace) -> list[ModelOptions]:
    """Say which models are to be served."""
    options = ModelOptions(
        folder=arguments.model_dir,
        name=arguments.name,
        version=arguments.version,
        digest=arguments.model_digest,
        max_rows=arguments.max_rows,
        watched_features=arguments.watched_features,
        plane=PlaneLimits(batch_rows=arguments.batch_rows, queue_requests=arguments.queue_requests),
        worker=_worker(arguments),
    )
    return [options] if arguments.models is None else read_listing(arguments.models, options)


def _loaded(asked_for: list[ModelOptions]) -> tuple[list[Model], Metrics]:
    models = []
    for options in asked_for:
        try:
            models.append(load_model(options, Metrics(options.name, options.version)))
        except CannotServe as error:
            raise CannotServe(error.message if len(asked_for) == 1 else f"{options.name}: {error.message}") from None
    return models, metrics_of([model.metrics for model in models])


def _tls(arguments: argparse.Namespace) -> TlsFiles | None:
    if arguments.tls_cert is None and arguments.tls_key is None and arguments.tls_client_ca is None:
        return None
    if arguments.tls_cert is None or arguments.tls_key is None:
        raise CannotServe("--tls-cert and --tls-key belong together; --tls-client-ca needs both")
    files = TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
    Tls(files)  # said here and once, not by each worker
    return files


def _api_keys(arguments: argparse.Namespace) -> Path | None:
    path: Path | None = arguments.api_keys
    if path is not None:
        ApiKeys(path)  # as above
    return path


def main() -> int:
    """Serve until told to stop; 1 with a sentence if the model must not be served."""
    arguments = _arguments()
    share_one_heap()
    if arguments.models is None:
        log_as_json(model=arguments.name, content=arguments.version)
    else:
        log_as_json()
    try:
        tls, api_keys, observing = _tls(arguments), _api_keys(arguments), observing_options(arguments)
        models, metrics = _loaded(_asked_for(arguments))
    except CannotServe as error:
        return _gave_up(error.message)
    server = ServerOptions(
        host=arguments.host,
        port=arguments.port,
        grpc_port=_grpc_port(arguments),
        drain_seconds=arguments.drain_seconds,
        limits=HttpLimits(
            body_bytes=arguments.max_body_bytes,
            connections=arguments.connections,
            connection_seconds=arguments.connection_seconds,
        ),
        grpc_limits=GrpcLimits(
            message_bytes=arguments.max_body_bytes,
            connections=arguments.connections,
            connection_seconds=arguments.connection_seconds,
        ),
        observing=observing,
        tls=tls,
        api_keys=api_keys,
        probe_port=arguments.probe_port,
    )
    for model in models:
        _log.info("slipway-runtime %s serves %s", __version__, f"{model.name} {model.version} {model.digest}")
    try:
        if arguments.workers > 1:
            from slipway_runtime.prefork.run import serve_by  # noqa: PLC0415 -- most pods have one process

            return serve_by(arguments.workers, models, metrics, server)
        uvloop.run(serve(models, metrics, server))
    except CannotServe as error:
        return _gave_up(error.message)
    except OSError as error:
        return _gave_up(f"{error.filename} cannot be listened on: {error.strerror}")
    return 0


def _grpc_port(arguments: argparse.Namespace) -> int | None:
    if arguments.grpc_port is None:
        # Who runs several on one machine chooses their ports; a second one that is taken would only surprise.
        return 8081 if arguments.port == 8080 else None
    return int(arguments.grpc_port) or None


def _worker(arguments: argparse.Namespace) -> WorkerOptions | None:
    if arguments.worker_socket is None:
        return None
    return WorkerOptions(
        arguments.worker_socket, arguments.worker_model, arguments.worker_seconds, arguments.worker_start_seconds
    )


def _gave_up(reason: str) -> int:
    """Say why nothing is served where a person looks first: the log, and the pod's status."""
    _log.error(reason)
    with contextlib.suppress(OSError):
        if os.getpid() == 1:
            _TERMINATION_LOG.write_text(reason[:4096], encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
