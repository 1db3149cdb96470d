# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["kserve==0.21.0"]
# ///
"""The kserve client over REST (plain and binary) and gRPC; in an environment of its own, as it brings 300 MB."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import (  # type: ignore[import-not-found]  # in the script's own environment
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]  # as above

CARRIERS = np.array([["UA"], ["Ünïted"], [""]], dtype=object)
DISTANCES = np.array([[719.5], [2.25], [-1e-9]], np.float32)
MONTHS = np.array([[0], [1], [2]], np.int64)


def request(*, binary: bool, selected: bool = False) -> InferRequest:
    """Make a request of all three columns."""
    inputs = []
    for name, datatype, values in (
        ("carrier", "BYTES", CARRIERS),
        ("distance", "FP32", DISTANCES),
        ("month", "INT64", MONTHS),
    ):
        tensor = InferInput(name, [3, 1], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    outputs = [RequestedOutput("month", {"binary_data": binary})] if selected else None
    return InferRequest("toy", inputs, request_id="k-1", request_outputs=outputs)


def check(answer: object, *, selected: bool = False) -> None:
    """Compare an answer with what was sent."""
    named = {output.name: output.as_numpy() for output in answer.outputs}  # type: ignore[attr-defined]
    assert answer.id == "k-1"  # type: ignore[attr-defined]
    # From bytes, its REST side reads no model_version.
    assert answer.model_version in ("c0ffee1234", None)  # type: ignore[attr-defined]
    assert named["month"].ravel().tolist() == [10, 11, 12]
    assert set(named) == ({"month"} if selected else {"carrier", "distance", "month"})
    if not selected:
        assert np.array_equal(named["distance"].reshape(3, 1).astype(np.float32), DISTANCES)
        texts = [value.decode() if isinstance(value, bytes) else value for value in named["carrier"].ravel()]
        assert texts == CARRIERS.ravel().tolist()


async def main(rest: str, grpc: str) -> None:
    """Ask in every way."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(rest)
        assert await client.is_server_ready(rest)
        assert await client.is_model_ready(rest, "toy")
        for binary in (False, True):
            check(await client.infer(rest, request(binary=binary), model_name="toy"))
            check(await client.infer(rest, request(binary=binary, selected=True), model_name="toy"), selected=True)
    async with InferenceGRPCClient(grpc) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("toy")
        for binary in (False, True):
            check(await client.infer(request(binary=binary)))
            check(await client.infer(request(binary=binary, selected=True)), selected=True)
    print("all well")  # noqa: T201 -- what the test looks for


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
