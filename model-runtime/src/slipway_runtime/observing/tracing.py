"""OpenTelemetry traces, when asked for: a span for each request that is traced, with its steps inside.

A caller's ``traceparent`` (https://www.w3.org/TR/trace-context/) decides whether its request is
traced; without one a share of them is. Spans are made in a thread of their own, and OTLP/HTTP is
spoken by OpenTelemetry's; its SDK is imported with this module, and so only where traces are asked for.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from slipway_runtime import __version__
from slipway_runtime.observing.background import Background
from slipway_runtime.observing.watching import Finished
from slipway_runtime.several.endpoint import model_of

_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_WAITING = 2000


class _Traced(NamedTuple):
    """A finished request; times in nanoseconds of the wall clock."""

    parent: tuple[int, int] | None
    name: str
    attributes: dict[str, str | int]
    began: int
    ended: int
    steps: list[tuple[str, int, int]]
    failed: bool


class Tracing:
    """Takes finished requests and sends their spans."""

    def __init__(self, names: dict[str, str], endpoint: str | None, ratio: float, dropped: Callable[[], None]) -> None:
        """Prepare.

        Args:
            names: What every span carries: model and content; of several models no content.
            endpoint: Where the collector takes OTLP/HTTP traces; None: as OpenTelemetry's environment variables say.
            ratio: Share of requests without ``traceparent`` that are traced.
            dropped: Called for each request that there was no room for.
        """
        self._ratio = ratio
        self._dropped = dropped
        content = {"service.version": names["content"], "slipway.content": names["content"]} if names["content"] else {}
        resource = Resource.create({"service.name": names["model"], **content})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        self._tracer = self._provider.get_tracer("slipway-runtime", __version__)
        self._background: Background[_Traced] = Background(self._spans, most=_WAITING, name="slipway-tracing")

    def __call__(self, finished: Finished) -> None:
        """Take one request."""
        request, timeline, status, size, ended = finished
        found = _PARENT.fullmatch(request.headers.get(b"traceparent", b""))
        if found is not None:
            if not int(found[3], 16) & 1:
                return
        elif random.random() >= self._ratio:  # noqa: S311 -- which requests are looked at is no secret
            return
        offset = time.time_ns() - int(perf_counter() * 1e9)

        def at(seconds: float) -> int:
            return offset + int(seconds * 1e9)

        steps: list[tuple[str, int, int]] = []
        if timeline.run_ended:
            moments = (timeline.begun, timeline.queued, timeline.run_began, timeline.run_ended, ended)
            names = ("parse", "queue", "run", "encode")
            steps = [(name, at(moments[place]), at(moments[place + 1])) for place, name in enumerate(names)]
        attributes: dict[str, str | int] = {
            "http.request.method": request.method.decode("latin-1"),
            "http.response.status_code": status,
            "http.response.body.size": size,
            "slipway.endpoint": request.endpoint,
            "slipway.request_id": request.request_id,
            "slipway.rows": timeline.rows,
        }
        if model := model_of(request.endpoint):
            attributes["slipway.model"] = model
        traced = _Traced(
            parent=None if found is None else (int(found[1], 16), int(found[2], 16)),
            name=request.endpoint,
            attributes=attributes,
            began=at(request.started),
            ended=at(ended),
            steps=steps,
            failed=status >= 500,
        )
        if not self._background.put(traced):
            self._dropped()

    def _spans(self, requests: list[_Traced]) -> None:
        for one in requests:
            context = None
            if one.parent is not None:
                outside = trace.SpanContext(*one.parent, is_remote=True, trace_flags=trace.TraceFlags(1))
                context = trace.set_span_in_context(trace.NonRecordingSpan(outside))
            span = self._tracer.start_span(
                one.name, context, trace.SpanKind.SERVER, attributes=one.attributes, start_time=one.began
            )
            inside = trace.set_span_in_context(span)
            for name, began, ended in one.steps:
                self._tracer.start_span(name, inside, start_time=began).end(ended)
            if one.failed:
                span.set_status(trace.StatusCode.ERROR)
            span.end(one.ended)

    def close(self) -> None:
        """Send what waits, and end."""
        self._background.close(2.0)
        self._provider.shutdown()
