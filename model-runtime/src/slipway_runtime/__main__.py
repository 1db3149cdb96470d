"""``python -m slipway_runtime``: serve one model."""

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
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import ModelOptions, WorkerOptions, load_model
from slipway_runtime.observing.options import add_arguments, observing_options
from slipway_runtime.security.tls import Tls, TlsFiles
from slipway_runtime.server import ServerOptions, serve

_log = logging.getLogger("slipway_runtime")

_TERMINATION_LOG = Path("/dev/termination-log")
"""Where the kubelet looks for a container's last words."""


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    """Make an argument's type: text of one form."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
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
        prog="slipway-runtime", description="Serve one model over the Open Inference Protocol."
    )
    name = _matching(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", "letters, digits, '.', '_' and '-' only")
    digest = _matching(r"sha256:[0-9a-f]{64}", "sha256: and 64 hexadecimal digits")
    parser.add_argument(
        "--model-dir", type=Path, required=True, help="folder with model.onnx, signature.json, examples.json"
    )
    parser.add_argument("--name", type=name, required=True, help="the model's name in the protocol")
    parser.add_argument(
        "--version", type=name, required=True, help="the content's short digest; comes back as model_version"
    )
    parser.add_argument("--model-digest", type=digest, required=True, help="digest that model.onnx must have")
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


def _tls(arguments: argparse.Namespace) -> TlsFiles | None:
    if arguments.tls_cert is None and arguments.tls_key is None and arguments.tls_client_ca is None:
        return None
    if arguments.tls_cert is None or arguments.tls_key is None:
        raise CannotServe("--tls-cert and --tls-key belong together; --tls-client-ca needs both")
    files = TlsFiles(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
    Tls(files)  # said here and once, not by each worker
    return files


def main() -> int:
    """Serve until told to stop; 1 with a sentence if the model must not be served."""
    arguments = _parser().parse_args()
    log_as_json(model=arguments.name, content=arguments.version)
    metrics = Metrics(arguments.name, arguments.version)
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
    try:
        tls = _tls(arguments)
        model = load_model(options, metrics)
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
        observing=observing_options(arguments),
        tls=tls,
        api_keys=arguments.api_keys,
        probe_port=arguments.probe_port,
    )
    _log.info("slipway-runtime %s serves %s", __version__, arguments.model_digest)
    try:
        if arguments.workers > 1:
            from slipway_runtime.prefork.run import serve_by  # noqa: PLC0415 -- most pods have one process

            return serve_by(arguments.workers, model, metrics, server)
        uvloop.run(serve(model, metrics, server))
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
