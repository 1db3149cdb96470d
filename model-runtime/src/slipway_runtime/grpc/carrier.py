"""What a call knows of the connection that it came by, and of the server behind that: types alone."""

from __future__ import annotations

from typing import Protocol

from slipway_runtime.grpc.headers import Block
from slipway_runtime.grpc.limits import GrpcLimits
from slipway_runtime.grpc.outgoing import Outgoing
from slipway_runtime.http.shared import Shared


class Home(Protocol):
    """What a call knows of the server that answers it."""

    @property
    def shared(self) -> Shared:
        """Metrics, ids, and what all connections hold together."""

    @property
    def limits(self) -> GrpcLimits:
        """How much and how long."""

    @property
    def head(self) -> Block:
        """The fields before every answer."""


class Carrier(Protocol):
    """What a call knows of the connection that it came by."""

    @property
    def site(self) -> Home:
        """The server's state."""

    @property
    def out(self) -> Outgoing:
        """What is on its way to the client."""

    def reset(self, stream: int, code: int) -> None:
        """End a stream without an answer."""
