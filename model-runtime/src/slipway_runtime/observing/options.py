"""What is noticed when asked for: access log, traces, records. Nothing of it is imported before."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway_runtime.errors import CannotServe
from slipway_runtime.metrics import Metrics
from slipway_runtime.observing.watching import Listener
from slipway_runtime.protocol.signature import Signature

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True)
class Observers:
    """What takes finished requests, in one process."""

    listeners: tuple[Listener, ...] = ()
    recorder: Recorder | None = None
    closers: tuple[Callable[[], None], ...] = ()

    def close(self) -> None:
        """Write and send what waits."""
        for close in self.closers:
            close()


def observers(options: ObservingOptions, signature: Signature, metrics: Metrics) -> Observers:
    """Make what is asked for; after a fork, as each has a thread.

    Raises:
        CannotServe: If it cannot be as it is asked for.
    """
    listeners: list[Listener] = []
    closers: list[Callable[[], None]] = []
    recorder = None
    if options.access_log:
        from slipway_runtime.observing.access_log import AccessLog  # noqa: PLC0415 -- only where asked for

        log = AccessLog(functools.partial(metrics.count, "slipway_lost_total", what="access_log"))
        listeners.append(log)
        closers.append(log.close)
    if options.trace:
        from slipway_runtime.observing.tracing import Tracing  # noqa: PLC0415 -- as above

        # Its own complaints about a collector that is away are for nobody's alarm.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        names = {"model": metrics.model, "content": metrics.content}
        lost = functools.partial(metrics.count, "slipway_lost_total", what="trace")
        tracing = Tracing(names, options.trace_endpoint, options.trace_ratio, lost)
        listeners.append(tracing)
        closers.append(tracing.close)
    if options.record_to:
        recorder = _recorder(options, signature, metrics)
        listeners.append(recorder)
        closers.append(recorder.close)
    return Observers(tuple(listeners), recorder, tuple(closers))


def _recorder(options: ObservingOptions, signature: Signature, metrics: Metrics) -> Recorder:
    from slipway_runtime.observing.recording import Recorder, recorded_parts, recorder_name  # noqa: PLC0415 -- only where asked for
    from slipway_runtime.observing.sinks import sink_for  # noqa: PLC0415 -- as above

    def count(outcome: str, number: int) -> None:
        metrics.count("slipway_records_total", number, outcome=outcome)

    try:
        return Recorder(
            recorded_parts(signature, frozenset(options.redacted)),
            metrics.content,
            sink_for(options.record_to, who=recorder_name(), most=options.record_bytes),
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
    group.add_argument("--record-to", default="", help="a folder or http(s) address for requests with their answers")
    group.add_argument("--record-ratio", type=_share, default=1.0, help="share of requests (default %(default)s)")
    group.add_argument(
        "--record-bytes", type=int, default=256 << 20, help="what a folder keeps at most (default %(default)s)"
    )
    group.add_argument("--redact", action="append", default=[], metavar="COLUMN", help="leave a column out of records")


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
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share is from 0 to 1")
    return value
