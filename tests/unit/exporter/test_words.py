# mypy: disable-error-code="import-untyped"
"""The small parts: messages that fit, thresholds that keep their side, columns that say what they hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from slipway_operator.domain.requests import TERMINATION_MESSAGE_LIMIT, ExportRequest, Failed, Registry, TrainRequest
from slipway_operator.exporter import request
from slipway_operator.exporter.columns import Evidence, kind_of
from slipway_operator.exporter.convert import _explained
from slipway_operator.exporter.example import plain_cells, plain_matrix
from slipway_operator.exporter.failure import Failure, encode
from slipway_operator.exporter.inside import column_names
from slipway_operator.exporter.parity import Compared
from slipway_operator.exporter.prepare import floor32
from slipway_operator.exporter.supervise import KEPT_END, KEPT_START, Journal
from slipway_operator.exporter.train import usable_processors
from slipway_operator.exporter.worker import Attempt, Worker

SAMPLES = st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38)


@given(st.text(max_size=5000))
def test_a_message_always_fits_and_is_what_the_operator_reads(text):
    line = encode(Failure("TrainingFailed", text))

    assert len(line.encode("utf-8", "replace")) <= TERMINATION_MESSAGE_LIMIT
    assert Failed.model_validate_json(line.encode("utf-8", "replace")).reason == "TrainingFailed"


def test_a_long_message_keeps_its_start_and_its_end():
    message = json.loads(encode(Failure("TrainingFailed", "exited with 1. " + "x" * 5000 + " ValueError: late")))[
        "message"
    ]

    assert message.startswith("exited with 1.")
    assert message.endswith("ValueError: late")


@given(SAMPLES, SAMPLES)
def test_a_float32_falls_on_the_same_side_of_a_floored_threshold(value, threshold):
    value32 = np.float32(value)
    floored = floor32(np.array([threshold]))[0]

    assert floored == np.float64(np.float32(floored))
    assert (np.float64(value32) <= threshold) == (np.float64(value32) <= floored)


@given(SAMPLES)
def test_the_neighbours_of_a_threshold_fall_on_their_sides(threshold):
    floored = np.float32(floor32(np.array([threshold]))[0])

    assert np.float64(floored) <= threshold
    assert np.float64(np.nextafter(floored, np.float32(np.inf))) > threshold


def test_both_halves_of_the_wire_agree(monkeypatch):
    registry = Registry(prefix="registry.example.com/x")
    train = TrainRequest(
        namespace="n", name="m", registry=registry, command=("a",), timeout_seconds=5, model_path="m", metrics_path="j"
    )
    monkeypatch.setenv("SLIPWAY_REQUEST", train.model_dump_json(by_alias=True))
    assert request.train_request() == request.TrainRequest(("a",), 5.0, "m", "j")

    export = ExportRequest(
        namespace="n", name="m", registry=registry, model_path="m", trained="sha256:0", example="e",
        max_absolute_difference=1e-5, max_label_flips=2,
    )  # fmt: skip
    monkeypatch.setenv("SLIPWAY_REQUEST", export.model_dump_json(by_alias=True))
    assert request.export_request() == request.ExportRequest("m", True, "e", 1e-5, 2, 900.0)


def test_a_journal_keeps_the_first_and_the_last_of_an_endless_output():
    journal = Journal()
    for number in range(600):
        journal.add(f"{number:05d}".encode() + b"." * 10_000)

    kept = b"".join(journal.start), b"".join(journal.end)
    assert kept[0].startswith(b"00000")
    assert kept[1].endswith(b"00599" + b"." * 10_000)
    assert len(kept[0]) + len(kept[1]) <= KEPT_START + KEPT_END + 10_005
    assert journal.dropped > 0


@pytest.mark.parametrize(("values", "said", "kind"), [
    pytest.param(["a", None], None, "string", id="strings"),
    pytest.param([1, 2], None, "number", id="integers"),
    pytest.param([1, 2], Evidence("integer"), "integer", id="integer-categories"),
    pytest.param([1.5, math.nan], None, "number", id="floats"),
    pytest.param([True, False], None, "boolean", id="booleans"),
    pytest.param([1, None], None, "number", id="integers-with-gaps"),
    pytest.param(["1", "2"], Evidence("string"), "string", id="digits"),
])  # fmt: skip
def test_what_a_column_holds(values, said, kind):
    assert kind_of("column", pd.Series(values), said).kind == kind


@pytest.mark.parametrize(("values", "reason", "says"), [
    pytest.param(["a", 1.5], "ExampleUnreadable", "mixes float and str", id="mixture"),
    pytest.param(pd.to_datetime(["2013-01-01"]), "ConversionUnsupported", "holds dates", id="dates"),
])  # fmt: skip
def test_a_column_that_cannot_travel_says_why(values, reason, says):
    with pytest.raises(Failure) as refused:
        kind_of("column", pd.Series(values), None)

    assert refused.value.reason == reason
    assert says in refused.value.message


@pytest.mark.parametrize(("columns", "names"), [
    pytest.param("b", ["b"], id="one"),
    pytest.param(["c", "a"], ["c", "a"], id="names"),
    pytest.param([2, 0], ["c", "a"], id="places"),
    pytest.param([True, False, True], ["a", "c"], id="mask"),
    pytest.param(slice("a", "b"), ["a", "b"], id="slice-of-names"),
    pytest.param(slice(1, None), ["b", "c"], id="slice-of-places"),
    pytest.param(np.array([1]), ["b"], id="array"),
])  # fmt: skip
def test_every_way_to_pick_columns_is_understood(columns, names):
    assert column_names(columns, ["a", "b", "c"]) == names


def test_a_csv_is_read_without_pandas_header_and_gaps_included(tmp_path):
    (tmp_path / "e.csv").write_text("\ufeffa,b\n1,\n3.5,NA\n", encoding="utf-8")
    names, values = plain_matrix(tmp_path / "e.csv", "e.csv")

    assert names == ("a", "b")
    np.testing.assert_array_equal(values, [[1, np.nan], [3.5, np.nan]])


def test_parquet_without_pandas_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("slipway_operator.exporter.example.has", lambda _: False)

    with pytest.raises(Failure, match="parquet needs pandas and pyarrow"):
        plain_cells(tmp_path / "e.parquet", "e.parquet")


@pytest.mark.parametrize("error", [ValueError(), ValueError("\n")])
def test_a_converter_that_raises_without_a_word_is_still_explained(error):
    refused = _explained(LinearSVC(), error)

    assert "LinearSVC" in refused.message
    assert "ValueError" in refused.message


ASKED = request.ExportRequest("m.joblib", False, "e.csv", 1e-5, 1, 900.0)
FINE = Compared(rows=9, row=0, output="label")
NONE: Any = None


def attempt(number: str = "float32", **compared: Compared) -> Attempt:
    sets = dict.fromkeys(("as_given", "as_rounded", "around", "strings", "at"), FINE)
    return Attempt(number, None, None, [], **{**sets, **compared})  # type: ignore[arg-type]


class OnWires(Worker):
    """A worker whose conversions have been made."""

    def __init__(self, *attempts: Attempt) -> None:
        self.request = ASKED
        self._made = {one.number: one for one in attempts}

    def _tried(self, _original: Any, _rows: Any, number: str) -> tuple[Attempt | None, Failure | None]:
        return self._made[number], None


FLIPPED = replace(FINE, flips=1, largest=1e-7, output="label", row=3)
FAR = replace(FINE, largest=0.4, output="chance", row=7)


@pytest.mark.parametrize(("compared", "says"), [
    pytest.param({"as_given": FLIPPED, "around": FAR},
                 "0.4 (limit 1e-05) on rows around tree thresholds, row 7", id="far"),
    pytest.param({"as_given": replace(FAR, flips=1), "around": replace(FLIPPED, flips=2)},
                 "on rows around tree", id="flips"),
    pytest.param({"as_given": FLIPPED, "strings": FLIPPED},
                 "2 label(s) differ (limit 1), largest difference 1e-07", id="sum"),
])  # fmt: skip
def test_every_row_that_the_certificate_counts_is_judged(compared, says):
    """The push step holds the certificate to the limits: what it would refuse is refused here, with its place."""
    wide = attempt("float64", **compared)
    with pytest.raises(Failure) as refused:
        OnWires(attempt(**compared), wide)._best(NONE, NONE)

    assert refused.value.reason == "ParityFailed"
    assert says in refused.value.message


def test_the_wire_of_float64_is_tried_where_any_row_breaks_a_limit():
    narrow, wide = attempt(as_given=FLIPPED, around=FAR), attempt("float64", as_given=FLIPPED)

    assert OnWires(narrow, wide)._best(NONE, NONE) is wide


@pytest.mark.parametrize(("quota", "count"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("", 8)])
def test_processors_are_counted_within_the_limit_of_the_container(tmp_path, monkeypatch, quota, count):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_processors(tmp_path / "cpu.max") == count
