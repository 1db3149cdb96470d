"""``python -m flight_delay.sample``: writes data/sample.csv, real rows with missing values and rare categories."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flight_delay.data import load, split


def sample(frame: pd.DataFrame) -> pd.DataFrame:
    """Take flights of the later months: some at random, some with gaps, one destination that few fly to."""
    return pd.concat(
        [
            frame[frame["manufacturer"].isna()].sample(20, random_state=1),
            frame[frame["temperature"].isna() | frame["pressure"].isna()].sample(20, random_state=2),
            frame[frame["dest"].map(frame["dest"].value_counts()) < 40].sample(5, random_state=3),
            frame.sample(155, random_state=4),
        ]
    ).sample(frac=1, random_state=5)


def main() -> None:
    """Write the sample."""
    frame, late = load()
    rows = sample(split(frame, late)[2])
    whole = rows.select_dtypes("number").columns
    rows = rows.astype(dict.fromkeys(whole, "Int64"))
    target = Path("data/sample.csv")
    target.parent.mkdir(exist_ok=True)
    rows.to_csv(target, index=False)
    print(f"{len(rows)} rows in {target}")


if __name__ == "__main__":
    main()
