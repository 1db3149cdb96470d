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
