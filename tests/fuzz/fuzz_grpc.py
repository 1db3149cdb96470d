"""Bad calls and broken frames without end over gRPC, and good calls beside them: part of ``make fuzz-runtime``.

    uv run python tests/fuzz/fuzz_grpc.py [--bad 20000] [--broken 2000] [--seed 1]

Bad calls are well framed and wrong within (messages, metadata, lengths, compression); broken
ones are good bytes of HTTP/2 with some of them changed, left out or put elsewhere. It ends with 1
where a bad call got no status or one that tells of a failure or of the inside, or counts as a
5xx, where a good call failed, or where the runtime ended or kept the memory. Good calls come at one
rate all the time, and what they took before, beside the bad ones and after is printed; bad ones are
paced, and runtime and clients have cores of their own (`tests.fuzz.fuzz_http.apart`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import os
import random
import re
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import hpack
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.attacks import faults_of
from tests.fuzz.fuzz_http import Asked, apart
from tests.unit.runtime.conftest import echo

from slipway_runtime.grpc.frames import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, frame
from slipway_runtime.grpc.messages import message_class

CONNECTIONS = 8
GOOD_RATE = 100
"""Good calls a second, all the time."""
LEAKS = re.compile(r"Traceback|File \"|site-packages|\.venv|slipway_runtime|onnxruntime|hpack|numpy|/tmp/|failed on")
HELLO = PREFACE + frame(4, 0, 0)
FIELDS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/inference.GRPCInferenceService/ModelInfer",
    ":authority": "here",
    "te": "trailers",
    "content-type": "application/grpc",
}
Request = message_class("inference.ModelInferRequest")


def good() -> Any:
    """Make a request that gets an answer."""
    columns = (("carrier", "BYTES", b"\x02\0\0\0UA"), ("distance", "FP32", bytes(4)), ("month", "INT64", bytes(8)))
    inputs = [{"name": name, "datatype": kind, "shape": [1, 1]} for name, kind, _ in columns]
    return Request(model_name="toy", inputs=inputs, raw_input_contents=[raw for _, _, raw in columns])


def framed(message: bytes, flag: int = 0) -> bytes:
    """Put a message's length before it."""
    return bytes([flag]) + struct.pack(">I", len(message)) + message


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Change, drop, double or insert some bytes."""
    out = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(out) + 1)
        kind = chance.randrange(4)
        if kind == 0 and place < len(out):
            out[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 1:
            del out[place : place + chance.randint(1, 20)]
        elif kind == 2:
            out[place:place] = out[place : place + chance.randint(1, 40)]
        else:
            out[place:place] = chance.randbytes(chance.randint(1, 12))
    return bytes(out)


BOMB = gzip.compress(bytes(18 << 20))
IN_FIELDS = {
    "timeout": ("grpc-timeout", ("", "1", "S", "-1S", "123456789S", "1 S", "0n", "1.5S")),
    "encoding": ("grpc-encoding", ("", "snappy", "GZIP", "x" * 900)),
    "path": (":path", ("/", "/a/b", "*", FIELDS[":path"] + "/", "/" + "x" * 5000, "/grpc.health.v1/")),
    "method": (":method", ("GET", "PUT", "post")),
}
"""Fields that are wrong, and their values."""
IN_REQUEST = {
    "model": lambda one, _: {"model_name": one.choice(("", "Toy", "../toy", "x" * 5000, "\u0442oy"))},
    "version": lambda one, _: {"model_version": one.choice(("0", "latest", "x" * 5000))},
    "output": lambda one, _: {"outputs": [{"name": one.choice(("", "label", "month" * 900))}]},
    "parameter": lambda *_: {"parameters": {"binary_data_output": {"string_param": "yes"}}},
    "twice": lambda _, right: {"inputs": [right.inputs[0]], "raw_input_contents": [right.raw_input_contents[0]]},
    "fewer": lambda *_: {"raw_input_contents": [b""]},
}
"""What is added to a good request; a single value takes the place of the right one."""
IN_TENSOR = {
    "shape": ("shape", ([], [0], [-1], [2**62, 2**62], [2**63 - 1], [1] * 40, [3, 1], [1, 1, 1, 2])),
    "datatype": ("datatype", ("", "fp32", "FP31", "BF16", "STRING", "x" * 3000)),
    "name": ("name", ("", "carier", "a" * 10_000, "\0")),
    "contents": ("contents", ({"fp32_contents": [1.0]}, {"bytes_contents": [b"\xff"] * 9})),
}
"""Fields of a tensor that are wrong, and their values."""
IN_BODY = {
    "bytes": lambda one, raw: framed(mutated(raw, one)),
    "noise": lambda one, _: framed(one.randbytes(one.randrange(300))),
    "length": lambda one, raw: (
        b"\0" + struct.pack(">I", one.choice((0, 1, len(raw) - 1, len(raw) + 1, 2**32 - 1))) + raw
    ),
    "flag": lambda one, raw: framed(raw, one.choice((1, 2, 255))),
    "none": lambda *_: b"",
    "gzip": lambda one, raw: framed(mutated(gzip.compress(raw), one), 1),
    "bomb": lambda *_: framed(BOMB, 1),
}
"""Bodies that are no message, or not the one that they say."""
GOOD_BODY = framed(good().SerializeToString())
ATTACKS = (*IN_FIELDS, *IN_REQUEST, *IN_TENSOR, *IN_BODY, "raw")


def bad_call(chance: random.Random) -> tuple[str, dict[str, str], bytes]:
    """Make a call that is wrong in one way: its name, its fields, its body."""
    request, fields = good(), dict(FIELDS)
    name = chance.choice(ATTACKS)
    if name in IN_FIELDS:
        field, values = IN_FIELDS[name]
        fields[field] = chance.choice(values)
    elif name in IN_REQUEST:
        request.MergeFrom(Request(**IN_REQUEST[name](chance, request)))
    elif name in IN_TENSOR:
        part, choices = IN_TENSOR[name]
        tensor = request.inputs[chance.randrange(3)]
        tensor.ClearField(part)
        tensor.MergeFrom(type(tensor)(**{part: chance.choice(choices)}))
    elif name in IN_BODY:
        if name in ("gzip", "bomb"):
            fields["grpc-encoding"] = "gzip"
        return name, fields, IN_BODY[name](chance, request.SerializeToString())
    else:
        request.raw_input_contents[chance.randrange(3)] = chance.randbytes(chance.choice((0, 1, 3, 5, 9, 5000)))
    return name, fields, framed(request.SerializeToString())


class Client:
    """A connection that sends what it is told, whether it is right or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.stream = 1
        self.calls = 0

    @classmethod
    async def connect(cls, port: int) -> Client:
        """Begin a connection."""
        one = cls(*await asyncio.open_connection("127.0.0.1", port))
        one.writer.write(HELLO)
        return one

    async def call(self, fields: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes, bool]:
        """Call; gives all fields of the answer, its body, and whether the connection goes on."""
        stream, self.stream = self.stream, self.stream + 2
        block = self.encoder.encode(list(fields.items()))
        parts = [frame(HEADERS, END_HEADERS, stream, block)]
        parts += [frame(DATA, 0, stream, body[offset : offset + 16_384]) for offset in range(0, len(body), 16_384)]
        self.writer.write(b"".join((*parts, frame(DATA, END_STREAM, stream))))
        self.calls += 1
        found: dict[str, str] = {}
        content = b""
        while True:
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == HEADERS:
                found |= {str(name): str(value) for name, value in self.decoder.decode(payload)}
            elif kind == DATA:
                content += payload
                if payload:
                    self.writer.write(frame(8, 0, 0, len(payload).to_bytes(4, "big")))
            elif kind == GOAWAY:
                return found, content, False
            elif kind == RST_STREAM and number == stream:
                return found, content, True
            if number == stream and kind in (HEADERS, DATA) and flags & END_STREAM:
                return found, content, True


class Fuzz:
    """What is asked, and what came of it."""

    def __init__(self, port: int, seed: int, rate: float) -> None:
        self.port = port
        self.seed = seed
        self.pause = CONNECTIONS / rate
        self.statuses: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.refused = self.broken = self.good_after_all = 0

    async def calls(self, place: int, count: int) -> None:
        """Make bad calls, one after the other."""
        chance = random.Random(self.seed * 1000 + place)  # noqa: S311 -- repeatable
        client = await Client.connect(self.port)
        due = time.perf_counter()
        while self.refused < count:
            due = await paced(due, self.pause)
            name, fields, body = bad_call(chance)
            try:
                found, _, going = await asyncio.wait_for(client.call(fields, body), 20)
            except (EOFError, OSError, TimeoutError) as error:
                self.wrong.append(f"{name}: {error!r} for {body[:200]!r}")
                going, found = False, {}
            self.judge(name, found)
            if not going:
                client.writer.close()
                client = await Client.connect(self.port)
        client.writer.close()

    def judge(self, name: str, found: dict[str, str]) -> None:
        """Compare an answer with what is promised."""
        status = found.get("grpc-status", found.get(":status", "reset"))
        self.statuses[status] += 1
        said = found.get("grpc-message", "")
        if status == "0":
            self.good_after_all += 1
            return
        self.refused += 1
        self.kinds[name] += 1
        if status not in ("3", "4", "5", "8", "12", "13", "415", "reset") or LEAKS.search(said):
            self.wrong.append(f"{name}: status {status} {said[:200]}")

    async def breaks(self, place: int, count: int) -> None:
        """Send broken frames, each time over a connection of its own."""
        chance = random.Random(self.seed * 7777 + place)  # noqa: S311 -- as above
        block = hpack.Encoder().encode(list(FIELDS.items()))
        body = framed(good().SerializeToString())
        right = HELLO + b"".join(
            frame(HEADERS, END_HEADERS, stream, block)
            + frame(DATA, END_STREAM, stream, body)
            + frame(6, 0, 0, bytes(8))
            for stream in (1, 3)
        )
        due = time.perf_counter()
        while self.broken < count:
            due = await paced(due, self.pause)
            self.broken += 1
            keep = chance.choice((0, len(PREFACE), len(HELLO), len(HELLO)))
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(right[:keep] + mutated(right[keep:], chance))
            writer.write_eof()
            try:
                await asyncio.wait_for(reader.read(), 20)
            except ConnectionError:
                self.statuses["connection reset"] += 1
            except TimeoutError:
                self.wrong.append("a broken connection was kept open")
            writer.close()


class Good:
    """Good calls at one rate all the time, whatever the answers take."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.parts = {name: Asked() for name in ("before", "beside bad calls", "beside broken frames", "after")}
        self.part = "before"
        self._free: list[Client] = []

    async def asks(self, stop: asyncio.Event) -> None:
        """Make them until told to stop."""
        due, tasks = time.perf_counter(), set[asyncio.Task[None]]()
        while not stop.is_set():
            due = await paced(due, 1 / GOOD_RATE)
            task = asyncio.create_task(self._one(due, self.parts[self.part]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for client in self._free:
            client.writer.close()

    async def _one(self, due: float, asked: Asked) -> None:
        try:
            client = self._free.pop() if self._free else await Client.connect(self.port)
            found, content, going = await asyncio.wait_for(client.call(FIELDS, GOOD_BODY), 20)
            if found.get("grpc-status") != "0" or b"UA" not in content:
                asked.failed.append(f"a good call got {found}")
            if going:
                self._free.append(client)
            asked.seconds.append(time.perf_counter() - due)
        except (EOFError, OSError, TimeoutError) as error:
            asked.failed.append(f"a good call got {error!r}")

    async def beside(self, found: Fuzz, arguments: argparse.Namespace) -> Fuzz:
        """Make them alone, beside bad calls, beside broken frames, and alone again; gives what came of the bad."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        asking = asyncio.create_task(self.asks(stop))
        await asyncio.sleep(arguments.alone)
        # As in `fuzz_http`: a process of their own, which leaves the core to the good ones.
        with ProcessPoolExecutor(1, initializer=os.nice, initargs=(5,)) as pool:
            await loop.run_in_executor(pool, os.getpid)
            for self.part, kind, count in (
                ("beside bad calls", "calls", arguments.bad),
                ("beside broken frames", "breaks", arguments.broken),
            ):
                found = await loop.run_in_executor(pool, attacked, found, kind, count)
        self.part = "after"
        await asyncio.sleep(arguments.alone)
        stop.set()
        await asking
        return found


def attacked(found: Fuzz, kind: str, count: int) -> Fuzz:
    """Attack over all connections at once."""

    async def all_of_them() -> None:
        await asyncio.gather(*(getattr(found, kind)(place, count) for place in range(CONNECTIONS)))

    uvloop.run(all_of_them())
    return found


async def paced(due: float, pause: float) -> float:
    """Wait until the next one is due; gives when that was."""
    due += pause
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    return due


def megabytes(pid: int) -> float:
    """Give a process's proportional share of memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]  # the kernel writes it


async def fuzz(arguments: argparse.Namespace, folder: Path) -> int:
    """Start a runtime, attack it, and tell."""
    echo().write(folder)
    digest = "sha256:" + hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]), str(other.getsockname()[1])]
    options = ["--model-dir", str(folder), "--name", "toy", "--version", "c0ffee1234", "--model-digest", digest]
    options += ["--host", "127.0.0.1", "--port", ports[0], "--grpc-port", ports[1]]
    log = folder / "log"
    with log.open("wb") as file:
        runtime = await asyncio.create_subprocess_exec(sys.executable, "-m", "slipway_runtime", *options, stderr=file)
    try:
        print(apart(runtime.pid))
        one_fuzz = Fuzz(int(ports[1]), arguments.seed, arguments.rate)
        for _ in range(400):
            with contextlib.suppress(OSError):
                await (await Client.connect(one_fuzz.port)).call(FIELDS, framed(good().SerializeToString()))
                break
            await asyncio.sleep(0.05)
        before = megabytes(runtime.pid)
        begun = time.perf_counter()
        good_ones = Good(one_fuzz.port)
        one_fuzz = await good_ones.beside(one_fuzz, arguments)
        seconds = time.perf_counter() - begun
        after = megabytes(runtime.pid)
        faults = await faults_of(int(ports[0]))
        lives = runtime.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            runtime.kill()
        await runtime.wait()
    failed = faults if lives else ["the runtime ended"]
    return report(one_fuzz, good_ones.parts, seconds, (before, after), failed, log.read_text())


def report(
    found: Fuzz,
    parts: dict[str, Asked],
    seconds: float,
    memory: tuple[float, float],
    failed: list[str],
    log: str,
) -> int:
    """Print what came of it; gives the exit status."""
    print(f"{found.refused} bad calls refused, {found.broken} broken connections, in {seconds:.0f} s")
    print("  " + ", ".join(f"{name} {count}" for name, count in found.kinds.most_common()))
    print("  by status: " + ", ".join(f"{status}: {count}" for status, count in found.statuses.most_common()))
    print(f"  {found.good_after_all} turned out to be good")
    for name, part in parts.items():
        print(f"{name}: {part.shown()}")
    alone = statistics.median(parts["before"].seconds + parts["after"].seconds)
    beside = statistics.median(parts["beside bad calls"].seconds)
    print(f"good calls beside bad ones took {beside / alone:.2f} times as long as alone (medians)")
    print(f"memory {memory[0]:.0f} MB before, {memory[1]:.0f} MB after")
    failed += [*found.wrong, *(line for part in parts.values() for line in part.failed)]
    failed += [f"logged: {line[:300]}" for line in log.splitlines() if '"trace"' in line or "Traceback" in line]
    if memory[1] > memory[0] + 80:
        failed.append("the runtime kept the memory")
    for line in failed[:20]:
        print(f"FAILED {line}")
    return 1 if failed else 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bad", type=int, default=20_000, help="bad calls that must be refused")
    parser.add_argument("--broken", type=int, default=2000, help="connections with broken frames")
    parser.add_argument("--rate", type=float, default=500, help="bad calls, or broken connections, a second")
    parser.add_argument("--alone", type=float, default=8, help="seconds of good calls alone, before and after")
    parser.add_argument("--seed", type=int, default=1)
    with tempfile.TemporaryDirectory(prefix="slipway-secret-place-") as name:
        return uvloop.run(fuzz(parser.parse_args(), Path(name)))


if __name__ == "__main__":
    sys.exit(main())
