"""Steady callers: each asks one question over and over and keeps count of what came back."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self


class _Asking(ABC):
    """Asks in a thread until the block ends."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.versions: Counter[str] = Counter()
        """Answers by content."""
        self.last_sent: dict[str, float] = {}
        """When the newest request was sent that a content answered (`time.monotonic`)."""
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @abstractmethod
    def _once(self) -> str:
        """Ask, and return which content answered."""

    def _ask(self) -> None:
        while not self._done.wait(self._every):
            sent = time.monotonic()
            try:
                version = self._once()
            except Exception as error:  # noqa: BLE001 - whatever it is, a request failed, and the test says which
                self.failures.append(repr(error))
                continue
            self.versions[version] += 1
            self.last_sent[version] = sent


class Caller(_Asking):
    """Asks ``/predict`` on a fresh connection each time."""

    def __init__(self, url: str, body: Mapping[str, Any], *, every: float = 0.02) -> None:
        super().__init__(every)
        self._request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - http to the lab's own address

    def _once(self) -> str:
        with urllib.request.urlopen(self._request, timeout=10) as answer:  # noqa: S310
            return str(json.loads(answer.read()).get("model_version", ""))


class GrpcCaller(_Asking):
    """Asks by NVIDIA's client, over one channel that stays open until it is opened anew."""

    def __init__(self, address: str, model: str, row: Mapping[str, float], *, every: float = 0.02) -> None:
        import numpy as np  # noqa: PLC0415 - the demo needs none of these, and is quicker without
        import tritonclient.grpc as triton  # type: ignore[import-untyped]  # noqa: PLC0415  # it ships no types
        from tritonclient.utils import triton_to_np_dtype  # type: ignore[import-untyped]  # noqa: PLC0415

        super().__init__(every)
        self._open: Callable[[], Any] = partial(triton.InferenceServerClient, address)
        self._client, self._model, self._anew = self._open(), model, False
        self._inputs = []
        for taken in self._client.get_model_metadata(model, as_json=True)["inputs"]:
            # One tensor for each column, or all of them as one matrix.
            values = [row[taken["name"]]] if taken["name"] in row else list(row.values())
            tensor = triton.InferInput(taken["name"], [1, len(values)], taken["datatype"])
            tensor.set_data_from_numpy(np.array([values], triton_to_np_dtype(taken["datatype"])))
            self._inputs.append(tensor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._client.close()

    def reopen(self) -> None:
        """Have the next request on a channel of its own."""
        self._anew = True

    def _once(self) -> str:
        if self._anew:
            self._anew = False
            self._client.close()
            self._client = self._open()
        answer = self._client.infer(self._model, self._inputs, client_timeout=10)
        return str(answer.get_response().model_version)
