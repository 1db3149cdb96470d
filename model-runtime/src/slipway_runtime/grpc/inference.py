"""``inference.GRPCInferenceService``: the Open Inference Protocol's six methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slipway_runtime import __version__
from slipway_runtime.apart import READ_APART, WRITE_APART, Apart
from slipway_runtime.dataplane import Outcome
from slipway_runtime.errors import SlipwayRuntimeError
from slipway_runtime.grpc.calls import Call, Method
from slipway_runtime.grpc.codec import GrpcAnswerWriter, GrpcInferRequest, infer_of, request_of
from slipway_runtime.grpc.headers import Block
from slipway_runtime.grpc.messages import INFERENCE, decoded, message_class
from slipway_runtime.grpc.usual import UsualCalls
from slipway_runtime.http.common import index_of, not_here, other_version
from slipway_runtime.http.shared import Shared
from slipway_runtime.model import Model
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.answers import model_metadata, server_metadata
from slipway_runtime.protocol.tensors import Array


class Answering:
    """One model, and how it answers."""

    __slots__ = ("model", "names", "writer")

    def __init__(self, model: Model, names: Block | None) -> None:
        self.model = model
        self.names = names
        """The fields before its answers, where there are several models."""
        self.writer = GrpcAnswerWriter(model.signature, model.name, model.version)


class Inference:
    """Answers for one model, or several."""

    def __init__(self, models: Sequence[Answering], shared: Shared, apart: Apart) -> None:
        self._models = {one.model.name: one for one in models}
        self._shared = shared
        self._apart = apart
        only = models[0]
        self._usual = UsualCalls(only.model.plane, only.model.packer.matrix, only.writer) if len(models) == 1 else None
        self.ready = False
        """Whether this pod wants requests; the server says so."""

    def methods(self) -> Iterator[tuple[str, Method]]:
        """Give what it answers, by path."""
        yield f"{INFERENCE}/ModelInfer", Method("infer", self._infer)
        for name, endpoint, handle in (
            ("ServerLive", "health", lambda *_: {"live": True}),
            ("ServerReady", "health", lambda *_: {"ready": self.ready}),
            ("ModelReady", "health", self._model_ready),
            ("ServerMetadata", "metadata", lambda *_: server_metadata(__version__)),
            ("ModelMetadata", "metadata", self._model_metadata),
            ("RepositoryIndex", "metadata", self._repository_index),
        ):
            yield f"{INFERENCE}/{name}", _simple(name, endpoint, handle)

    def _find(self, call: Call, name: str, version: str) -> Answering:
        found = self._models.get(name)
        if found is None:
            raise not_here([one.model for one in self._models.values()])
        if version not in ("", found.model.version):
            raise other_version(found.model)
        if found.names is not None:
            call.belongs_to(name, found.names)
        return found

    def _model_ready(self, call: Call, request: Any) -> dict[str, Any]:
        model = self._find(call, request.name, request.version).model
        return {"ready": not self._shared.draining and model.plane.is_ready}

    def _repository_index(self, _: Call, request: Any) -> dict[str, Any]:
        models = [one.model for one in self._models.values()]
        return {"models": index_of(models, only_ready=request.ready)}

    def _model_metadata(self, call: Call, request: Any) -> dict[str, Any]:
        model = self._find(call, request.name, request.version).model
        document = model_metadata(model.signature, model.name, model.version)
        del document["parameters"]  # the message has no place for them
        return document

    def _infer(self, call: Call, message: bytes) -> None:
        usual = self._usual
        if usual is not None and usual.take(call, message):
            return

        def read() -> tuple[Answering, GrpcInferRequest, Feeds, int]:
            asked = request_of(message)
            found = self._find(call, asked.model_name, asked.model_version)
            model = found.model
            request = infer_of(asked, model.writer.names)
            model.writer.check(request.outputs)
            feeds, rows = model.aligner.align(request.inputs)
            # What is usual is short; the thread that reads what is long must not change what the loop looks at.
            if usual is not None and len(message) < READ_APART:
                usual.learn(message, request)
            return found, request, feeds, rows

        def then(given: tuple[Answering, GrpcInferRequest, Feeds, int]) -> None:
            found, request, feeds, rows = given
            answer = _InferAnswer(call, found.writer, request, rows, self._apart)
            call.work = found.model.plane.submit(feeds, rows, answer, call.timeline, deadline=call.deadline)

        waiting = self._apart.read(len(message), read, then, call.guarded)
        if waiting is not None:
            call.work = waiting


class _InferAnswer:
    """Takes the outcome of an infer request back to its call."""

    __slots__ = ("_apart", "_call", "_request", "_rows", "_writer")

    def __init__(
        self, call: Call, writer: GrpcAnswerWriter, request: GrpcInferRequest, rows: int, apart: Apart
    ) -> None:
        self._call = call
        self._writer = writer
        self._request = request
        self._rows = rows
        self._apart = apart

    def __call__(self, outcome: Outcome) -> None:
        if isinstance(outcome, SlipwayRuntimeError):
            self._call.fail(outcome)
        elif self._rows < WRITE_APART or self._request.raw:
            self._call.answer(self._written(outcome))
        else:
            self._apart.run(0, lambda: self._written(outcome), self._finish)

    def _written(self, arrays: list[Array]) -> bytes:
        request = self._request
        return self._writer.write(request.id or self._call.request_id, arrays, request.outputs, raw=request.raw)

    def _finish(self, result: Callable[[], bytes]) -> None:
        self._call.guarded(lambda: self._call.answer(result()))


def _simple(name: str, endpoint: str, handle: Callable[[Call, Any], dict[str, Any]]) -> Method:
    """Make a method that answers at once."""
    request = message_class(f"inference.{name}Request")
    answer = message_class(f"inference.{name}Response")

    def take(call: Call, message: bytes) -> None:
        call.answer(answer(**handle(call, decoded(request, message))).SerializeToString())

    return Method(endpoint, take)
