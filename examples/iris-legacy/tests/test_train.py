"""Tests of the project itself, with the standard library: ``python -m unittest discover tests``."""

from __future__ import annotations

import csv
import json
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

import joblib  # noqa: E402
import sklearn  # noqa: E402

import train  # noqa: E402


class Training(unittest.TestCase):
    """What training leaves."""

    @classmethod
    def setUpClass(cls) -> None:
        train.main()
        cls.model = joblib.load(HERE / "model.joblib")

    def test_the_lock_holds_the_scikit_learn_of_2023(self) -> None:
        self.assertEqual(sklearn.__version__, "1.3.2")

    def test_it_tells_nearly_all_flowers_that_were_set_aside(self) -> None:
        metrics = json.loads((HERE / "metrics.json").read_text(encoding="utf-8"))

        self.assertGreater(metrics["accuracy"], 0.9)

    def test_it_answers_the_sample_with_names_of_species(self) -> None:
        with (HERE / "data" / "sample.csv").open(newline="", encoding="utf-8") as stream:
            rows = [[float(cell) for cell in line] for line in list(csv.reader(stream))[1:]]

        self.assertLessEqual(set(self.model.predict(rows)), {"setosa", "versicolor", "virginica"})


if __name__ == "__main__":
    unittest.main()
