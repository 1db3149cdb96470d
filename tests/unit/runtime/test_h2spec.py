"""The rules of HTTP/2, as the h2spec program checks them one by one."""

from __future__ import annotations

import asyncio

from tools.__main__ import ensure


async def test_every_case_passes_and_none_is_skipped(start):
    program = await asyncio.to_thread(ensure, "h2spec")
    running = await start(grpc_port=0)
    address = ["-h", "127.0.0.1", "-p", str(running.server.grpc_port)]
    process = await asyncio.create_subprocess_exec(
        program, *address, "--strict", "--timeout", "5", stdout=asyncio.subprocess.PIPE
    )
    printed = (await asyncio.wait_for(process.communicate(), 120))[0].decode()

    assert process.returncode == 0, printed[printed.find("Failures:") :]
    assert "146 tests, 146 passed, 0 skipped, 0 failed" in printed
