"""Reading the example rows that a project commits: CSV, Parquet or NumPy's own format."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .columns import evidence, feature_names, is_missing, kind_of, takes_columns, used_columns
from .failure import Failure
from .foreign import has, np, pd
from .rows import FrameRows, MatrixRows, Rows

MOST_ROWS = 10_000
"""Rows that are read; the rest of a larger file proves little more."""
_EMPTY = frozenset({"", "NA", "nan", "NaN", "null"})


def read_example(path: Path, named: str, model: Any) -> Rows:
    """Read the example as rows for a model.

    Raises:
        Failure: ``ExampleMissing``, ``ExampleUnreadable``, ``ExampleColumnsMismatch`` or ``ConversionUnsupported``.
    """
    if not path.is_file():
        message = f"{named} is not in the project. Commit a few real rows there, or correct spec.model.example."
        raise Failure("ExampleMissing", message)
    try:
        rows = _frame_rows(path, named, model) if feature_names(model) is not None else _matrix_rows(path, named, model)
    except (Failure, MemoryError):
        raise
    except Exception as error:
        raise Failure("ExampleUnreadable", f"{named} cannot be read: {type(error).__name__}: {error}") from error
    if len(rows) == 0:
        raise Failure("ExampleUnreadable", f"{named} has no row. Commit a few real ones.")
    return rows


def read_columns(path: Path, named: str) -> Rows:
    """Read the example with whatever columns it has, for a function of the project; without pandas, of numbers.

    Raises:
        Failure: ``ExampleMissing``, ``ExampleUnreadable`` or ``ConversionUnsupported``.
    """
    if not has("pandas"):
        names, array = plain_matrix(path, named)
        if array.dtype == object or array.ndim != 2:
            raise Failure("ExampleUnreadable", f"{named} holds more than numbers. Add pandas to the lock file.")
        rows: Rows = MatrixRows(array.astype("float64"), names, framed=False)
    else:
        frame = _any_frame(path, named)
        rows = FrameRows(frame, tuple(kind_of(str(name), frame[name], None) for name in frame.columns))
    if len(rows) == 0:
        raise Failure("ExampleUnreadable", f"{named} has no row. Commit a few real ones.")
    return rows


def _any_frame(path: Path, named: str) -> Any:
    if not path.is_file():
        message = f"{named} is not in the project. Commit a few real rows there, or correct spec.model.example."
        raise Failure("ExampleMissing", message)
    try:
        if path.suffix.lower() != ".npy":
            return _read_frame(path, named, {}, [])
        array = np.load(path, allow_pickle=False)[:MOST_ROWS]
        return pd.DataFrame(array, columns=[f"x{place}" for place in range(array.shape[1])])
    except (Failure, MemoryError):
        raise
    except Exception as error:
        raise Failure("ExampleUnreadable", f"{named} cannot be read: {type(error).__name__}: {error}") from error


def _frame_rows(path: Path, named: str, model: Any) -> Rows:
    names = feature_names(model) or []
    if not has("pandas"):
        raise Failure(
            "ExampleUnreadable", "The model was fitted on a data frame. Add pandas to the project's lock file."
        )
    said = evidence(model)
    texts = {name: str for name, found in said.items() if found.kind == "string"}
    frame = _read_frame(path, named, texts, names)
    absent = [name for name in names if name not in frame.columns]
    if absent:
        message = (
            f"{named} lacks {_listed(absent)}. It has {_listed(list(frame.columns))}. "
            "The model was fitted on the former: commit rows with the columns of the training data."
        )
        raise Failure("ExampleColumnsMismatch", message)
    frame = frame[names]
    described = tuple(kind_of(name, frame[name], said.get(name)) for name in names)
    if takes_columns(model):
        used = set(used_columns(model))
        return FrameRows(frame, tuple(column for column in described if column.name in used))
    kinds = {column.kind for column in described}
    if kinds == {"string"}:
        return MatrixRows(frame.to_numpy(dtype=object), tuple(names), framed=True)
    if "string" in kinds:
        text = next(column.name for column in described if column.kind == "string")
        message = f"Column {text!r} of {named} holds strings, and the model takes numbers only. Commit training rows."
        raise Failure("ExampleColumnsMismatch", message)
    return MatrixRows(frame.to_numpy(dtype="float64", na_value=np.nan), tuple(names), framed=True)


def _read_frame(path: Path, named: str, texts: dict[str, type[str]], names: list[str]) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        if not (has("pyarrow") or has("fastparquet")):
            raise Failure("ExampleUnreadable", f"{named} needs pyarrow. Add it to the lock file, or commit a CSV.")
        return pd.read_parquet(path).head(MOST_ROWS)
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)[:MOST_ROWS]
        if array.ndim != 2 or array.shape[1] != len(names):
            raise _wrong_width(named, array.shape, len(names))
        return pd.DataFrame(array, columns=names)
    if suffix == ".csv":
        return pd.read_csv(path, dtype=texts, nrows=MOST_ROWS)
    raise _unknown_format(named)


def _matrix_rows(path: Path, named: str, model: Any) -> Rows:
    suffix = path.suffix.lower()
    names: tuple[str, ...] | None = None
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)[:MOST_ROWS]
        array = array.astype("float64") if array.dtype.kind in "iufb" else array.astype(object)
    elif suffix == ".csv":
        names, array = _plain_csv(path, named)
    elif suffix == ".parquet":
        frame = _read_frame(path, named, {}, [])
        names, array = tuple(str(name) for name in frame.columns), frame.to_numpy(dtype="float64", na_value=np.nan)
    else:
        raise _unknown_format(named)
    width = getattr(model, "n_features_in_", None)
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        raise _wrong_width(named, array.shape, width)
    return MatrixRows(array, names, framed=False)


def _plain_csv(path: Path, named: str) -> tuple[tuple[str, ...] | None, Any]:
    """Read a CSV without pandas: the environment of a matrix model may not have it."""
    names, text = _csv_cells(path, named)
    numbers = [_numbers(line) for line in text.tolist()]
    if all(row is not None for row in numbers):
        return names, np.array(numbers, dtype="float64").reshape(text.shape)
    return names, text


def _csv_cells(path: Path, named: str) -> tuple[tuple[str, ...] | None, Any]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        lines = [line for line in csv.reader(stream) if line][: MOST_ROWS + 1]
    if not lines:
        raise Failure("ExampleUnreadable", f"{named} has no row. Commit a few real ones.")
    names = None if _numbers(lines[0]) is not None else tuple(cell.strip() for cell in lines[0])
    body = lines if names is None else lines[1:]
    uneven = next((number for number, line in enumerate(body) if len(line) != len(lines[0])), None)
    if uneven is not None:
        raise Failure(
            "ExampleUnreadable", f"{named}: row {uneven + 1} has another number of cells than the first line."
        )
    text = np.empty((len(body), len(lines[0])), dtype=object)
    for number, line in enumerate(body):
        text[number] = line
    return names, text


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        return [as_number(cell) for cell in cells]
    except ValueError:
        return None


def as_number(cell: Any) -> float:
    """Read a cell, text or not, as a number; an empty one is NaN.

    Raises:
        ValueError: It is none.
    """
    return float("nan") if is_missing(cell) or str(cell).strip() in _EMPTY else float(cell)


def _wrong_width(named: str, shape: tuple[int, ...], width: Any) -> Failure:
    found = shape[1] if len(shape) == 2 else f"shape {shape}"
    message = (
        f"{named} has {found} columns and the model takes {width}. "
        "Commit rows of features alone, without the label, in the order of training."
    )
    return Failure("ExampleColumnsMismatch", message)


def _unknown_format(named: str) -> Failure:
    return Failure("ExampleUnreadable", f"{named} is neither .csv nor .parquet nor .npy. Commit one of these.")


def _listed(names: list[Any], most: int = 8) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def plain_matrix(
    path: Path, named: str, read_csv: Callable[[Path, str], tuple[tuple[str, ...] | None, Any]] = _plain_csv
) -> tuple[tuple[str, ...] | None, Any]:
    """Read a CSV or NumPy example with no model that could tell what it takes.

    Args:
        path: The file.
        named: What the project calls it.
        read_csv: Reads a CSV; with numbers where all cells are some, unless it is another one.

    Raises:
        Failure: ``ExampleMissing`` or ``ExampleUnreadable``.
    """
    if not path.is_file():
        raise Failure("ExampleMissing", f"{named} is not in the project. Commit a few real rows there.")
    try:
        if path.suffix.lower() == ".npy":
            return None, np.load(path, allow_pickle=False)[:MOST_ROWS]
        if path.suffix.lower() == ".csv":
            return read_csv(path, named)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise Failure("ExampleUnreadable", f"{named} cannot be read: {error}") from error
    if path.suffix.lower() == ".parquet":
        message = f"{named} needs pandas and pyarrow. Add them to the lock file, or commit a CSV."
        raise Failure("ExampleUnreadable", message)
    raise _unknown_format(named)


def plain_cells(path: Path, named: str) -> tuple[tuple[str, ...] | None, Any]:
    """Read an example as it is written, a matrix of rows by columns: what a cell is, the model's inputs say.

    Raises:
        Failure: ``ExampleMissing``, ``ExampleUnreadable`` or ``ExampleColumnsMismatch``.
    """
    if path.suffix.lower() == ".parquet" and path.is_file() and has("pandas"):
        names, cells = _parquet_cells(path, named)
    else:
        names, cells = plain_matrix(path, named, read_csv=_csv_cells)
    if cells.ndim != 2:
        message = f"{named} has the shape {cells.shape}. Commit a matrix: rows by columns."
        raise Failure("ExampleColumnsMismatch", message)
    if len(cells) == 0:
        raise Failure("ExampleUnreadable", f"{named} has no row. Commit a few real ones.")
    return names, cells


def _parquet_cells(path: Path, named: str) -> tuple[tuple[str, ...] | None, Any]:
    try:
        frame = _read_frame(path, named, {}, [])
    except (Failure, MemoryError):
        raise
    except Exception as error:
        raise Failure("ExampleUnreadable", f"{named} cannot be read: {type(error).__name__}: {error}") from error
    return tuple(str(name) for name in frame.columns), frame.to_numpy(dtype=object)
