"""Asks serving pods how their predictions go: the runtime's ``/metrics``, straight from each pod."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

from slipway_operator.plan.observed import Manifest, Sample
from slipway_operator.plan.ports import figures_port

TIMEOUT = aiohttp.ClientTimeout(total=2.0)
LARGEST_PAGE = 4 << 20
_PREDICTIONS = frozenset({"infer", "predict"})
"""Endpoints that count: a probe that fails is no failed prediction."""
_FAILED = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "UNIMPLEMENTED"})
"""Codes of gRPC that are what 5xx is for HTTP."""
_REFUSED = "Refused"
"""The runtime's word for values that the model itself cannot compute an answer for."""

log = structlog.get_logger()


class Figures:
    """One shared HTTP session for all pods; no proxy, no redirect: only the pod's own address is asked."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def of(self, pods: Sequence[Manifest]) -> Mapping[str, Sample]:
        """Figures by the pod's name; a pod that does not answer has none."""
        samples = await asyncio.gather(*(self._ask(p) for p in pods))
        return {p["metadata"]["name"]: s for p, s in zip(pods, samples, strict=True) if s is not None}

    async def _ask(self, pod: Manifest) -> Sample | None:
        address = str(pod["status"]["podIP"])
        host = f"[{address}]" if ":" in address else address
        try:
            url = f"http://{host}:{figures_port(pod)}/metrics"
            async with self._session.get(url, timeout=TIMEOUT, allow_redirects=False) as answer:
                return sample_of(await _page(answer)) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.info("no figures", pod=pod["metadata"]["name"], error=str(error))
            return None


async def _page(answer: aiohttp.ClientResponse) -> str:
    """The whole page, in however many parts it comes: half of a number is one too, but another.

    Raises:
        ValueError: it is larger than any runtime's.
    """
    page = bytearray()
    async for part in answer.content.iter_any():
        page += part
        if len(page) > LARGEST_PAGE:
            raise ValueError(f"the page is larger than {LARGEST_PAGE} bytes")
    return page.decode()


def sample_of(text: str) -> Sample:
    """Read a page in Prometheus' text format.

    Raises:
        ValueError: it is not one.
    """
    requests = errors = refused = 0
    buckets: dict[float, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "slipway_failures_total" and sample.labels.get("kind") == _REFUSED:
                refused += int(sample.value)
            if sample.labels.get("endpoint") not in _PREDICTIONS:
                continue
            if sample.name == "slipway_requests_total":
                code = sample.labels.get("code", "")
                requests += int(sample.value)
                errors += int(sample.value) if code.startswith("5") or code in _FAILED else 0
            elif sample.name == "slipway_request_duration_seconds_bucket":
                bound = float(sample.labels.get("le", math.inf))
                buckets[bound] = buckets.get(bound, 0) + int(sample.value)
    return Sample(requests=requests, errors=errors, refused=refused, buckets=tuple(sorted(buckets.items())))
