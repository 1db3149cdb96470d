"""``python train.py``: a forest on Fisher's irises, with the scikit-learn of 2023."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent


def data() -> tuple[np.ndarray, np.ndarray]:
    """Give four measurements in centimetres of each flower, and the name of its species."""
    irises = load_iris()
    return irises.data, irises.target_names[irises.target]


def write_sample(measurements: np.ndarray, names: list[str], path: Path) -> None:
    """Write example rows, of features only."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(measurements.tolist())


def main() -> None:
    """Train, judge on flowers that were set aside, and save."""
    measurements, species = data()
    learn, judge, learn_species, judge_species = train_test_split(
        measurements, species, test_size=0.3, random_state=0, stratify=species
    )
    model = RandomForestClassifier(n_estimators=50, max_depth=5, random_state=0).fit(learn, learn_species)
    metrics = {
        "accuracy": round(float(accuracy_score(judge_species, model.predict(judge))), 6),
        "log_loss": round(float(log_loss(judge_species, model.predict_proba(judge))), 6),
    }
    joblib.dump(model, HERE / "model.joblib")
    (HERE / "metrics.json").write_text(json.dumps(metrics) + "\n", encoding="utf-8")
    print(metrics, flush=True)


if __name__ == "__main__":
    main()
