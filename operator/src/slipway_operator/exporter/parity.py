"""Comparing the answers of the original and of the ONNX model on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .answers import Asked, Original, Output
from .failure import Failure
from .foreign import np
from .rows import Rows

TIE = 1e-6
"""Probabilities closer than this are equal to a sum of float32."""


@dataclass(frozen=True)
class Compared:
    """The outcome of one comparison."""

    rows: int = 0
    largest: float = 0.0
    flips: int = 0
    row: int | None = None
    output: str | None = None
    expected: str = ""
    got: str = ""
    ties: int = 0
    """Labels of made-up rows that differ where the original's two best probabilities are equal."""

    def within(self, difference: float, flips: int) -> bool:
        """Tell whether this is within the limits of a spec."""
        return self.largest <= difference and self.flips <= flips


def compare(original: Original, session: Asked, outputs: list[Output], *, asked: Rows, fed: dict[str, Any]) -> Compared:
    """Ask both and measure: ``asked`` goes to the original and ``fed`` to ONNX."""
    return _compare(original, session, outputs, asked=asked, fed=fed)


def compare_made_up(
    original: Original, session: Asked, outputs: list[Output], *, asked: Rows, fed: dict[str, Any]
) -> Compared:
    """Do as `compare`, on rows that nobody sent: a label that flips at an exact tie is counted apart.

    Where ten trees of twenty say yes, 0.5 is summed in float32 here and in float64 there, and the
    last bit decides. Thousands of rows at thresholds meet such ties; the example is held to its limit.
    """
    compared = _compare(original, session, outputs, asked=asked, fed=fed)
    if not compared.flips or not hasattr(original.model, "predict_proba"):
        return compared
    chances = original.ask("predict_proba", asked)
    if chances.ndim != 2 or chances.shape[1] < 2:
        return compared
    best = np.sort(chances, axis=1)
    clear = best[:, -1] - best[:, -2] > TIE
    if not clear.any():
        return replace(compared, flips=0, ties=compared.flips)
    places = np.flatnonzero(clear)
    feed = {name: tensor[places] for name, tensor in fed.items()}
    strict = _compare(original, session, outputs, asked=asked.take(places), fed=feed)
    row = compared.row if strict.row is None else int(places[strict.row])
    largest = max(compared.largest, strict.largest)
    ties = compared.flips - strict.flips
    return replace(strict, rows=compared.rows, row=row, largest=largest, ties=ties)


def _compare(
    original: Original, session: Asked, outputs: list[Output], *, asked: Rows, fed: dict[str, Any]
) -> Compared:
    answers = dict(zip(session.outputs, session.run(fed)))  # noqa: B905 - Python 3.9
    result = Compared(rows=len(asked))
    for output in outputs:
        expected = original.ask(output.method, asked)
        got = answers[output.tensor]
        if output.is_label:
            result = _with_flips(result, output, expected, got)
        else:
            result = _with_numbers(result, output, expected, got)
    return result


def _with_flips(result: Compared, output: Output, expected: Any, got: Any) -> Compared:
    if expected.shape[0] != got.shape[0] or expected.size != got.size:
        raise _other_shape(output, expected, got)
    left, right = expected.ravel(), got.ravel()
    if right.dtype.kind in "iu" and left.dtype.kind in "biuf":
        different = left.astype("float64") != right.astype("float64")
    else:
        different = left.astype(str) != right.astype(str)
    flips = int(different.sum())
    if not flips:
        return result
    row = int(np.argmax(different))
    count = result.flips + flips
    return replace(result, flips=count, row=row, output=output.name, expected=str(left[row]), got=str(right[row]))


def _with_numbers(result: Compared, output: Output, expected: Any, got: Any) -> Compared:
    count = len(expected)
    left = expected.reshape(count, -1).astype("float64")
    right = got.reshape(count, -1).astype("float64")
    if output.column is not None:
        right = right[:, output.column : output.column + 1]
    if left.shape != right.shape:
        raise _other_shape(output, expected, got)
    if not left.size:
        return result
    with np.errstate(invalid="ignore"):
        distance = np.abs(left - right)
    # Both NaN, or both the same infinity, is the same answer; one of them alone is as wrong as can be.
    distance = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, distance)
    distance = np.where(np.isnan(distance), np.inf, distance)
    row, column = (int(place) for place in np.unravel_index(int(np.argmax(distance)), distance.shape))
    largest = float(distance[row, column])
    if result.flips or (largest <= result.largest and result.output is not None):
        # A label that flips is the better place to point at.
        return replace(result, largest=max(largest, result.largest))
    name = output.name if left.shape[1] == 1 else f"{output.name}[{column}]"
    expected_value, got_value = f"{left[row, column]:.9g}", f"{right[row, column]:.9g}"
    return replace(result, largest=largest, row=row, output=name, expected=expected_value, got=got_value)


def _other_shape(output: Output, expected: Any, got: Any) -> Failure:
    message = (
        f"Output {output.name!r} has shape {tuple(got.shape)}, "
        f"and the original's {output.method} has {tuple(expected.shape)}. "
        "Models with several answers a row are not supported yet."
    )
    return Failure("ConversionUnsupported", message)


def refuse(compared: Compared, where: str, *, difference: float, flips: int, all_flips: int = 0) -> Failure:
    """Say what differs, where, by how much, and what would be reachable; ``all_flips``: with those on other rows."""
    count = max(compared.flips, all_flips)
    label = f"{count} label(s) differ (limit {flips}), " if count > flips else ""
    message = (
        f"The ONNX model does not answer as the original: {label}largest difference {compared.largest:.3g} "
        f"(limit {difference:g}) on {where}, row {compared.row}, output {compared.output}: "
        f"original {compared.expected}, ONNX {compared.got}. {_reachable(compared)}"
    )
    return Failure("ParityFailed", message)


def _reachable(compared: Compared) -> str:
    try:
        size = abs(float(compared.expected))
    except ValueError:
        size = 0.0
    if not compared.flips and size > 1 and compared.largest <= 2e-5 * size:
        wanted = f"{10 ** np.ceil(np.log10(compared.largest)):.0e}"
        return (
            f"Answers are float32, which holds about seven digits of {compared.expected}: "
            f"set spec.export.parity.maxAbsoluteDifference to {wanted}, or predict a smaller unit."
        )
    return "Raise spec.export.parity if that is acceptable, or use another estimator."
