"""The project's own tests: run with `uv run pytest`."""

from __future__ import annotations

import pandas as pd
import pytest

from flight_delay.data import FEATURES, is_late, load_flights, split_by_time
from flight_delay.model import new_model
from flight_delay.train import evaluate


@pytest.fixture(scope="session")
def flights() -> pd.DataFrame:
    return load_flights()


def test_every_flight_of_the_year_is_there_once(flights: pd.DataFrame) -> None:
    assert len(flights) == 336_776
    assert flights["dep_delay"].isna().sum() == 8_255


def test_weather_is_missing_for_few_flights(flights: pd.DataFrame) -> None:
    assert 0 < flights["temp"].isna().mean() < 0.02


def test_nothing_of_the_future_is_learnt_from(flights: pd.DataFrame) -> None:
    learn, judge = split_by_time(flights)

    assert learn["month"].max() < judge["month"].min()
    assert "dep_delay" not in FEATURES


def test_late_means_more_than_15_minutes() -> None:
    delays = pd.DataFrame({"dep_delay": [-3.0, 15.0, 16.0]})

    assert is_late(delays).tolist() == [0, 0, 1]


def test_a_model_of_a_tenth_of_the_flights_beats_chance_and_takes_unseen_airlines(flights: pd.DataFrame) -> None:
    learn, judge = split_by_time(flights)
    learn = learn.sample(25_000, random_state=0)

    model = new_model().fit(learn[FEATURES], is_late(learn))

    assert evaluate(model, judge)["roc_auc"] > 0.65
    stranger = judge[FEATURES].head(1).assign(carrier="ZZ", temp=float("nan"))
    assert 0 < model.predict_proba(stranger)[0, 1] < 1
