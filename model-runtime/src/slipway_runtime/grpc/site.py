"""What all gRPC connections of a server have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slipway_runtime.apart import Apart
from slipway_runtime.grpc import frames
from slipway_runtime.grpc.calls import Head, Method, head_of
from slipway_runtime.grpc.headers import Block, Fields
from slipway_runtime.grpc.health import Health
from slipway_runtime.grpc.inference import Answering, Inference
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.grpc.reflection import reflection_methods
from slipway_runtime.grpc.status import CallFailed, Code
from slipway_runtime.http.shared import Shared
from slipway_runtime.model import Model


class Site:
    """One server's state, seen by each of its gRPC connections."""

    def __init__(self, models: Sequence[Model], shared: Shared, limits: GrpcLimits, apart: Apart | None = None) -> None:
        self.shared = shared
        self.limits = limits
        several = len(models) > 1
        self.inference = Inference(
            [Answering(one, head_for(one) if several else None) for one in models], shared, apart or Apart()
        )
        self.health = Health(limits.watchers)
        self._methods = _by_path(self.inference.methods(), self.health.methods(), reflection_methods())
        self.head = head_for(None if several else models[0])
        """The fields before every answer; of several models, each has its own."""
        self.greeting = frames.settings(
            {
                frames.MAX_CONCURRENT_STREAMS: limits.streams,
                frames.INITIAL_WINDOW_SIZE: limits.stream_window,
                frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            }
        ) + frames.window_update(0, limits.connection_window - frames.DEFAULT_WINDOW)

    def meaning(self, fields: Fields) -> Head:
        """Read a request's fields, and keep out who shows no key, where one is needed for all but health."""
        head, keys = head_of(fields, self._methods), self.shared.keys
        is_health = head.method is not None and head.method.endpoint == "health"
        if keys is None or is_health or keys.allow(fields):
            return head
        return head._replace(refusal=CallFailed(Code.UNAUTHENTICATED, "show a key: authorization: Bearer <key>"))

    def ready(self, *, ready: bool) -> None:
        """Say whether this pod wants requests."""
        self.inference.ready = ready
        self.health.say(serving=ready)


def head_for(model: Model | None) -> Block:
    """Write the fields before every answer of a model, or of none."""
    makers = model.makers if model is not None else ()
    return Block(
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,deflate,gzip"),
        *[(name.encode(), value.encode()) for name, value in makers],
    )


def _by_path(*services: Iterable[tuple[str, Method]]) -> dict[bytes, Method]:
    return {f"/{name}".encode(): method for service in services for name, method in service}
