"""The project's own test: `python -m unittest discover tests`, in its own environment."""

import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import train


class TrainTest(unittest.TestCase):
    def test_it_learns_the_irises(self):
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                train.main()
                with open("metrics.json") as metrics:
                    self.assertGreater(json.load(metrics)["accuracy"], 0.9)
            finally:
                os.chdir(before)


if __name__ == "__main__":
    unittest.main()
