"""How much one gRPC connection may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds in bytes, seconds and numbers."""

    streams: int = 256
    """Calls of one connection at the same time; a client queues what is beyond."""
    header_bytes: int = 16_384
    continuations: int = 8
    message_bytes: int = 16 << 20
    buffered_bytes: int = 64 << 20
    """Messages that are still arriving, on all connections together."""
    stream_window: int = 1 << 20
    """Bytes of one message that a client may send before it is asked for more."""
    connection_window: int = 8 << 20
    preface_seconds: float = 10.0
    message_seconds: float = 30.0
    message_bytes_per_second: int = 65_536
    """A message that keeps arriving this fast may take longer than ``message_seconds``."""
    idle_seconds: float = 300.0
    write_seconds: float = 30.0
    """How long a client may leave its answers unread."""
    connection_seconds: float = 600.0
    """After this age a connection is told to go away, so that load finds new pods."""
    connections: int = 4096
    noise: int = 2000
    """Frames without use (pings, settings, priorities, empty data) in one sweep, beside two for each call."""
    resets: int = 500
    """Calls that a client may give up in one sweep, if they are more than half of those that it began."""
    watchers: int = 1024
    """Streams that wait for the server's health to change."""
