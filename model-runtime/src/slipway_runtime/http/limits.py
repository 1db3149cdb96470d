"""How much one connection, and all of them together, may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds in bytes, seconds and numbers."""

    header_bytes: int = 16_384
    header_lines: int = 100
    body_bytes: int = 16 << 20
    buffered_bytes: int = 64 << 20
    """Bodies that are still arriving, on all connections together."""
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes_per_second: int = 65_536
    """A body that keeps arriving this fast may take longer than ``body_seconds``."""
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    """How long a client may leave its answers unread."""
    connection_seconds: float = 600.0
    """After this age a connection is closed with its next answer, so that load finds new pods."""
    connections: int = 4096
    pipelined: int = 64
    """Requests of one connection that are being answered before its socket is read further."""
    free_chunks: int = 1024
    chunk_bytes: int = 64
    """Beyond the free ones, chunks of a body must be this large on average."""
