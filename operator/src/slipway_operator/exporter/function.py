"""A function of the project as what answers (``spec.export.function``): asked where a fitted model would be.

The project's own code decides on everything between a caller's columns and the answers; what it has of
the model is the parameter called ``model``, if it has one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .answers import Original, Output
from .failure import Failure
from .foreign import np
from .loading import load_model
from .model_answers import named_answers, project_function
from .rows import MatrixRows, Rows

ONLY = "prediction"
"""Name of the answer of a function that gives one, and no name."""


class Function(Original):
    """Stands where a fitted model does: its methods are the names of its answers."""

    def __init__(self, name: str, model_file: Path) -> None:
        """Import it, and load the model if it wants it.

        Raises:
            Failure: ``FunctionMissing``, ``FunctionFailed``, or why the model cannot be loaded.
        """
        self.name, self.task = name, "unknown"
        try:
            self.model = project_function(name, lambda: load_model(model_file))
        except (Failure, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            said = f"{name} cannot be imported: {type(error).__name__}: {str(error)[:400]}"
            raise Failure("FunctionFailed", f"{said}. Correct the project's code.") from error

    def answers(self, rows: Rows) -> dict[str, Any]:
        """Give all of its answers by name.

        Raises:
            Failure: ``FunctionFailed``.
        """
        try:
            given = named_answers(self.model(_as_asked(rows)), ONLY)
            found = {str(name): np.asarray(answer) for name, answer in given.items()}
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            said = f"{self.name} refuses the example: {type(error).__name__}: {str(error)[:400]}"
            message = f"{said}. Commit rows such as it takes, or correct it."
            raise Failure("FunctionFailed", message) from error
        if not found:
            raise Failure("FunctionFailed", f"{self.name} gives no answer to the example. Give one for each row.")
        return found

    def ask(self, method: str, rows: Rows) -> Any:
        """Give one of its answers, by its name."""
        return self.answers(rows)[method]

    def outputs(self, rows: Rows) -> list[tuple[Output, Any]]:
        """Describe what it answers, in its own order."""
        return [
            (Output(name, name, name, is_label=answer.dtype.kind != "f"), answer)
            for name, answer in self.answers(rows).items()
        ]


def _as_asked(rows: Rows) -> Any:
    """Give rows as a server asks with them: a frame, or lists by column where the project has no pandas."""
    given = rows.original()
    if not isinstance(rows, MatrixRows):
        return given
    names = rows.columns or [f"x{place}" for place in range(given.shape[1])]
    return {
        name: [None if value != value else value for value in given[:, place].tolist()]  # noqa: PLR0124 - NaN
        for place, name in enumerate(names)
    }
