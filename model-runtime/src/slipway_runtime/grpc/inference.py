"""``inference.GRPCInferenceService``: the Open Inference Protocol's six methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from slipway_runtime import __version__
from slipway_runtime.dataplane import Outcome
from slipway_runtime.errors import SlipwayRuntimeError, UnknownModel
from slipway_runtime.grpc.calls import Call, Method
from slipway_runtime.grpc.codec import GrpcAnswerWriter, read_infer
from slipway_runtime.grpc.messages import INFERENCE, decoded, message_class
from slipway_runtime.grpc.usual import UsualCalls
from slipway_runtime.model import Model
from slipway_runtime.protocol.answers import model_metadata, server_metadata
from slipway_runtime.protocol.requests import RequestedOutput


class Inference:
    """Answers for one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._writer = GrpcAnswerWriter(model.signature, model.name, model.version)
        self._usual = UsualCalls(model.plane, model.packer.matrix, self._writer)
        self.ready = False
        """Whether this pod wants requests; the server says so."""

    def methods(self) -> Iterator[tuple[str, Method]]:
        """Give what it answers, by path."""
        yield f"{INFERENCE}/ModelInfer", Method("infer", self._infer)
        for name, endpoint, handle in (
            ("ServerLive", "health", lambda _: {"live": True}),
            ("ServerReady", "health", lambda _: {"ready": self.ready}),
            ("ModelReady", "health", self._model_ready),
            ("ServerMetadata", "metadata", lambda _: server_metadata(__version__)),
            ("ModelMetadata", "metadata", self._model_metadata),
        ):
            yield f"{INFERENCE}/{name}", _simple(name, endpoint, handle)

    def _find(self, name: str, version: str) -> Model:
        model = self._model
        if name != model.name:
            raise UnknownModel(f'there is no model of that name here; this is "{model.name}"')
        if version not in ("", model.version):
            raise UnknownModel(f'this model is not here in that version; this is "{model.version}"')
        return model

    def _model_ready(self, request: Any) -> dict[str, Any]:
        self._find(request.name, request.version)
        return {"ready": self.ready}

    def _model_metadata(self, request: Any) -> dict[str, Any]:
        model = self._find(request.name, request.version)
        document = model_metadata(model.signature, model.name, model.version)
        del document["parameters"]  # the message has no place for them
        return document

    def _infer(self, call: Call, message: bytes) -> None:
        if self._usual.take(call, message):
            return
        request = read_infer(message)
        model = self._find(request.model, request.version)
        model.writer.check(request.outputs)
        feeds, rows = model.aligner.align(request.inputs)
        self._usual.learn(message, request)
        answer = _InferAnswer(call, self._writer, request.id or call.request_id, request.outputs, raw=request.raw)
        call.work = model.plane.submit(feeds, rows, answer, call.timeline, deadline=call.deadline)


class _InferAnswer:
    """Takes the outcome of an infer request back to its call."""

    __slots__ = ("_call", "_id", "_outputs", "_raw", "_writer")

    def __init__(
        self,
        call: Call,
        writer: GrpcAnswerWriter,
        request_id: str,
        outputs: tuple[RequestedOutput, ...] | None,
        *,
        raw: bool,
    ) -> None:
        self._call = call
        self._writer = writer
        self._id = request_id
        self._outputs = outputs
        self._raw = raw

    def __call__(self, outcome: Outcome) -> None:
        if isinstance(outcome, SlipwayRuntimeError):
            self._call.fail(outcome)
        else:
            self._call.answer(self._writer.write(self._id, outcome, self._outputs, raw=self._raw))


def _simple(name: str, endpoint: str, handle: Callable[[Any], dict[str, Any]]) -> Method:
    """Make a method that answers at once."""
    request = message_class(f"inference.{name}Request")
    answer = message_class(f"inference.{name}Response")

    def take(call: Call, message: bytes) -> None:
        call.answer(answer(**handle(decoded(request, message))).SerializeToString())

    return Method(endpoint, take)
