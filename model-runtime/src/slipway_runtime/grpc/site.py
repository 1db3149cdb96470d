"""What all gRPC connections of a server have in common."""

from __future__ import annotations

from collections.abc import Iterable

from slipway_runtime.grpc import frames
from slipway_runtime.grpc.calls import Head, Method, head_of
from slipway_runtime.grpc.headers import Block, Fields
from slipway_runtime.grpc.health import Health
from slipway_runtime.grpc.inference import Inference
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.grpc.reflection import reflection_methods
from slipway_runtime.grpc.status import CallFailed, Code
from slipway_runtime.http.shared import Shared
from slipway_runtime.model import Model


class Site:
    """One server's state, seen by each of its gRPC connections."""

    def __init__(self, model: Model, shared: Shared, limits: GrpcLimits) -> None:
        self.shared = shared
        self.limits = limits
        self.inference = Inference(model)
        self.health = Health(limits.watchers)
        self._methods = _by_path(self.inference.methods(), self.health.methods(), reflection_methods())
        identity = ((b"slipway-content", model.version.encode()), (b"slipway-model-digest", model.digest.encode()))
        self.head = Block(
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-accept-encoding", b"identity,deflate,gzip"),
            *identity,
        )
        """The fields before every answer."""
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


def _by_path(*services: Iterable[tuple[str, Method]]) -> dict[bytes, Method]:
    return {f"/{name}".encode(): method for service in services for name, method in service}
