"""What is noticed when asked for: access log, traces, records. Nothing of it is imported before."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slipway_runtime.errors import CannotServe
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.watching import Finished, Listener
from slipway_runtime.protocol.signature import Signature
from slipway_runtime.several.endpoint import model_of

if TYPE_CHECKING:
    from slipway_runtime.observing.bucket import BucketOptions
    from slipway_runtime.observing.recording import Recorder


@dataclass(frozen=True, slots=True)
class ObservingOptions:
    """What is asked for; by default nothing."""

    access_log: bool = False
    trace: bool = False
    trace_endpoint: str | None = None
    trace_ratio: float = 0.01
    record_to: str = ""
    record_ratio: float = 1.0
    record_bytes: int = 256 << 20
    redacted: tuple[str, ...] = ()
    bucket: BucketOptions | None = None
    """How a bucket is reached; None: by AWS's usual environment variables."""


@dataclass(frozen=True, slots=True)
class Observers:
    """What takes finished requests, in one process."""

    listeners: tuple[Listener, ...] = ()
    recorders: dict[str, Recorder] = field(default_factory=dict)
    """By the model's name."""
    closers: tuple[Callable[[], None], ...] = ()

    def close(self) -> None:
        """Write and send what waits."""
        # At once, as each may have to wait a few seconds for whoever takes what it has.
        with ThreadPoolExecutor(max_workers=max(1, len(self.closers))) as together:
            for done in [together.submit(close) for close in self.closers]:
                done.result()


def observers(options: ObservingOptions, models: Sequence[tuple[Signature, Metrics]], metrics: Metrics) -> Observers:
    """Make what is asked for; after a fork, as each has a thread.

    Args:
        options: What is asked for.
        models: Each model's signature and numbers.
        metrics: The server's numbers; of one model its own.

    Raises:
        CannotServe: If it cannot be as it is asked for.
    """
    listeners: list[Listener] = []
    closers: list[Callable[[], None]] = []
    recorders: dict[str, Recorder] = {}
    if options.access_log:
        from slipway_runtime.observing.access_log import AccessLog  # noqa: PLC0415 -- only where asked for

        log = AccessLog(functools.partial(metrics.count, "slipway_lost_total", what="access_log"))
        listeners.append(log)
        closers.append(log.close)
    if options.trace:
        from slipway_runtime.observing.tracing import Tracing  # noqa: PLC0415 -- as above

        # Its own complaints about a collector that is away are for nobody's alarm.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        names = {"model": metrics.model or "slipway-runtime", "content": metrics.content}
        lost = functools.partial(metrics.count, "slipway_lost_total", what="trace")
        tracing = Tracing(names, options.trace_endpoint, options.trace_ratio, lost)
        listeners.append(tracing)
        closers.append(tracing.close)
    if options.record_to:
        from slipway_runtime.observing.recording import unknown_columns  # noqa: PLC0415 -- as above

        if unknown := unknown_columns([signature for signature, _ in models], frozenset(options.redacted)):
            raise CannotServe(f"there is no column {', '.join(unknown)} to be redacted")
        recorders = {
            own.model: _recorder(options, signature, own, several=len(models) > 1) for signature, own in models
        }
        listeners.append(_by_model(recorders))
        closers += [recorder.close for recorder in recorders.values()]
    return Observers(tuple(listeners), recorders, tuple(closers))


def _by_model(recorders: dict[str, Recorder]) -> Listener:
    if len(recorders) == 1:
        return next(iter(recorders.values()))

    def take(finished: Finished) -> None:
        if (recorder := recorders.get(model_of(finished.request.endpoint))) is not None:
            recorder(finished)

    return take


def _recorder(options: ObservingOptions, signature: Signature, metrics: Metrics, *, several: bool) -> Recorder:
    from slipway_runtime.observing.recording import Recorder, recorded_parts, recorder_name  # noqa: PLC0415 -- only where asked for
    from slipway_runtime.observing.sinks import sink_for  # noqa: PLC0415 -- as above

    def count(outcome: str, number: int) -> None:
        metrics.count("slipway_records_total", number, outcome=outcome)

    try:
        return Recorder(
            recorded_parts(signature, frozenset(options.redacted)),
            metrics.content,
            sink_for(
                options.record_to,
                model=metrics.model,
                who=f"{recorder_name()}-{metrics.model}" if several else recorder_name(),
                most=options.record_bytes,
                bucket=options.bucket,
            ),
            options.record_ratio,
            count,
        )
    except ValueError as error:
        raise CannotServe(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that ask for it."""
    group = parser.add_argument_group("observing, when asked for")
    group.add_argument("--access-log", action="store_true", help="a line of JSON for each request, on standard output")
    group.add_argument("--trace", action="store_true", help="OpenTelemetry traces over OTLP/HTTP")
    group.add_argument("--trace-endpoint", help="the collector's address; as OTEL_EXPORTER_OTLP_* say if not given")
    group.add_argument(
        "--trace-ratio", type=_share, default=0.01, help="share of requests without traceparent (default %(default)s)"
    )
    group.add_argument(
        "--record-to",
        default="",
        help="a folder, http(s) address or bucket (s3://<bucket>/<prefix>) for requests with their answers",
    )
    group.add_argument("--record-ratio", type=_share, default=1.0, help="share of requests (default %(default)s)")
    group.add_argument(
        "--record-bytes", type=int, default=256 << 20, help="what a folder keeps at most (default %(default)s)"
    )
    group.add_argument("--redact", action="append", default=[], metavar="COLUMN", help="leave a column out of records")
    bucket = parser.add_argument_group("the bucket; what is not given is as AWS_… in the environment say")
    bucket.add_argument("--record-endpoint", help="address of an object store that is not AWS's")
    bucket.add_argument("--record-region", help="its region")
    bucket.add_argument(
        "--record-credentials", type=Path, help="folder with the files AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    bucket.add_argument("--record-ca", type=Path, help="authorities that are trusted beside the system's, in PEM")


def observing_options(arguments: argparse.Namespace) -> ObservingOptions:
    """Read them."""
    return ObservingOptions(
        access_log=arguments.access_log,
        trace=arguments.trace,
        trace_endpoint=arguments.trace_endpoint,
        trace_ratio=arguments.trace_ratio,
        record_to=arguments.record_to,
        record_ratio=arguments.record_ratio,
        record_bytes=arguments.record_bytes,
        redacted=tuple(arguments.redact),
        bucket=_bucket(arguments),
    )


def _bucket(arguments: argparse.Namespace) -> BucketOptions | None:
    own = {
        "endpoint": arguments.record_endpoint,
        "region": arguments.record_region,
        "credentials": arguments.record_credentials,
        "ca": arguments.record_ca,
    }
    if not any(own.values()):
        return None
    if not arguments.record_to.startswith("s3://"):
        raise CannotServe("--record-endpoint, -region, -credentials and -ca are for --record-to s3://<bucket>/<prefix>")
    from slipway_runtime.observing.bucket import BucketOptions  # noqa: PLC0415 -- 15 MB, where asked for

    return BucketOptions(**own)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share is from 0 to 1")
    return value
