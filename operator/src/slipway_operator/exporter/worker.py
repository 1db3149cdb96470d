"""``worker``: loads, converts and compares, in a process that may crash without harm.

`export` starts it and reads what it leaves: ``stage`` (what it was doing),
``failure.json``, or the five result files.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import artifacts, committed, native, probes
from .answers import Original, Output, Session, pair
from .columns import known_categories
from .convert import Converted, convert
from .example import read_example
from .export import LOADING, NATIVE, WRITTEN
from .failure import Failure
from .loading import check_estimator, load_model
from .parity import Compared, compare, compare_made_up, refuse
from .prepare import has_double_thresholds
from .reference import reference
from .request import ExportRequest, Places, export_request
from .rows import Rows


@dataclass(frozen=True)
class Attempt:
    """A conversion on one wire, and how it compares."""

    number: str
    converted: Converted
    session: Session
    outputs: list[Output]
    as_given: Compared
    as_rounded: Compared
    around: Compared
    strings: Compared
    at: Compared
    """The original at float64 thresholds against the wire's rounding of them: told, not a limit of its own."""

    @property
    def counted(self) -> tuple[Compared, ...]:
        """Give what counts."""
        return (self.as_given, self.as_rounded, self.around, self.strings)

    def largest(self) -> Compared:
        """Give the worst of what counts."""
        return max(self.counted, key=lambda one: (one.flips, one.largest))

    def breaking(self, difference: float, flips: int) -> Compared:
        """Give what breaks the limits the most, or has the most flips where only all together break them."""
        return max(self.counted, key=lambda one: (one.flips > flips, one.largest > difference, one.flips, one.largest))

    def within(self, difference: float, flips: int) -> bool:
        """Tell whether the numbers of its certificate are within the limits of a spec."""
        return self.difference() <= difference and self.flips() <= flips

    def difference(self) -> float:
        """Give the largest difference on rows that count."""
        return max(one.largest for one in self.counted)

    def flips(self) -> int:
        """Count the labels that differ on rows that count."""
        return max(self.as_given.flips, self.as_rounded.flips) + self.around.flips + self.strings.flips


class Worker:
    """One export."""

    def __init__(self, request: ExportRequest, places: Places, model_file: Path, area: Path) -> None:
        self.request = request
        self.places = places
        self.model_file = model_file
        self.area = area

    def stage(self, doing: str) -> None:
        """Tell the other half what is being done, so that a crash has a place."""
        (self.area / "stage").write_text(doing, encoding="utf-8")
        if doing != WRITTEN:
            print(f"export: {doing}", flush=True)  # noqa: T201 - the container's log

    def run(self) -> None:
        """Export.

        Raises:
            Failure: As ``docs/export.md`` lists.
        """
        if NATIVE in os.environ:
            self.stage("asking the model itself")
            native.take(self.request, self.places, self.model_file, self.area)
            self.stage(WRITTEN)
            return
        if self.model_file.suffix.lower() == ".onnx":
            self.stage("checking the ONNX model")
            committed.take(self.request, self.places, self.model_file, self.area)
            self.stage(WRITTEN)
            return
        self.stage(LOADING)
        model = load_model(self.model_file)
        check_estimator(model)
        self.stage("reading the example")
        rows = read_example(self.places.project / self.request.example, self.request.example, model)
        original = Original(model)
        self._check_answers(original, rows)
        attempt = self._best(original, rows)
        self._write(original, rows, attempt)
        self.stage(WRITTEN)

    def _check_answers(self, original: Original, rows: Rows) -> None:
        try:
            original.ask(original.main, rows)
        except MemoryError:
            raise
        except Exception as error:
            message = (
                f"The model itself refuses {self.request.example}: {type(error).__name__}: {str(error)[:400]}. "
                "Commit rows such as it was trained on."
            )
            raise Failure("ExampleUnreadable", message) from error

    def _within(self, compared: Attempt | Compared) -> bool:
        return compared.within(self.request.max_absolute_difference, self.request.max_label_flips)

    def _best(self, original: Original, rows: Rows) -> Attempt:
        """Convert on the wire of float32, or of float64 where only that one keeps every answer."""
        best, failed = self._tried(original, rows, "float32")
        if failed is not None and failed.reason != "ParityFailed":
            raise failed
        fine = best is not None and self._within(best)
        if best is not None and fine and self._within(best.at):
            return best
        if not fine or has_double_thresholds(original.model):
            wide, _ = self._tried(original, rows, "float64")
            if wide is not None and self._within(wide):
                return wide
            if wide is not None and not fine:
                both = (wide,) if best is None else (best, wide)
                best = min(both, key=lambda one: (one.flips(), one.difference()))
        if best is not None and fine:
            return best
        if best is None:
            raise failed or Failure("ConversionFailed", "No wire was tried.")
        raise self._refused(best)

    def _tried(self, original: Original, rows: Rows, number: str) -> tuple[Attempt | None, Failure | None]:
        try:
            return self._attempt(original, rows, number), None
        except Failure as failure:
            print(f"export: not with {number} inputs: {failure.message}", flush=True)  # noqa: T201
            return None, failure

    def _refused(self, attempt: Attempt) -> Failure:
        difference, flips = self.request.max_absolute_difference, self.request.max_label_flips
        worst = attempt.breaking(difference, flips)
        names = {
            id(attempt.as_given): "the example as it is",
            id(attempt.as_rounded): f"the example rounded to {attempt.number}",
            id(attempt.around): "rows around tree thresholds",
            id(attempt.strings): "rows with missing or unseen strings",
        }
        return refuse(worst, names[id(worst)], difference=difference, flips=flips, all_flips=attempt.flips())

    def _attempt(self, original: Original, rows: Rows, number: str) -> Attempt:
        self.stage(f"converting ({number})")
        converted = convert(original.model, rows, number=number)
        session = Session(converted.content, converted.tensors)
        self.stage(f"comparing ({number})")
        rounded = rows.rounded(number)
        if not original.accepts(rounded):
            message = (
                f"The model refuses its own example once numbers are rounded to {number}, as they travel. "
                "Use categories that are whole numbers or strings."
            )
            raise Failure("ParityFailed", message)
        outputs = pair(original, session, rounded, rows.feed(number))

        def measure(asked: Rows | None, fed: Rows | None) -> Compared:
            if asked is None or fed is None:
                return Compared()
            made_up = asked is not rows and asked is not rounded
            measured = compare_made_up if made_up else compare
            return measured(original, session, outputs, asked=asked, fed=fed.feed(number))

        splits = probes.thresholds(original.model, rows)
        around = probes.around(rounded, splits, number=number)
        at = probes.at(rows, splits)
        texts = probes.strings(rows, original)
        return Attempt(
            number=number,
            converted=converted,
            session=session,
            outputs=outputs,
            as_given=measure(rows, rows),
            as_rounded=measure(rounded, rounded),
            around=measure(around, around),
            strings=measure(texts, texts),
            at=measure(at, at),
        )

    def _write(self, original: Original, rows: Rows, attempt: Attempt) -> None:
        self.stage("writing")
        content = attempt.converted.content
        answers = dict(zip(attempt.session.outputs, attempt.session.run(rows.feed(attempt.number))))  # noqa: B905
        outputs = [(output, answers[output.tensor]) for output in attempt.outputs]
        (self.area / "model.onnx").write_bytes(content)
        inputs = [(item, attempt.converted.tensors[item.name]) for item in rows.inputs(attempt.number)]
        described = artifacts.signature(original, inputs, outputs, rows.columns)
        artifacts.write_json(self.area / "signature.json", described)
        recorded = artifacts.examples(attempt.session, rows, attempt.outputs, number=attempt.number)
        artifacts.write_json(self.area / "examples.json", recorded)
        known = known_categories(original.model)
        feed = rows.feed(attempt.number)
        looks = reference(
            [(item, feed[item.name]) for item in rows.inputs(attempt.number)],
            rows.columns,
            [(output.name, answer) for output, answer in outputs],
            classes=described["classes"],
            known=known,
        )
        artifacts.write_json(self.area / "reference.json", looks)
        artifacts.write_json(self.area / "certificate.json", self._certificate(original, attempt, content))

    def _certificate(self, original: Original, attempt: Attempt, content: bytes) -> dict[str, Any]:
        worst = attempt.largest()
        return {
            "rows": attempt.as_given.rows + attempt.around.rows + attempt.strings.rows,
            "maxAbsoluteDifference": attempt.difference(),
            "labelFlips": attempt.flips(),
            "where": {"row": worst.row, "output": worst.output},
            "limits": {
                "maxAbsoluteDifference": self.request.max_absolute_difference,
                "maxLabelFlips": self.request.max_label_flips,
            },
            "compared": {
                "example": _fact(attempt.as_given),
                "exampleRounded": _fact(attempt.as_rounded),
                "aroundThresholds": _fact(attempt.around),
                "missingAndUnseenStrings": _fact(attempt.strings),
            },
            "atThresholds": _fact(attempt.at),
            "numbers": attempt.number,
            "opset": attempt.converted.opset,
            "irVersion": int(attempt.converted.proto.ir_version),
            "methods": {output.name: output.method for output in attempt.outputs},
            "estimator": type(original.model).__name__,
            "versions": artifacts.versions(),
            "digests": {
                "model": artifacts.sha256(self.model_file.read_bytes()),
                "onnx": artifacts.sha256(content),
                "signature": artifacts.sha256((self.area / "signature.json").read_bytes()),
            },
        }


def _fact(compared: Compared) -> dict[str, Any]:
    return {
        "rows": compared.rows,
        "maxAbsoluteDifference": compared.largest,
        "labelFlips": compared.flips,
        "ties": compared.ties,
    }


def _put_first(places: Places) -> None:
    """Let imports find the project, and before it, for a conversion, the tools layer; a server has no such layer."""
    own = [str(places.project / "src"), str(places.project)]
    tools = [] if NATIVE in os.environ else [str(places.tools)]
    sys.path[:] = [*tools, *own, *(entry for entry in sys.path if entry and entry not in own)]


def main() -> int:
    """Do the work that `export` asks for, and leave a sentence where that fails."""
    area = Path(os.environ["SLIPWAY_EXPORT_AREA"])
    places = Places.from_environment()
    _put_first(places)
    try:
        worker = Worker(export_request(), places, Path(os.environ["SLIPWAY_MODEL_FILE"]), area)
        worker.run()
    except Failure as failure:
        return _failed(area, failure)
    except MemoryError:
        message = (
            "Memory ran out while the model was exported. Raise the memory limit of Jobs or make the model smaller."
        )
        return _failed(area, Failure("OutOfMemory", message))
    except Exception as error:  # noqa: BLE001 - the last resort, with the place of the bug in the log
        traceback.print_exc()
        doing = (area / "stage").read_text(encoding="utf-8") if (area / "stage").is_file() else "starting"
        message = f"{type(error).__name__} while {doing}: {str(error)[:400]}"
        return _failed(area, Failure("ConversionFailed", message))
    return 0


def _failed(area: Path, failure: Failure) -> int:
    said = {"reason": failure.reason, "message": failure.message}
    (area / "failure.json").write_text(json.dumps(said), encoding="utf-8")
    return 1
