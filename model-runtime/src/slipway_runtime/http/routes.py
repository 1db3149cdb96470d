"""From a request's target to what answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from slipway_runtime.apart import READ_APART, WRITE_APART, Apart
from slipway_runtime.dataplane import Outcome
from slipway_runtime.errors import InvalidRequest, Overloaded, SlipwayRuntimeError, UnknownModel
from slipway_runtime.http.answers import JSON, Answer, answer_to, failure, ok
from slipway_runtime.http.common import server_routes, unknown
from slipway_runtime.http.exchange import Exchange
from slipway_runtime.http.known import Shortcut
from slipway_runtime.http.routing import Route, Routing, getting
from slipway_runtime.http.usual import UsualInfer
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.answers import model_metadata
from slipway_runtime.protocol.compression import inflated
from slipway_runtime.protocol.feedback import read_feedback
from slipway_runtime.protocol.packing import LARGE
from slipway_runtime.protocol.requests import InferRequest, RequestedOutput, decode_infer, infer_of, json_of
from slipway_runtime.protocol.tables import wants_table
from slipway_runtime.protocol.tensors import Array
from slipway_runtime.several.endpoint import ModelEndpoint

if TYPE_CHECKING:
    from slipway_runtime.http.page import Page
    from slipway_runtime.observing.recording import Recorder

T = TypeVar("T")

_TRUTHS = 65_536
_CSV = b"text/csv; charset=utf-8; header=present"
_VARY = b"vary: accept\r\n"
_UNUSUAL = (b"x-request-timeout", b"content-encoding", b"inference-header-content-length")


class Router(Routing):
    """Answers requests for one model."""

    def __init__(
        self, model: Model, metrics: Metrics, *, max_body: int, among: bool = False, apart: Apart | None = None
    ) -> None:
        """Prepare.

        Args:
            model: What answers.
            metrics: Where requests are counted.
            max_body: Bytes that a body may be inflated to.
            among: Whether it is one of several, and has the model's own paths alone.
            apart: Reads large bodies; None: one of its own.
        """
        super().__init__(metrics)
        self._model = model
        self._max_body = max_body
        self._among = among
        self._usual = UsualInfer(model.packer, model.plane, model.writer, metrics)
        self._apart = apart or Apart()
        self.recorder: Recorder | None = None
        """Where feedback goes, if anything is recorded."""
        self.secure = False
        """Whether it is asked over TLS."""
        self._page: Page | None = None
        self._routes = self._of_model() if among else self._of_model() | self._of_server()

    @property
    def targets(self) -> Iterable[bytes]:
        """The paths that it answers, as they are usually written."""
        return self._routes

    def _endpoint(self, name: str) -> str:
        return ModelEndpoint(name, self._model.name) if self._among else name

    def _of_model(self) -> dict[bytes, Route]:
        """Give what is under the model's own name, and its versions."""
        name, version = self._model.name, self._model.version
        metadata = ok(model_metadata(self._model.signature, name, version))
        base, plain = b"/v2/models/" + name.encode(), b"/models/" + name.encode()
        feedback = Route(self._endpoint("feedback"), {b"POST": self._feedback})
        routes = {
            plain: getting(self._endpoint("page"), self._shown),
            plain + b"/predict": Route(self._endpoint("predict"), {b"POST": self._predict}),
            plain + b"/feedback": feedback,
        }
        for prefix in (base, base + b"/versions/" + version.encode()):
            routes[prefix] = getting(self._endpoint("metadata"), lambda _: metadata)
            routes[prefix + b"/ready"] = getting(self._endpoint("health"), self._model_readiness)
            routes[prefix + b"/feedback"] = feedback
            routes[prefix + b"/infer"] = Route(self._endpoint("infer"), {b"POST": self._infer})
        return routes

    def _of_server(self) -> dict[bytes, Route]:
        routes = server_routes(self._metrics, [self._model], self._readiness)
        routes[b"/"] = getting("page", self._shown)
        routes[b"/feedback"] = Route("feedback", {b"POST": self._feedback})
        routes[b"/predict"] = Route("predict", {b"POST": self._predict})
        return routes

    def shortcut(self, exchange: Exchange) -> Shortcut | None:
        """As `Routing`: for infer requests that ask for nothing unusual."""
        route = self._routes.get(exchange.target)
        usual = route is not None and route.methods.get(exchange.method) == self._infer
        return self._usual.take_body if usual and exchange.headers.keys().isdisjoint(_UNUSUAL) else None

    def _unknown(self, parts: list[bytes]) -> UnknownModel:
        return unknown([self._model], parts)

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
            base = f"/models/{model.name}" if self._among else ""
            self._page = Page(model.signature, model.name, model.version, model.example, base)
        return Answer(
            200, self._page.render(exchange.headers.get(b"host"), secure=self.secure), HTML, self._page.headers
        )

    def _infer(self, exchange: Exchange) -> None:
        body = self._body(exchange)
        json_length = _json_length(exchange.headers)
        document: dict[str, Any] | None = None
        if json_length is None:
            if len(body) >= LARGE and self._usual.take_large(exchange, body):
                return
            if len(body) < READ_APART:
                document = self._explained(lambda: json_of(body))
                if self._usual.take(exchange, document):
                    return

        def read() -> tuple[InferRequest, Feeds, int]:
            return self._explained(lambda: self._read_infer(body, json_length, document))

        def then(given: tuple[InferRequest, Feeds, int]) -> None:
            request, feeds, rows = given
            done = _InferAnswer(self, exchange, request.id, request.outputs, binary=request.binary)
            exchange.work = self._model.plane.submit(feeds, rows, done, exchange.timeline, deadline=exchange.deadline)

        self._read(exchange, len(body), read, then)

    def _read_infer(
        self, body: bytes, json_length: int | None, document: dict[str, Any] | None
    ) -> tuple[InferRequest, Feeds, int]:
        model = self._model
        if json_length is None:
            request = infer_of(json_of(body) if document is None else document, known=model.writer.names)
        else:
            request = decode_infer(body, json_length, model.writer.names)
        model.writer.check(request.outputs)
        return request, *model.aligner.align(request.inputs)

    def _explained(self, read: Callable[[], T]) -> T:
        """Read, and show beside what is wrong a request that would be right."""
        try:
            return read()
        except InvalidRequest as error:
            model = self._model
            right = model.request or f"made of what GET /v2/models/{model.name} tells"
            raise InvalidRequest(f"{error.message} (right would be {right})") from None

    def _read(self, exchange: Exchange, size: int, read: Callable[[], T], then: Callable[[T], None]) -> None:
        """Read a body and go on; a large one is read apart, so that small requests need not wait for it."""
        waiting = self._apart.read(size, read, then, lambda go_on: self._guarded(exchange, lambda _: go_on()))
        if waiting is not None:
            # By it the connection tells that its client has left.
            exchange.work = waiting

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

        def read() -> tuple[Feeds, int]:
            return model.aligner.align(model.rows.read_table(body) if is_table else model.rows.read(body))

        def written(outcome: list[Array]) -> Answer:
            if as_table:
                return Answer(200, model.objects.write_table(outcome), _CSV, _VARY)
            return Answer(200, model.objects.write(exchange.request_id, outcome))

        def then(given: tuple[Feeds, int]) -> None:
            feeds, rows = given

            def done(outcome: Outcome) -> None:
                if isinstance(outcome, SlipwayRuntimeError):
                    exchange.finish(answer_to(outcome))
                elif rows < WRITE_APART:
                    exchange.finish(written(outcome))
                else:
                    self._apart.run(0, lambda: written(outcome), finish)

            exchange.work = model.plane.submit(feeds, rows, done, exchange.timeline, deadline=exchange.deadline)

        def finish(result: Callable[[], Answer]) -> None:
            self._guarded(exchange, lambda _: exchange.finish(result()))

        self._read(exchange, len(body), read, then)

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
        return inflated(exchange.body, encoding.lower(), self._max_body, "Content-Encoding")


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


def _json_length(headers: dict[bytes, bytes]) -> int | None:
    value = headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise InvalidRequest("Inference-Header-Content-Length must be the number of bytes of the JSON")
    return int(value)
