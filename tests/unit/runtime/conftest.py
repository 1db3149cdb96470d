"""Tiny real models, and a real server on loopback.

The models are written with a dozen lines of protobuf, not with the onnx package: the
runtime has none either, and a hostile model is as easy to write as a good one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from slipway_runtime.dataplane import DataPlane
from slipway_runtime.http.limits import HttpLimits
from slipway_runtime.metrics import Metrics
from slipway_runtime.model import Model, ModelOptions, load_model
from slipway_runtime.server import Server, ServerOptions

FLOAT, INT64, STRING = 1, 7, 8


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests on the loop that the runtime runs on, as its promises are about that one.

    asyncio's own loses a connection that it has accepted in the turn in which its server is closed,
    as the one with the old certificate is; uvloop does not.
    """
    return {"uvloop": uvloop.new_event_loop}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def part(tag: int, *content: bytes | str) -> bytes:
    raw = b"".join(item.encode() if isinstance(item, str) else item for item in content)
    return varint(tag << 3 | 2) + varint(len(raw)) + raw


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: int) -> bytes:
    return part(
        1,
        *(part(1, name) for name in inputs),
        *(part(2, name) for name in outputs),
        part(4, kind),
        *(part(5, part(1, name), number(3, value), number(20, 2)) for name, value in attributes.items()),
    )


def floats(name: str, rows: list[list[float]], *extra: bytes) -> bytes:
    flat = [value for row in rows for value in row]
    raw = struct.pack(f"<{len(flat)}f", *flat)
    return part(5, number(1, len(rows)), number(1, len(rows[0])), number(2, FLOAT), part(8, name), part(9, raw), *extra)


def value(tag: int, name: str, kind: int, *sizes: int) -> bytes:
    dimensions = [part(1, part(2, "n") if size < 0 else number(1, size)) for size in sizes]
    return part(tag, part(1, name), part(2, part(1, number(1, kind), part(2, *dimensions))))


def onnx_model(*graph: bytes) -> bytes:
    return number(1, 8) + part(7, part(2, "g"), *graph) + part(8, part(1, ""), number(2, 18))


LINEAR = (
    node("MatMul", ["x", "w"], ["z"]),
    node("Softmax", ["z"], ["p"], axis=1),
    node("ArgMax", ["p"], ["l"], axis=1, keepdims=0),
)
LINEAR_ENDS = (value(11, "x", FLOAT, -1, 2), value(12, "l", INT64, -1), value(12, "p", FLOAT, -1, 2))
WEIGHTS = [[1.0, -1.0], [0.5, 2.0]]


@dataclass
class Files:
    """A model's files, to be changed by a test before they are written."""

    onnx: bytes
    signature: dict[str, Any]
    examples: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, *, version: str = "c0ffee1234") -> ModelOptions:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(self.onnx)
        (folder / "signature.json").write_text(json.dumps(self.signature))
        (folder / "examples.json").write_text(json.dumps(self.examples))
        digest = "sha256:" + hashlib.sha256(self.onnx).hexdigest()
        return ModelOptions(folder, "toy", version, digest)


def linear() -> Files:
    """A classifier of two columns in one matrix."""
    return Files(
        onnx_model(*LINEAR, floats("w", WEIGHTS), *LINEAR_ENDS),
        {
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2], "tensor": "x", "kind": "number"}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [-1], "tensor": "l"},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2], "tensor": "p"},
            ],
            "columns": ["a", "b"],
            "classes": ["no", "yes"],
            "task": "classification",
        },
        {
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 0.0, 0.0, 1.0]}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 1]},
                {
                    "name": "probabilities",
                    "datatype": "FP32",
                    "shape": [2, 2],
                    "data": [0.880797, 0.119203, 0.1824255, 0.8175745],
                },
            ],
            "tolerance": 1e-5,
        },
    )


def echo() -> Files:
    """Gives back its three columns: text, number, whole number. A whole number of 3 or more it cannot compute."""
    columns = {"carrier": ("BYTES", STRING), "distance": ("FP32", FLOAT), "month": ("INT64", INT64)}
    graph = [
        node("Identity", ["carrier"], ["carrier_out"]),
        node("Identity", ["distance"], ["distance_out"]),
        node("Gather", ["table", "month"], ["month_out"]),
        part(5, number(1, 3), number(2, FLOAT), part(8, "table"), part(9, struct.pack("<3f", 10, 11, 12))),
    ]
    graph += [value(11, name, kind, -1, 1) for name, (_, kind) in columns.items()]
    ends = {"carrier": STRING, "distance": FLOAT, "month": FLOAT}
    graph += [value(12, f"{name}_out", kind, -1, 1) for name, kind in ends.items()]
    inputs = [{"name": name, "datatype": kind, "shape": [-1, 1]} for name, (kind, _) in columns.items()]
    inputs[0]["missing"] = "(none)"
    kinds = {"carrier": "BYTES", "distance": "FP32", "month": "FP32"}
    return Files(
        onnx_model(*graph),
        {
            "inputs": inputs,
            "outputs": [
                {"name": name, "datatype": kind, "shape": [-1, 1], "tensor": f"{name}_out"}
                for name, kind in kinds.items()
            ],
            "columns": list(columns),
            "classes": None,
            "task": "regression",
        },
        {
            "inputs": [
                {"name": "carrier", "datatype": "BYTES", "shape": [1, 1], "data": ["UA"]},
                {"name": "distance", "datatype": "FP32", "shape": [1, 1], "data": [719.0]},
                {"name": "month", "datatype": "INT64", "shape": [1, 1], "data": [2]},
            ],
            "outputs": [{"name": "month", "datatype": "FP32", "shape": [1, 1], "data": [12.0]}],
            "tolerance": 0.0,
        },
    )


class Parts:
    """What a test may build models from."""

    linear = staticmethod(linear)
    echo = staticmethod(echo)
    onnx_model = staticmethod(onnx_model)
    floats = staticmethod(floats)
    part = staticmethod(part)
    number = staticmethod(number)
    node = staticmethod(node)
    value = staticmethod(value)
    LINEAR = LINEAR
    FLOAT = FLOAT
    LINEAR_ENDS = LINEAR_ENDS
    WEIGHTS = WEIGHTS


@pytest.fixture(scope="session")
def model_parts() -> type[Parts]:
    return Parts


@pytest.fixture
def parts(model_parts: type[Parts]) -> type[Parts]:
    return model_parts


@pytest.fixture
def toy(tmp_path: Path) -> Model:
    """The linear classifier, loaded and proven."""
    return load_model(linear().write(tmp_path / "toy"), Metrics("toy", "v"))


@pytest.fixture
def echoing(tmp_path: Path) -> Model:
    """The echo, loaded and proven."""
    return load_model(echo().write(tmp_path / "echo"), Metrics("toy", "v"))


@dataclass
class Running:
    """A server of this process, and raw connections to it."""

    server: Server
    metrics: Metrics
    task: asyncio.Task[None]

    @property
    def plane(self) -> DataPlane:
        return self.server._models[0].plane

    def codes(self, endpoint: str = "infer") -> dict[int, int]:
        """Give the counted requests of an endpoint by their code."""
        found = self.metrics.state()["slipway_requests_total"].items()
        pattern = re.compile(rf'endpoint="{endpoint}",code="(\d+)"')
        return {int(match[1]): int(count) for labels, (count,) in found if (match := pattern.fullmatch(labels))}

    @contextlib.contextmanager
    def held(self, *, patience: float = 1.0, **limits: Any) -> Iterator[list[int]]:
        """Have the model hang until the end; gives the number of rows of each run that has begun."""
        gate, began, engine = threading.Event(), list[int](), self.plane._engine

        def run(_: object, feeds: Any) -> Any:
            began.append(len(next(iter(feeds.values()))))
            assert gate.wait(10)
            return engine.run(feeds)

        self.plane._engine = type("Held", (), {"run": run, "is_ready": lambda _: True})()
        self.plane._loop_seconds, self.plane.patience = 0.0, patience
        self.plane._limits = replace(self.plane._limits, **limits)
        try:
            yield began
        finally:
            gate.set()

    def failing(self, error: Exception) -> None:
        """Have the model fail from now on."""

        def run(*_: object) -> None:
            raise error

        self.plane._engine = type("Failing", (), {"run": run, "is_ready": lambda _: True})()

    async def send(self, *chunks: bytes, eof: bool = True) -> bytes:
        """Send bytes as they are, and give all that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that each chunk is a read of its own
            if eof:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers on free ports of loopback; all of them end with the test."""
    running: list[Running] = []

    async def begin(files: Files | None = None, limits: HttpLimits | None = None, **options: Any) -> Running:
        metrics = Metrics("toy", "c0ffee1234")
        model = load_model((files or linear()).write(tmp_path / str(len(running))), metrics)
        given: dict[str, Any] = {"drain_seconds": 0.0, **options}
        chosen = ServerOptions(host="127.0.0.1", port=0, limits=limits or HttpLimits(), **given)
        server = Server([model], metrics, chosen)
        one = Running(server, metrics, asyncio.create_task(server.run()))
        running.append(one)
        await asyncio.wait_for(server.started(), 5)
        return one

    yield begin
    for one in running:
        one.server.stop()
        one.server.stop()
        await asyncio.wait_for(one.task, 20)


@pytest.fixture
async def served(start: Start) -> Running:
    """The linear classifier, served by this process."""
    running: Running = await start()
    return running


def deciding(parts: type[Parts]) -> Files:
    """The linear classifier with a third output by name: its decision values."""
    files = parts.linear()
    ends = (*parts.LINEAR_ENDS, parts.value(12, "z", parts.FLOAT, -1, 2))
    files.onnx = parts.onnx_model(*parts.LINEAR, parts.floats("w", parts.WEIGHTS), *ends)
    files.signature["outputs"].append({"name": "decision", "datatype": "FP32", "shape": [-1, 2], "tensor": "z"})
    return files


@pytest.fixture
def listed(parts: type[Parts], tmp_path: Path) -> Path:
    """A listing of three models; the first two have equal columns, and answer otherwise."""
    doubled = deciding(parts)
    doubled.onnx = doubled.onnx.replace(bytes.fromhex("0000803f000080bf"), bytes.fromhex("00000040000000c0"))
    doubled.examples["outputs"].pop()  # the label is as it was
    items = []
    for name, files, version in (
        ("linear", deciding(parts), "aaaa"),
        ("doubled", doubled, "bbbb"),
        ("echo", parts.echo(), "cccc"),
    ):
        options = files.write(tmp_path / name, version=version)
        items.append({"name": name, "version": version, "digest": options.digest, "folder": name})
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": items}))
    return path
