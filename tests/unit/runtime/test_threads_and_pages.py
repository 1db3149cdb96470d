"""What a process of the runtime has: no threads but its own, and with several workers the model's pages once."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from tests.unit.runtime.test_process import INFER, PATH, process, ready, until, workers_of

from lab.ports import free_port


async def ask(port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(f"http://127.0.0.1:{port}{PATH}", content=INFER)).status_code == 200


def threads_of(pid: int) -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]


def kilobytes_of(pid: int) -> tuple[int, int]:
    """Give how much of a process's memory others have as well, and how much it has alone."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE)}
    return sizes["Shared_Clean"] + sizes["Shared_Dirty"], sizes["Private_Clean"] + sizes["Private_Dirty"]


async def test_the_engine_has_no_threads_of_its_own(parts, tmp_path):
    """ONNX Runtime, and NumPy's linear algebra, would make one for each processor, and let them spin."""
    port = free_port()
    async with process(parts.linear().write(tmp_path), port=port) as one:
        await ready(port)
        await ask(port)
        names = threads_of(one.pid)

    assert len(names) == 1, names


async def test_workers_share_the_pages_of_what_was_loaded(parts, tmp_path):
    port = free_port()
    async with process(parts.linear().write(tmp_path), "--workers", "2", "--drain-seconds", "0", port=port) as one:
        await ready(port)
        workers = await until(lambda: len(found := workers_of(one.pid)) == 2 and found)
        for _ in range(20):
            await ask(port)
        for pid in workers:
            shared, own = kilobytes_of(pid)
            assert shared > 2 * own, f"{own} kB of its own beside {shared} kB"
