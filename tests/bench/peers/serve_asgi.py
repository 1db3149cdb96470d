"""The least that an ASGI application on uvicorn can do: orjson, NumPy, ONNX Runtime, no checks at all."""
# mypy: ignore-errors

import os
import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"])
wanted = session.get_inputs()
HEADERS = [(b"content-type", b"application/json")]


async def app(scope, receive, send):
    """Answer an infer request of the Open Inference Protocol."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    given = orjson.loads(body)["inputs"]
    arrays = [
        np.array(one["data"], object if one["datatype"] == "BYTES" else np.float32).reshape(one["shape"])
        for one in given
    ]
    names = [wanted[0].name] if len(given) == 1 else [one["name"] for one in given]
    labels, chances = session.run(None, dict(zip(names, arrays, strict=True)))
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": labels.shape, "data": labels.ravel()},
        {"name": "probabilities", "datatype": "FP32", "shape": chances.shape, "data": chances.ravel()},
    ]
    answer = orjson.dumps({"model_name": "bench", "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
