"""A model's answers are one for each row, however many rows there are: seen before it serves.

A graph that always gives three values looks right beside three example rows. Asked by a caller
for another number, it would break, or give those who ran together what is not theirs.
"""

from __future__ import annotations

import numpy as np

from slipway_runtime.engines.base import Engine
from slipway_runtime.errors import CannotServe, Refused, SlipwayRuntimeError
from slipway_runtime.protocol.alignment import Feeds
from slipway_runtime.protocol.signature import Signature


def prove_rows(engine: Engine, signature: Signature, feeds: Feeds, rows: int) -> None:
    """Ask for all example rows, and for one by itself; where that is all there is, for it twice.

    Raises:
        CannotServe: If the signature says that there is one answer for each row, and there is not.
    """
    if not signature.is_batched:
        return
    other = 1 if rows > 1 else 2
    for count, some in (
        (rows, feeds),
        (other, {name: np.concatenate([array[:1]] * other) for name, array in feeds.items()}),
    ):
        try:
            answers = engine.run(some)
        except SlipwayRuntimeError as error:
            if count > rows and isinstance(error, Refused):
                return  # a graph may be for one row at a time: batches run one by one, and who sends more is told so
            raise CannotServe(
                f"the model answers {rows} example rows, but not {'one' if count == 1 else count} of them: "
                f"{error.message}"
            ) from error
        for spec, answer in zip(signature.outputs, answers, strict=True):
            if answer.shape[:1] != (count,):
                raise CannotServe(
                    f"the model's answer {spec.name} to {count} example row{'s' if count > 1 else ''} has shape "
                    f"{list(answer.shape)}; signature.json says that there is one for each row"
                )
