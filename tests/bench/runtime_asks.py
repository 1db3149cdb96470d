"""What `bench_runtime.py` sends, in each peer's form, and whether an answer is the right one."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from tests.bench.runtime_everything import authority
from tests.bench.runtime_models import BenchModel
from tests.bench.runtime_peers import Peer, Ports
from tests.bench.runtime_wire import Request, trusting

METHOD = "/inference.GRPCInferenceService/ModelInfer"
LARGEST_ROWS, LARGEST_BYTES = 65_536, 16 << 20
"""What the runtime takes at most in one request, as it is installed."""
FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, http.client.HTTPException)
"""What goes wrong where a server answers something else; it is told in the table and ends no run."""
_TENSOR_TYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT32": "<i4", "UINT8": "u1", "BOOL": "?"}
_TYPED = {"INT64": "int64_contents", "INT32": "int_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}


@cache
def request_for(peer: Peer, model: BenchModel, form: str, rows: int) -> Request:
    """Write what a peer is asked.

    Args:
        peer: Who is asked.
        model: What is served.
        form: json, binary, grpc, health, csv (rows at the plain door).
        rows: How many; a model's hundred are sent again and again.
    """
    if form == "health":
        return Request("/v2/health/live", b"", peer.headers, "GET")
    if form == "grpc":
        return Request(METHOD, _grpc_body(peer, model, rows), {**peer.headers, "Content-Type": "application/grpc"})
    if form == "binary":
        body, length = _binary_body(peer, model, rows)
        binary = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
        return Request(peer.path, body, {**peer.headers, **binary})
    if form == "csv":
        return Request("/predict", _csv_body(model, rows), {**peer.headers, "Content-Type": "text/csv"})
    if peer.plain:
        path, document = peer.path if model.is_matrix else peer.table_path, {"rows": _plain_rows(model, rows)}
    else:
        path, document = peer.path, {**_hint(peer, model), "inputs": _tensors(peer, model, rows)}
    return Request(path, json.dumps(document).encode(), {**peer.headers, "Content-Type": "application/json"})


@cache
def largest_request_for(peer: Peer, model: BenchModel, form: str) -> tuple[Request, int]:
    """Write the largest request that the runtime takes, in a peer's form; gives it, and its rows.

    Args:
        peer: Who is asked.
        model: What is served.
        form: csv, objects (both at the plain door), json (as the peer takes it).
    """
    if form == "objects":
        rows = int(LARGEST_BYTES * 0.99 / (len(json.dumps(_objects(model, 100))) / 100))
        body = json.dumps({"rows": _objects(model, min(rows, LARGEST_ROWS))}).encode()
        request = Request("/predict", body, {**peer.headers, "Content-Type": "application/json"})
    else:
        one = len(request_for(peer, model, form, 1000).body) / 1000
        rows = int(LARGEST_BYTES * 0.99 / one)
        request = request_for(peer, model, form, min(rows, LARGEST_ROWS))
    return request, min(rows, LARGEST_ROWS)


def _some(model: BenchModel, rows: int) -> list[list[Any]]:
    return (model.rows * -(-rows // len(model.rows)))[:rows]


def _objects(model: BenchModel, rows: int) -> list[dict[str, Any]]:
    return [dict(zip(model.columns, row, strict=True)) for row in _some(model, rows)]


def _plain_rows(model: BenchModel, rows: int) -> list[Any]:
    return _some(model, rows) if model.is_matrix else _objects(model, rows)


def _csv_body(model: BenchModel, rows: int) -> bytes:
    lines = [model.columns, *_some(model, rows)]
    return "\n".join(",".join(map(str, line)) for line in lines).encode()


def _hint(peer: Peer, model: BenchModel) -> dict[str, Any]:
    """Say that the tensors are a table's columns, to those that want to be told."""
    return {"parameters": {"content_type": "pd"}} if peer.wants_hints and not model.is_matrix else {}


def _tensors(peer: Peer, model: BenchModel, rows: int) -> list[dict[str, Any]]:
    """Write rows as the protocol's tensors: one matrix or, with strings among them, one for each column."""
    some = _some(model, rows)
    if model.is_matrix:
        flat = [value for row in some for value in row]
        return [{"name": "input", "datatype": "FP32", "shape": [rows, len(model.columns)], "data": flat}]
    tensors = []
    for place, name in enumerate(model.columns):
        is_text = isinstance(some[0][place], str)
        tensor = {"name": name, "datatype": "BYTES" if is_text else "FP32", "shape": [rows, 1]}
        hint = {"parameters": {"content_type": "str"}} if is_text and peer.wants_hints else {}
        tensors.append({**tensor, **hint, "data": [row[place] for row in some]})
    return tensors


def _raw(tensor: dict[str, Any]) -> bytes:
    """Write a tensor's values as the binary extension and gRPC have them."""
    if tensor["datatype"] == "BYTES":
        texts = [text.encode() for text in tensor["data"]]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(tensor["data"], _TENSOR_TYPES[tensor["datatype"]]).tobytes()


def _binary_body(peer: Peer, model: BenchModel, rows: int) -> tuple[bytes, int]:
    """Write an infer request with raw tensors; gives it, and where its JSON ends."""
    inputs, parts = [], []
    for tensor in _tensors(peer, model, rows):
        parts.append(_raw(tensor))
        parameters = {**tensor.get("parameters", {}), "binary_data_size": len(parts[-1])}
        inputs.append({**{key: tensor[key] for key in ("name", "datatype", "shape")}, "parameters": parameters})
    asked = {**_hint(peer, model).get("parameters", {}), "binary_data_output": True}
    document = json.dumps({"inputs": inputs, "parameters": asked}).encode()
    return document + b"".join(parts), len(document)


def _grpc_body(peer: Peer, model: BenchModel, rows: int) -> bytes:
    """Write a call's body: one message, its values raw."""
    from slipway_runtime.grpc.messages import message_class  # noqa: PLC0415 -- the other forms need none of it

    message = message_class("inference.ModelInferRequest")(model_name="bench")
    for key, text in _hint(peer, model).get("parameters", {}).items():
        message.parameters[key].string_param = text
    for tensor in _tensors(peer, model, rows):
        added = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        for key, text in tensor.get("parameters", {}).items():
            added.parameters[key].string_param = text
        message.raw_input_contents.append(_raw(tensor))
    written: bytes = message.SerializeToString()
    return b"\0" + len(written).to_bytes(4, "big") + written


def check(peer: Peer, ports: Ports, model: BenchModel, form: str, rows: int) -> float:
    """Ask twice and compare with what the model itself says; gives the seconds of the second time.

    Raises:
        RuntimeError: If the answer is another one; others of ``FAILURES`` where it is none at all.
    """
    request = request_for(peer, model, form, rows)
    answer = _by_grpc if form == "grpc" else _by_http
    took = 0.0
    for _ in range(2):
        began = perf_counter()
        outputs = answer(peer, ports, request)
        took = perf_counter() - began
    if not peer.is_limit:
        compare(outputs, model, rows)
    return took


def first_answer(peer: Peer, model: BenchModel) -> Callable[[Ports], bool]:
    """Give what tells whether a server answers one row rightly over HTTP, for ``serving``."""
    request = request_for(peer, model, "json", 1)

    def is_right(ports: Ports) -> bool:
        try:
            outputs = _by_http(peer, ports, request)
            if not peer.is_limit:
                compare(outputs, model, 1)
        except FAILURES:
            return False
        return True

    return is_right


def compare(outputs: dict[str, np.ndarray], model: BenchModel, rows: int) -> None:
    """Compare labels, and probabilities where they are told, with those of the model.

    Raises:
        RuntimeError: If they differ.
    """
    labels = next((outputs[name] for name in ("label", "labels", "predict") if name in outputs), None)
    if labels is None or list(labels.ravel()) != model.labels[:rows]:
        raise RuntimeError(f"a wrong answer: {str(labels)[:80]} instead of {str(model.labels[:rows])[:80]}")
    chances = outputs.get("probabilities")
    if chances is not None and np.abs(chances.reshape(rows, -1)[:, -1] - model.chances[:rows]).max() > 1e-4:
        raise RuntimeError(f"wrong probabilities: {str(chances)[:80]}")


def _by_http(peer: Peer, ports: Ports, request: Request) -> dict[str, np.ndarray]:
    connection = (
        http.client.HTTPSConnection("127.0.0.1", ports.http, timeout=20, context=trusting())
        if peer.is_secure
        else http.client.HTTPConnection("127.0.0.1", ports.http, timeout=20)
    )
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {body[:200].decode(errors='replace')}")
    if not body or peer.is_limit:
        return {}
    length = int(answer.headers.get("Inference-Header-Content-Length", len(body)))
    document, raw = json.loads(body[:length]), body[length:]
    if "outputs" not in document:
        return {name: np.array(values) for name, values in document.items()}
    outputs = {}
    for tensor in document["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = np.array(tensor["data"])
        else:
            outputs[tensor["name"]], raw = np.frombuffer(raw[:size], _TENSOR_TYPES[tensor["datatype"]]), raw[size:]
    return outputs


def _by_grpc(peer: Peer, ports: Ports, request: Request) -> dict[str, np.ndarray]:
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 -- the other forms need none of it

    from slipway_runtime.grpc.messages import message_class  # noqa: PLC0415 -- as above

    address = f"127.0.0.1:{ports.grpc}"
    trusted = grpc.ssl_channel_credentials(authority().cert_pem.bytes()) if peer.is_secure else None
    metadata = [(name.lower(), text) for name, text in peer.headers.items()]
    with grpc.secure_channel(address, trusted) if trusted else grpc.insecure_channel(address) as channel:
        try:
            call = channel.unary_unary(METHOD)
            body = call(request.body[5:], timeout=20, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name}: {error.details()[:200]}") from None
    message = message_class("inference.ModelInferResponse").FromString(body)
    outputs = {}
    for place, tensor in enumerate(message.outputs):
        if message.raw_output_contents:
            raw = message.raw_output_contents[place]
            outputs[tensor.name] = np.frombuffer(raw, _TENSOR_TYPES[tensor.datatype])
        else:
            outputs[tensor.name] = np.array(getattr(tensor.contents, _TYPED[tensor.datatype]))
    return outputs
