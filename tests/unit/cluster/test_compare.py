"""When an object is as a plan wants it, and when it is not."""

from __future__ import annotations

import copy

import pytest

from slipway_operator.cluster.compare import is_as_wanted, marked
from slipway_operator.plan.observed import Manifest

WANTED: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "x", "namespace": "n", "labels": {"a": "b"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "1024Mi", "cpu": "0.5"}}}]}
        },
        "egress": [{}],
    },
}


def stored():
    """As the API server keeps it: defaults added, quantities in its own form."""
    live = copy.deepcopy(marked(WANTED))
    live["metadata"].update(uid="u", resourceVersion="5", generation=3)
    live["spec"]["strategy"] = {"type": "RollingUpdate"}
    container = live["spec"]["template"]["spec"]["containers"][0]
    container.update(imagePullPolicy="Always", resources={"limits": {"memory": "1Gi", "cpu": "500m"}})
    live["status"] = {"replicas": 2}
    return live


def test_defaults_and_other_forms_of_a_quantity_are_no_difference():
    assert is_as_wanted(WANTED, stored())


@pytest.mark.parametrize(
    "change",
    [
        lambda live: live["spec"].update(replicas=3),
        lambda live: live["metadata"]["labels"].pop("a"),
        lambda live: live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"}),
        lambda live: live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].update(memory="2Gi"),
        lambda live: live["spec"].pop("egress"),
        lambda live: live["metadata"].pop("annotations"),
    ],
)
def test_drift_is_a_difference(change):
    live = stored()
    change(live)

    assert not is_as_wanted(WANTED, live)


@pytest.mark.parametrize(("one", "other"), [("1e99999999", "2e99999999"), ("00e1234567", "00e7654321"), ("1e5", "1e4")])
def test_a_digest_that_looks_like_a_number_is_compared_as_text(one, other):
    """A few of a thousand digests do: such a content would never have gone live, or an old lane been left there."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selector": {"lane": one}}}
    live = marked({**service, "spec": {"selector": {"lane": other}}})
    live["metadata"]["annotations"] = marked(service)["metadata"]["annotations"]

    assert not is_as_wanted(service, live)
    assert is_as_wanted(service, marked(service))


@pytest.mark.parametrize(
    ("one", "other"), [("1e3", "1k"), ("0.1", "100m"), (2, "2"), ("1.5Gi", "1536Mi"), (".5", "500m")]
)
def test_one_quantity_in_two_forms_is_the_same(one, other):
    claim = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"size": one}}
    live = {**marked(claim), "spec": {"size": other}}

    assert is_as_wanted(claim, live)


def test_a_field_that_the_plan_drops_is_a_difference():
    smaller = copy.deepcopy(WANTED)
    del smaller["spec"]["egress"]

    assert not is_as_wanted(smaller, stored())


def test_the_version_of_the_object_is_no_wish():
    wanted = copy.deepcopy(WANTED)
    wanted["metadata"]["resourceVersion"] = "4"

    assert is_as_wanted(wanted, stored())


def test_replicas_alone_do_not_change_the_mark():
    other = copy.deepcopy(WANTED)
    other["spec"]["replicas"] = 7

    assert marked(other)["metadata"]["annotations"] == marked(WANTED)["metadata"]["annotations"]
