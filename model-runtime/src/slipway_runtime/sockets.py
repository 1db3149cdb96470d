"""What the kernel knows of a connection's bytes, and its transport does not say."""

from __future__ import annotations

import asyncio
import fcntl
import termios


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel holds bytes of the client that the loop has not read: to close now would lose them."""
    return _holds(transport, termios.FIONREAD)


def has_unsent(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has not taken all that was written.

    Where the transport holds bytes back, the kernel has some, too; and of TLS's transport those
    beneath it cannot be seen.
    """
    return _holds(transport, termios.TIOCOUTQ)


def _holds(transport: asyncio.BaseTransport, which: int) -> bool:
    socket = transport.get_extra_info("socket")
    if socket is None:  # over TLS it is gone one turn of the loop before `connection_lost`
        return False
    try:
        return any(fcntl.ioctl(socket.fileno(), which, bytes(4)))
    except OSError:
        return False
