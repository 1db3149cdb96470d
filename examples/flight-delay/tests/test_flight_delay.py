"""Tests of the project itself: ``uv run pytest``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flight_delay.data import FEATURES, data_folder, features, load, split
from flight_delay.model import pipeline

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def flights():
    return load()


def test_all_flights_that_left_are_there(flights):
    frame, late = flights

    assert (len(frame), list(frame.columns)) == (328_521, FEATURES)
    assert late.mean() == pytest.approx(0.213, abs=0.01)


def test_what_is_known_only_after_departure_is_no_feature():
    after = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}

    assert not after & set(FEATURES)


def test_the_split_is_by_time(flights):
    learn, _, judge, _ = split(*flights)

    assert learn["month"].max() < judge["month"].min()


def test_numbers_are_whole_so_that_float32_holds_them(flights):
    numbers = flights[0].select_dtypes("number")

    assert np.array_equal(numbers, numbers.round(), equal_nan=True)


def test_features_name_units_that_people_use():
    flight = pd.DataFrame({
        "origin": ["JFK"], "dest": ["SFO"], "carrier": ["UA"], "manufacturer": [None], "month": [7],
        "time": pd.to_datetime(["2013-07-05T20:00:00Z"]), "hour": [16], "minute": [30], "distance": [2586],
        "plane_year": [2003.0], "temp": [91.04], "wind_speed": [12.66], "visib": [0.25], "precip": [0.03],
        "pressure": [1011.4],
    })  # fmt: skip

    made = features(flight).iloc[0]

    assert made[["weekday", "plane_age", "temperature", "visibility", "precipitation"]].tolist() == [5, 10, 91, 2, 3]


def test_a_flight_to_a_new_airport_with_no_weather_is_answered(flights):
    frame, late = flights
    model = pipeline().set_params(classifier__max_iter=5).fit(frame[::50], late[::50])
    unseen = frame.head(1).assign(dest="XXX", manufacturer=None, temperature=np.nan)

    chance = model.predict_proba(unseen)[0, 1]

    assert 0 < chance < 1


def test_the_sample_has_rows_as_the_model_takes_them():
    rows = pd.read_csv(HERE / "data" / "sample.csv")

    assert list(rows.columns) == FEATURES
    assert rows["manufacturer"].isna().any()
    assert rows["temperature"].isna().any()
    assert data_folder().is_dir()
