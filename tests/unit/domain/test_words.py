"""Digests, durations, conditions and reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway_operator.domain.conditions import Condition, with_condition
from slipway_operator.domain.digests import canonical_json, sha256_of, short10
from slipway_operator.domain.directives import Verb
from slipway_operator.domain.durations import format_time, parse_time, words_of
from slipway_operator.domain.reasons import Reason, well_formed
from slipway_operator.domain.revisions import Cause

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_is_no_part_of_a_digest(data):
    assert sha256_of(data) == sha256_of(dict(reversed(list(data.items()))))


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_has_one_digest_however_it_is_written(number):
    assert sha256_of({"a": [float(number)]}) == sha256_of({"a": [number]})


@pytest.mark.parametrize("number", [1e-07, 0.1, 1e21, 1e300])
def test_other_numbers_are_digested_as_they_are_read(number):
    assert canonical_json(number) == repr(number).encode()


def test_true_is_not_one():
    assert sha256_of(True) != sha256_of(1)


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"x": float("nan")})


def test_short_digests_are_ten_hex_digits():
    assert short10("sha256:0123456789abcdef") == "0123456789"


def test_time_stays_itself():
    assert parse_time(format_time(NOW)) == NOW


@pytest.mark.parametrize(("seconds", "words"), [(0, "0s"), (59.6, "1m"), (300, "5m"), (5400, "1h30m"), (3601, "1h1s")])
def test_durations_read_well(seconds, words):
    assert words_of(seconds) == words


def test_the_time_of_a_condition_moves_only_when_its_status_flips():
    first = with_condition([], Condition("Ready", "False", "Building", "a"), generation=1, now=NOW)
    second = with_condition(first, Condition("Ready", "False", "Training", "b"), generation=2, now=LATER)
    third = with_condition(second, Condition("Ready", "True", "Serving", "c"), generation=2, now=LATER)

    assert [c[0]["lastTransitionTime"] for c in (first, second, third)] == [
        format_time(NOW),
        format_time(NOW),
        format_time(LATER),
    ]
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("Training", 2)


def test_conditions_keep_one_order_and_foreign_ones():
    conditions = [{"type": "Zebra", "status": "True"}, {"type": "Available", "status": "True"}]
    new = with_condition(conditions, Condition("Ready", "True", "Serving", ""), generation=1, now=NOW)

    assert [c["type"] for c in new] == ["Ready", "Available", "Zebra"]
    assert len(conditions) == 2


@pytest.mark.parametrize("reason", ["LockFileMissing", "X509Failed"])
def test_good_foreign_reasons_pass(reason):
    assert well_formed(reason, otherwise=Reason.STEP_FAILED) == reason


@pytest.mark.parametrize("reason", ["", "lower", "With Space", "Ünicode", "A" * 65])
def test_other_reasons_are_replaced(reason):
    assert well_formed(reason, otherwise=Reason.STEP_FAILED) == "StepFailed"


def test_each_verb_is_done_by_causes_of_its_own():
    causes = [cause for verb in Verb for cause in verb.causes]
    assert sorted(causes) == sorted(Cause), "each cause once"
