"""The least that uvloop can do: parse nothing, answer ``hello``."""

import asyncio
import sys

import uvloop


class Hello(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        """Answer whatever came."""
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")  # type: ignore[attr-defined]


async def main() -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
