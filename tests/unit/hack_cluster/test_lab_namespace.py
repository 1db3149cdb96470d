"""The namespace of the chart goes with the demo only if the demo made it and nobody else uses it."""

from __future__ import annotations

from typing import Any

import pytest

from lab.install import MADE_BY_LAB, NAMESPACE, remove_namespace

LEFT = [("ConfigMap", "kube-root-ca.crt"), ("ConfigMap", "slipway-image-volumes")]


class Cluster:
    """A kubectl's answers."""

    def __init__(self, labels, held):
        self.namespace = {"metadata": {"name": NAMESPACE, "labels": labels}} if labels is not None else None
        self.held = [{"kind": kind, "metadata": {"name": name}} for kind, name in held]
        self.held.append({"kind": "Pod", "metadata": {"name": "slipway-0", "ownerReferences": [{"name": "slipway"}]}})
        self.deleted = []

    def get(self, *_):
        return self.namespace

    def list(self, *_):
        return self.held

    def delete(self, *which):
        self.deleted.append(which)


@pytest.mark.parametrize(
    ("labels", "held", "goes", "said"),
    [
        pytest.param({MADE_BY_LAB: "true"}, LEFT, True, "is gone", id="made-by-the-demo"),
        pytest.param({MADE_BY_LAB: "true"}, [*LEFT, ("Secret", "mine")], False, "holds Secret mine", id="used"),
        pytest.param({"name": NAMESPACE}, LEFT, False, "was there before", id="of-somebody-else"),
        pytest.param(None, [], False, "is gone", id="gone-already"),
    ],
)
def test_the_namespace_of_the_chart_goes_only_when_it_is_nobody_s(labels, held, goes, said):
    cluster: Any = Cluster(labels, held)

    assert said in remove_namespace(cluster)
    assert cluster.deleted == ([("namespace", NAMESPACE)] if goes else [])
