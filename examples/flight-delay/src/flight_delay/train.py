"""``python -m flight_delay.train``: writes model.joblib and metrics.json into the working directory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import joblib
from sklearn.metrics import brier_score_loss, roc_auc_score

from flight_delay.data import load, split
from flight_delay.model import pipeline


def main() -> None:
    """Train, judge on later months, and save."""
    began = time.monotonic()
    frame, late = load()
    learn, learn_late, judge, judge_late = split(frame, late)
    print(f"{len(learn)} flights to learn from, {len(judge)} later ones to judge on", flush=True)

    model = pipeline().fit(learn, learn_late)
    chance = model.predict_proba(judge)[:, 1]
    metrics = {
        "roc_auc": round(float(roc_auc_score(judge_late, chance)), 6),
        "brier": round(float(brier_score_loss(judge_late, chance)), 6),
        "base_rate": round(float(judge_late.mean()), 6),
        "learned_from": len(learn),
        "judged_on": len(judge),
    }
    joblib.dump(model, Path("model.joblib"), compress=3)
    Path("metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(f"{metrics} in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
