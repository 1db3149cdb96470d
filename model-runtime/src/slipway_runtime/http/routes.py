"""From a request's target to what answers it."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from slipway_runtime import __version__
from slipway_runtime.dataplane import Outcome
from slipway_runtime.errors import InvalidRequest, Overloaded, SlipwayRuntimeError, TooLarge, UnknownModel
from slipway_runtime.http.answers import JSON, Answer, answer_to, failure, ok
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.known import Shortcut
from slipway_runtime.http.usual import UsualInfer
from slipway_runtime.metrics import CONTENT_TYPE, Metrics
from slipway_runtime.model import Model
from slipway_runtime.protocol.answers import model_metadata, server_metadata
from slipway_runtime.protocol.feedback import read_feedback
from slipway_runtime.protocol.packing import LARGE
from slipway_runtime.protocol.requests import EXAMPLE, RequestedOutput, decode_infer, infer_of, json_of
from slipway_runtime.protocol.tables import wants_table

if TYPE_CHECKING:
    from slipway_runtime.http.page import Page
    from slipway_runtime.observing.recording import Recorder

_log = logging.getLogger(__name__)

_TRUTHS = 65_536
_CSV = b"text/csv; charset=utf-8; header=present"
_VARY = b"vary: accept\r\n"
_UNUSUAL = (b"x-request-timeout", b"content-encoding", b"inference-header-content-length")

Handler = Callable[[Exchange], None]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a target, and to which methods."""

    endpoint: str
    methods: dict[bytes, Handler]

    @property
    def allow(self) -> bytes:
        """The methods as an ``Allow`` header line."""
        names = list(self.methods) + ([b"HEAD"] if b"GET" in self.methods else [])
        return b"allow: " + b", ".join(names) + b"\r\n"


class Router:
    """Answers requests for one model."""

    def __init__(self, model: Model, metrics: Metrics, *, max_body: int) -> None:
        self._model = model
        self._metrics = metrics
        self._max_body = max_body
        self._usual = UsualInfer(model.packer, model.plane, model.writer, metrics)
        self.ready = False
        """Whether this pod wants requests; the server says so."""
        self.recorder: Recorder | None = None
        """Where feedback goes, if anything is recorded."""
        self._page: Page | None = None
        self._routes = self._table()

    def _table(self) -> dict[bytes, Route]:
        name, version = self._model.name, self._model.version
        metadata = ok(model_metadata(self._model.signature, name, version))
        base = b"/v2/models/" + name.encode()
        routes = {
            b"/v2": _get("metadata", lambda _: ok(server_metadata(__version__))),
            b"/v2/health/live": _get("health", lambda _: ok({"live": True})),
            b"/v2/health/ready": _get("health", self._readiness),
            b"/metrics": _get("metrics", lambda _: Answer(200, self._metrics.render(), CONTENT_TYPE)),
            b"/": _get("page", self._shown),
            b"/openapi.json": _get("metadata", self._described),
            b"/feedback": Route("feedback", {b"POST": self._feedback}),
            b"/predict": Route("predict", {b"POST": self._predict}),
        }
        for prefix in (base, base + b"/versions/" + version.encode()):
            routes[prefix] = _get("metadata", lambda _: metadata)
            routes[prefix + b"/ready"] = _get("health", self._model_readiness)
            routes[prefix + b"/feedback"] = Route("feedback", {b"POST": self._feedback})
            routes[prefix + b"/infer"] = Route("infer", {b"POST": self._infer})
        return routes

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later; errors become answers."""
        try:
            route = self._routes.get(exchange.target) or self._find(exchange.target)
            exchange.endpoint = route.endpoint
            handler = route.methods.get(exchange.method)
            if handler is None and exchange.method == b"HEAD":
                handler = route.methods.get(b"GET")
            if handler is not None:
                if b"x-request-timeout" in exchange.headers:
                    exchange.deadline = exchange.started + _timeout(exchange.headers[b"x-request-timeout"])
                handler(exchange)
                return
            allowed = ", ".join(name.decode() for name in route.methods)
            exchange.finish(failure(405, f"this path takes {allowed}", route.allow))
        except SlipwayRuntimeError as error:
            self._metrics.failed(type(error).__name__)
            exchange.finish(answer_to(error))
        except Exception:  # noqa: BLE001 -- a bug must cost one request, not the connection
            _log.exception("a request could not be answered")
            exchange.finish(failure(500, "the runtime failed on this request"))

    def shortcut(self, exchange: Exchange) -> Shortcut | None:
        """Give what answers infer requests whose head is that of this one, if it asks for nothing unusual."""
        route = self._routes.get(exchange.target)
        usual = route is not None and route.methods.get(exchange.method) == self._infer
        return self._usual.take_body if usual and exchange.headers.keys().isdisjoint(_UNUSUAL) else None

    def _find(self, target: bytes) -> Route:
        """Find a route for a target that is not written exactly as the route is."""
        path = target
        if path[:7].lower() == b"http://":  # as a client writes it to a proxy
            path = b"/" + path[7:].partition(b"/")[2]
        path = unquote_to_bytes(path.partition(b"?")[0])
        route = self._routes.get(path) or self._routes.get(path.rstrip(b"/"))
        if route is not None:
            return route
        parts = path.split(b"/")
        if parts[:3] == [b"", b"v2", b"models"] and len(parts) > 3:
            if parts[3] != self._model.name.encode():
                raise UnknownModel(f'there is no model of that name here; this is "{self._model.name}"')
            if parts[4:5] == [b"versions"] and parts[5:6] != [self._model.version.encode()]:
                raise UnknownModel(f'this model is not here in that version; this is "{self._model.version}"')
        raise UnknownModel("there is nothing at this path; GET /v2 or POST /predict are a beginning")

    def _readiness(self, _: Exchange) -> Answer:
        if self._would_answer:
            return ok({"ready": True})
        why = "the model's worker is away" if self.ready else "this pod is not ready, or stopping"
        return failure(503, why, b"retry-after: 1\r\n")

    def _model_readiness(self, _: Exchange) -> Answer:
        ready = self._would_answer
        document = {"name": self._model.name, "ready": ready}
        return ok(document) if ready else Answer(503, ok(document).body)

    @property
    def _would_answer(self) -> bool:
        return self.ready and self._model.plane.is_ready

    def _shown(self, exchange: Exchange) -> Answer:
        # Made when somebody asks: most pods are never looked at.
        from slipway_runtime.http.page import CONTENT_TYPE as HTML  # noqa: PLC0415 -- as above
        from slipway_runtime.http.page import Page  # noqa: PLC0415

        if self._page is None:
            model = self._model
            self._page = Page(model.signature, model.name, model.version, model.example)
        return Answer(200, self._page.render(exchange.headers.get(b"host")), HTML, self._page.headers)

    def _described(self, _: Exchange) -> Answer:
        from slipway_runtime.protocol.openapi import openapi  # noqa: PLC0415 -- as above

        model = self._model
        return ok(openapi(model.signature, model.name, model.version, model.example))

    def _infer(self, exchange: Exchange) -> None:
        model = self._model
        headers = exchange.headers
        body = self._body(exchange)
        json_length = _json_length(headers)
        if json_length is None:
            if len(body) >= LARGE and self._usual.take_large(exchange, body):
                return
            document = json_of(body, EXAMPLE)
            if self._usual.take(exchange, document):
                return
            request = infer_of(document)
        else:
            request = decode_infer(body, json_length)
        model.writer.check(request.outputs)
        feeds, rows = model.aligner.align(request.inputs)
        done = _InferAnswer(self, exchange, request.id, request.outputs, binary=request.binary)
        exchange.work = model.plane.submit(feeds, rows, done, exchange.timeline, deadline=exchange.deadline)

    def answer_infer(
        self,
        exchange: Exchange,
        request_id: str | None,
        outputs: tuple[RequestedOutput, ...] | None,
        arrays: Outcome,
        *,
        binary: bool,
    ) -> Answer:
        """Write the answer to an infer request."""
        if isinstance(arrays, SlipwayRuntimeError):
            return answer_to(arrays)
        encoded = self._model.writer.write(
            exchange.request_id if request_id is None else request_id, arrays, outputs, binary=binary
        )
        if encoded.json_length is None:
            return Answer(200, encoded.body)
        header = b"inference-header-content-length: %d\r\n" % encoded.json_length
        return Answer(200, encoded.body, b"application/octet-stream", header)

    def _predict(self, exchange: Exchange) -> None:
        model = self._model
        headers, body = exchange.headers, self._body(exchange)
        is_table = headers.get(b"content-type", JSON).lower().startswith(b"text/csv")
        as_table = wants_table(headers.get(b"accept", b""))
        feeds, rows = model.aligner.align(model.rows.read_table(body) if is_table else model.rows.read(body))

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, SlipwayRuntimeError):
                exchange.finish(answer_to(outcome))
            elif as_table:
                exchange.finish(Answer(200, model.objects.write_table(outcome), _CSV, _VARY))
            else:
                exchange.finish(Answer(200, model.objects.write(exchange.request_id, outcome)))

        exchange.work = model.plane.submit(feeds, rows, done, exchange.timeline, deadline=exchange.deadline)

    def _feedback(self, exchange: Exchange) -> None:
        if self.recorder is None:
            raise UnknownModel("feedback is not recorded here; the runtime's --record-to says where to")
        feedback = read_feedback(self._body(exchange), max_rows=_TRUTHS)
        if not self.recorder.take_truth(*feedback):
            raise Overloaded("too much feedback is waiting; try again in a moment")
        self._metrics.count("slipway_feedback_total", len(feedback.truths))
        exchange.finish(Answer(202, ok({"id": feedback.request_id, "accepted": len(feedback.truths)}).body))

    def _body(self, exchange: Exchange) -> bytes:
        headers = exchange.headers
        encoding = headers.get(b"content-encoding")
        if encoding is None or encoding.lower() == b"identity":
            return exchange.body
        return _inflated(exchange.body, encoding.lower(), self._max_body)


class _InferAnswer:
    """Takes the outcome of an infer request back to its exchange."""

    __slots__ = ("_binary", "_exchange", "_outputs", "_request_id", "_router")

    def __init__(
        self,
        router: Router,
        exchange: Exchange,
        request_id: str | None,
        outputs: tuple[RequestedOutput, ...] | None,
        *,
        binary: bool,
    ) -> None:
        self._router = router
        self._exchange = exchange
        self._request_id = request_id
        self._outputs = outputs
        self._binary = binary

    def __call__(self, outcome: Outcome) -> None:
        answer = self._router.answer_infer(
            self._exchange, self._request_id, self._outputs, outcome, binary=self._binary
        )
        self._exchange.finish(answer)


def _get(endpoint: str, answer: Callable[[Exchange], Answer]) -> Route:
    def handler(exchange: Exchange) -> None:
        exchange.finish(answer(exchange))

    return Route(endpoint, {b"GET": handler})


def _json_length(headers: dict[bytes, bytes]) -> int | None:
    value = headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise InvalidRequest("Inference-Header-Content-Length must be the number of bytes of the JSON")
    return int(value)


_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,9})?")


def _timeout(value: bytes) -> float:
    """Read how long the caller waits."""
    if _SECONDS.fullmatch(value) is None:
        raise InvalidRequest("X-Request-Timeout must be a number of seconds such as 0.25")
    return float(value)


_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def _inflated(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body, never to more than the limit."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise InvalidRequest("Content-Encoding must be gzip, deflate or identity")
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidRequest("the body is not compressed as Content-Encoding says") from None
    if len(plain) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes; send fewer rows in one request")
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequest("the body is not compressed as Content-Encoding says")
    return plain
