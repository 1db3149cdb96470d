"""Network policies have names that no other ModelDeployment's can have, and ports that can be read."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from slipway_operator.api import Traces
from slipway_operator.api.serving import HttpUrl

URL = TypeAdapter(HttpUrl)


def policies(world) -> dict[str, str]:
    """Owner by the policy's name."""
    return {
        p["metadata"]["name"]: p["metadata"]["labels"]["slipway.dev/owner"]
        for p in world.cluster.of_kind("NetworkPolicy")
    }


@pytest.mark.parametrize("names", [("pricing", "pricing-jobs"), ("pricing-jobs", "pricing")])
async def test_one_deployment_may_be_named_as_the_jobs_of_another(world, names):
    for name in names:
        key = world.add(name)
        await world.settle(key)
        assert world.ready(key) == ("True", "Serving")

    assert policies(world) == {
        "pricing": "pricing",
        "pricing.jobs": "pricing",
        "pricing-jobs": "pricing-jobs",
        "pricing-jobs.jobs": "pricing-jobs",
    }


async def test_the_policy_of_an_earlier_release_goes_and_frees_its_name(world):
    key = world.add("pricing")
    await world.settle(key)
    (now,) = [p for p in world.cluster.of_kind("NetworkPolicy") if p["metadata"]["name"] == "pricing.jobs"]
    world.cluster.add({**now, "metadata": {**now["metadata"], "name": "pricing-jobs", "uid": "old"}})
    other = world.add("pricing-jobs")
    for _ in range(6):
        await world.look(other)
        world.play()
    assert world.ready(other) == ("False", "NameTaken")
    await world.settle(key)
    assert sorted(policies(world)) == ["pricing", "pricing-jobs.jobs", "pricing.jobs"]
    await world.settle(key, other)

    assert policies(world)["pricing-jobs"] == "pricing-jobs"
    assert world.ready(other) == ("True", "Serving")
    world.cluster.writes.clear()
    await world.look(key)
    assert world.cluster.writes == [], "what the other one has there now stays"


@pytest.mark.parametrize("url", ["http://otel:99999/v1/traces", "http://[1.2.3]:80/", "http://[:]/x"])
async def test_a_url_that_was_stored_before_the_rule_is_told(world, url):
    """The object stays as it is, and says what to mend; a look never fails for it."""
    key = world.add()
    await world.settle(key)
    world.edit(key, "serving.traces", {"endpoint": url})
    await world.settle(key)

    assert world.ready(key) == ("False", "InvalidSpec")
    assert "spec.serving.traces.endpoint: must be an http" in world.condition(key, "Ready")["message"]


async def test_no_text_makes_a_plan_fail(world):
    """Not even one that no check has seen."""
    traces = Traces.model_construct(endpoint="https://otel:99999/", ratio=0.1)
    serving = world.settings.serving.model_copy(update={"traces": traces})
    world.settings = world.settings.model_copy(update={"serving": serving})
    key = world.add()
    await world.settle(key)
    (policy,) = [p for p in world.cluster.of_kind("NetworkPolicy") if p["metadata"]["name"] == key.name]

    assert policy["spec"]["egress"][1] == {"ports": [{"port": 443, "protocol": "TCP"}]}


@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_every_ipv6_address_is_taken(address: Any, port: int):
    for text in (str(address), address.exploded):
        if "." not in text:
            URL.validate_python(f"http://[{text}]:{port}/v1/traces")


@given(st.text("0123456789abF:.[]g", max_size=24), st.text("0123456789:", max_size=8))
def test_what_is_taken_can_be_read(host: str, port: str):
    url = f"http://[{host}]:{port}/"
    try:
        URL.validate_python(url)
    except ValidationError:
        return
    assert 1 <= (urlsplit(url).port or 0) <= 65535
