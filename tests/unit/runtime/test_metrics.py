"""Numbers to watch: what is counted, that it adds up over pods, and that it says how far values have moved."""

from __future__ import annotations

import math
import re

import numpy as np
import orjson
import pytest

from slipway_runtime.metrics import FAMILIES, Histogram, Metrics
from slipway_runtime.model import load_model
from slipway_runtime.observing.drift import largest_distance, stability_index
from slipway_runtime.observing.families import added, escaped
from slipway_runtime.observing.reference import read_reference
from slipway_runtime.observing.values import ValueCounts
from slipway_runtime.protocol.signature import read_signature

PATH = "/v2/models/toy/infer"


def samples(text: str) -> dict[str, float]:
    """Read Prometheus' text format: value by series, the labels that all have left out."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        series, value = line.rsplit(" ", 1)
        found[re.sub(r'model="toy",content="\w+",?', "", series)] = float(value)
    return found


def flights() -> dict:
    """A reference of the echo's columns."""
    return {
        "rows": 10,
        "features": [
            {"name": "carrier", "input": "carrier", "column": 0, "categories": {"UA": 6, "AA": 3}, "other": 1,
             "known": ["DL"], "missing": 0},
            {"name": "distance", "input": "distance", "column": 0, "edges": [0.1, 700.0, 900.0],
             "counts": [1, 5, 4, 0], "missing": 0},
            {"name": "month", "input": "month", "column": 0, "edges": [0.0, 1.0, 2.0], "counts": [3, 3, 4, 0],
             "missing": 0},
        ],
        "outputs": [
            {"output": "month", "column": 0, "edges": [10.0, 11.0, 12.0], "counts": [3, 3, 4, 0], "missing": 0},
        ],
    }  # fmt: skip


@pytest.fixture
def signature(parts):
    return read_signature(orjson.dumps(parts.echo().signature))


def feeds(carriers, distances, months):
    carrier = np.empty((len(carriers), 1), dtype=object)
    carrier[:, 0] = carriers
    distance = np.array(distances, "float32").reshape(-1, 1)
    given = {"carrier": carrier, "distance": distance, "month": np.array(months, "int64").reshape(-1, 1)}
    return given, [carrier, distance, 10 + given["month"].astype("float32")]


@pytest.fixture
def counting(signature):
    metrics = Metrics("toy", "v1")
    values = ValueCounts(read_reference(orjson.dumps(flights()), signature, most=100), signature)
    metrics.watch(values)
    return metrics


def unbounded(metrics):
    """Let the next batch be counted, however fast they come."""
    metrics._values._allowance = 1.0
    return metrics


def take(metrics, *columns):
    given, outputs = feeds(*columns)
    metrics.ran(len(columns[0]), 0.001, given, outputs)


def test_values_are_counted_by_the_references_bins(counting):
    take(counting, ["UA", "DL", "ZZ", "(none)"], [0.1, math.nan, 700.5, math.inf], [0, 1, 2, 7])
    found = samples(counting.render().decode())

    assert found["slipway_observed_rows_total{}"] == 4
    assert found['slipway_feature_category_total{feature="carrier",category="UA"}'] == 1
    assert found['slipway_feature_category_total{feature="carrier",category="AA"}'] == 0
    assert found['slipway_feature_other_total{feature="carrier"}'] == 1
    assert found['slipway_feature_unseen_total{feature="carrier"}'] == 1
    assert found['slipway_feature_missing_total{feature="carrier"}'] == 1
    assert found['slipway_feature_value_bucket{feature="distance",le="0.1"}'] == 1
    assert found['slipway_feature_value_bucket{feature="distance",le="700.0"}'] == 1
    assert found['slipway_feature_value_bucket{feature="distance",le="900.0"}'] == 2
    assert found['slipway_feature_value_bucket{feature="distance",le="+Inf"}'] == 3
    assert found['slipway_feature_value_sum{feature="distance"}'] == pytest.approx(700.6)
    assert found['slipway_feature_missing_total{feature="distance"}'] == 1
    assert found['slipway_prediction_value_bucket{output="month",le="12.0"}'] == 3
    assert found['slipway_reference_ratio{feature="distance",le="700.0"}'] == 0.6
    assert found['slipway_reference_ratio{feature="carrier",category="AA"}'] == 0.3


def test_many_batches_count_as_one(counting, signature):
    make = np.random.default_rng(2)
    carriers = make.choice(["UA", "AA", "DL", "new"], 1500).tolist()
    distances, months = make.normal(700, 200, 1500), make.integers(0, 4, 1500)
    for start in range(1500):
        take(unbounded(counting), *(column[start : start + 1] for column in (carriers, distances, months)))
    at_once = Metrics("toy", "v1")
    at_once.watch(ValueCounts(read_reference(orjson.dumps(flights()), signature, most=100), signature))
    for start in range(0, 1500, 300):
        take(unbounded(at_once), *(column[start : start + 300] for column in (carriers, distances, months)))

    one, other = counting.state(), at_once.state()
    for family in one:
        if "feature" in family or "prediction" in family or "observed" in family:
            for labels, numbers in one[family].items():
                assert other[family][labels] == pytest.approx(numbers), (family, labels)
    assert one["slipway_observed_rows_total"][""] == [1500]


def test_pods_add_up_to_the_index_of_all_their_rows(signature):
    """PSI and KS from the summed counters are those of the rows themselves."""
    make = np.random.default_rng(3)
    expected = make.normal(0, 1, 2000)
    edges = np.quantile(expected, np.linspace(0, 1, 11)).astype("float32").astype("float64")
    bins = np.bincount(np.searchsorted(edges, expected), minlength=12)
    told = flights()
    told["features"] = [
        {"name": "distance", "input": "distance", "column": 0, "edges": edges.tolist(), "counts": bins.tolist()}
    ]
    live = make.normal(0.4, 1.2, 3000).astype("float32")
    pods = []
    for part in np.split(live, 3):
        pod = Metrics("toy", "v1")
        pod.watch(ValueCounts(read_reference(orjson.dumps(told), signature, most=100), signature))
        for rows in np.split(part, 10):
            take(unbounded(pod), ["UA"] * 100, rows, [0] * 100)
        pods.append(pod)
    pods[0].others = lambda: [pod.state() for pod in pods[1:]]

    found = samples(pods[0].render().decode())

    assert found['slipway_feature_value_count{feature="distance"}'] == 3000
    shares = [np.bincount(np.searchsorted(edges, rows), minlength=12) for rows in (expected, live.astype("float64"))]
    a, b = ((counts + (counts == 0) * 0.5) for counts in shares)
    a, b = a / a.sum(), b / b.sum()
    assert found['slipway_feature_psi{feature="distance"}'] == pytest.approx(float(((b - a) * np.log(b / a)).sum()))
    assert found['slipway_feature_psi{feature="distance"}'] > 0.1
    distance = max(abs((expected <= edge).mean() - (live <= edge).mean()) for edge in edges)
    assert found['slipway_feature_ks{feature="distance"}'] == pytest.approx(distance)


def test_equal_counts_are_no_drift():
    assert stability_index([1, 2, 3], [10, 20, 30]) == pytest.approx(0)
    assert largest_distance([1, 2, 3], [10, 20, 30]) == pytest.approx(0)
    assert stability_index([1, 2], [0, 0]) == largest_distance([1, 2], [0, 0]) == 0


def test_counting_stops_when_its_share_of_the_time_is_used(counting):
    counting._values._allowance = 0.0
    take(counting, ["UA"], [1.0], [1])

    assert counting._values.rows == 0
    assert counting._values._kept == []


def test_large_requests_are_sampled(counting):
    take(counting, ["UA"] * 10_000, [1.0] * 10_000, [1] * 10_000)

    assert counting.state()["slipway_observed_rows_total"][""] == [500]
    assert counting.state()["slipway_rows_total"][""] == [10_000]


@pytest.mark.parametrize(
    "change",
    [
        {"features": None},
        {"features": [{"name": "x", "input": "nowhere", "column": 0, "edges": [], "counts": [0]}]},
        {"features": [{"name": "distance", "input": "distance", "column": 1, "edges": [], "counts": [0]}]},
        {"features": [{"name": "distance", "input": "distance", "column": 0, "edges": [2, 1], "counts": [0, 0, 0]}]},
        {"features": [{"name": "distance", "input": "distance", "column": 0, "edges": [1], "counts": [0]}]},
    ],
)
def test_a_reference_that_cannot_be_is_not_taken(signature, change):
    with pytest.raises(ValueError, match=r"reference\.json"):
        read_reference(orjson.dumps(flights() | change), signature, most=100)


@pytest.mark.parametrize(("reference", "series"), [(flights(), True), ({"features": 1}, False), (None, False)])
async def test_a_model_is_served_with_and_without_a_reference(start, parts, tmp_path, reference, series):
    (tmp_path / "0").mkdir()
    if reference is not None:
        (tmp_path / "0" / "reference.json").write_bytes(orjson.dumps(reference))
    served = await start(parts.echo())
    body = orjson.dumps({"rows": [{"carrier": "UA", "distance": 719, "month": 2}]})

    raw = await served.send(
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    )

    found = samples(raw.rpartition(b"\r\n\r\n")[2].decode())
    assert found['slipway_requests_total{endpoint="predict",code="200"}'] == 1
    assert ('slipway_feature_category_total{feature="carrier",category="UA"}' in found) is series
    # Each step of the one prediction was timed.
    for step in ("parse", "queue", "run", "encode"):
        assert found[f'slipway_step_duration_seconds_count{{step="{step}"}}'] == 1


async def test_errors_are_counted_by_kind(start):
    served = await start()
    for path, body in ((PATH, b"{"), ("/v2/models/other/infer", b"{}"), ("/predict", b'{"rows":[{"a":null,"b":1}]}')):
        await served.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    found = samples(served.metrics.render().decode())
    for kind in ("InvalidRequest", "UnknownModel", "Refused"):
        assert found[f'slipway_failures_total{{kind="{kind}"}}'] == 1


def test_a_histogram_counts_what_is_at_most_its_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.5):
        histogram.observe(value)

    histogram.settle()
    histogram.settle()
    assert histogram.numbers() == [2, 1, 1, 5.5]


def test_states_add_up_but_for_readiness():
    one, other = Metrics("toy", "v"), Metrics("toy", "v")
    one.answered("infer", 200, 0.1)
    other.answered("infer", 200, 0.2)
    one.ready = True

    total = added((one.state(), other.state()), FAMILIES)

    assert total["slipway_requests_total"]['endpoint="infer",code="200"'] == [2]
    assert total["slipway_request_duration_seconds"]['endpoint="infer"'][-1] == pytest.approx(0.3)
    assert total["slipway_ready"][""] == [0]


DOUBLES = read_signature(
    orjson.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}],
            "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [-1]}],
        }
    )
)
ENORMOUS = [[1e308], [1e308]]
SUM = 'slipway_feature_value_sum{feature="x"}'


def of_doubles(*batches: list[list[float]]) -> Metrics:
    """Count batches of one column."""
    feature = {"name": "x", "input": "x", "column": 0, "edges": [1.0], "counts": [1, 1]}
    metrics = Metrics("toy", "v1")
    reference = read_reference(orjson.dumps({"features": [feature], "outputs": []}), DOUBLES, most=10)
    metrics.watch(ValueCounts(reference, DOUBLES))
    for batch in batches:
        metrics.ran(len(batch), 0.001, {"x": np.array(batch)}, [np.zeros(len(batch))])
        metrics.tick()
    return metrics


def test_rows_whose_sum_is_infinite_are_counted_and_stay_out_of_the_sum():
    found = samples(of_doubles([[2.0]], ENORMOUS, [[3.0]]).render().decode())

    assert found[SUM] == 5.0
    assert found['slipway_feature_value_bucket{feature="x",le="+Inf"}'] == 4


@pytest.mark.parametrize(("sign", "shown"), [(1, "+Inf"), (-1, "-Inf")])
def test_processes_whose_sums_add_up_to_infinity_still_have_figures(sign, shown):
    """What a sibling tells travels as JSON, which has no infinity."""
    one, other = of_doubles([[sign * 1e308]]), of_doubles([[sign * 1e308]])
    told = orjson.loads(orjson.dumps(other.state()))
    one.others = lambda: [told]

    assert f" {shown}\n" in one.render().decode()
    assert samples(one.render().decode())[SUM] == sign * math.inf


def test_names_cannot_break_out_of_their_labels():
    assert escaped('a"b\\c\nd') == 'a\\"b\\\\c\\nd'


def test_a_model_loads_its_reference(parts, tmp_path):
    options = parts.echo().write(tmp_path)
    (tmp_path / "reference.json").write_bytes(orjson.dumps(flights()))
    metrics = Metrics("toy", "v1")
    load_model(options, metrics)

    assert metrics.state()["slipway_feature_missing_total"]
    # The warm-up is no traffic.
    assert metrics.state()["slipway_observed_rows_total"][""] == [0]
