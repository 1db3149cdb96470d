"""What two revisions differ in, by section: each a list of changes with a name, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("spec", "code", "data", "packages", "features", "schema", "metrics")
"""In the order they are shown."""

_DATA = (".csv", ".parquet", ".npy", ".npz", ".json", ".jsonl", ".tsv", ".feather", ".arrow", ".txt.gz", ".csv.gz")
_COLOURS = ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m")
_NO_COLOURS = ("", "", "", "", "")
_CODE = (".py", ".toml", ".lock", ".cfg", ".ini", ".md", ".ipynb", ".yaml", ".yml")


@dataclass(frozen=True)
class Change:
    """One thing that differs; None: it is not there."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One revision as far as it could be read; None: it could not.

    Attributes:
        spec: The part of the spec that decided on the content.
        files: Size and digest by path, of the package.
        packages: Version by name, of the lock file.
        signature: ``signature.json``.
        metrics: Numbers of training and export.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[int, str]] | None = None
    packages: Mapping[str, str] | None = None
    signature: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def compare(before: Side, after: Side) -> dict[str, list[Change] | None]:
    """All sections; None where one side could not be read."""
    return {
        "spec": changed(_flat(before.spec), _flat(after.spec)),
        "code": _files(before.files, after.files, data=False),
        "data": _files(before.files, after.files, data=True),
        "packages": _maybe(before.packages, after.packages),
        "features": _maybe(_features(before.signature), _features(after.signature)),
        "schema": _maybe(_schema(before.signature), _schema(after.signature)),
        "metrics": changed(_numbers(before.metrics), _numbers(after.metrics)),
    }


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """What differs between two tables, sorted by name."""
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def metrics_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that an entry's steps left: of the training, and of the comparison of both models."""
    found: dict[str, float] = {}
    for step in entry.get("steps") or ():
        answer = step.get("answer") or {}
        found |= {str(name): float(value) for name, value in (answer.get("metrics") or {}).items()}
        if "maxAbsoluteDifference" in answer:
            found["export: largest difference"] = float(answer["maxAbsoluteDifference"])
            found["export: label flips"] = float(answer.get("labelFlips", 0))
            found["export: rows compared"] = float(answer.get("rows", 0))
        if step.get("name") == "Train" and "seconds" in answer:
            found["training: seconds"] = float(answer["seconds"])
    return found


def versions_of_uv_lock(lock: Mapping[str, Any]) -> dict[str, str]:
    """Packages that a project runs with, of a parsed ``uv.lock``: its own ones and theirs, no development groups."""
    packages: dict[str, list[Mapping[str, Any]]] = {}
    for package in lock.get("package") or ():
        packages.setdefault(str(package.get("name")), []).append(package)
    roots = [p for found in packages.values() for p in found if {"virtual", "editable"} & set(p.get("source") or {})]
    wanted: dict[str, str] = {}
    ahead = [dependency for root in roots for dependency in root.get("dependencies") or ()]
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    while ahead:
        dependency = ahead.pop()
        name, extras = str(dependency["name"]), tuple(dependency.get("extra") or ())
        for package in packages.get(name, ()):
            version = str(package.get("version", ""))
            if dependency.get("version") not in {None, version} or (name, version, extras) in seen:
                continue
            seen.add((name, version, extras))
            if package not in roots:
                wanted[name] = ", ".join(sorted({*filter(None, wanted.get(name, "").split(", ")), version}))
            ahead += package.get("dependencies") or ()
            optional = package.get("optional-dependencies") or {}
            ahead += [more for extra in extras for more in optional.get(extra) or ()]
    return wanted


def lines(sections: Mapping[str, Sequence[Change] | None], *, colour: bool = False) -> list[str]:
    """The comparison for people: ``-`` before, ``+`` after, ``~`` both."""
    red, green, yellow, bold, plain = _COLOURS if colour else _NO_COLOURS
    shown: list[str] = []
    for section, changes in sections.items():
        if changes is None:
            shown.append(f"{bold}{section}{plain}: not compared")
        elif not changes:
            shown.append(f"{bold}{section}{plain}: equal")
        else:
            shown.append(f"{bold}{section}{plain}:")
            for change in changes:
                if change.before is None:
                    shown.append(f"  {green}+ {change.name}  {change.after}{plain}")
                elif change.after is None:
                    shown.append(f"  {red}- {change.name}  {change.before}{plain}")
                else:
                    shown.append(f"  {yellow}~ {change.name}  {change.before} → {change.after}{plain}")
    return shown


def _maybe(before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> list[Change] | None:
    return None if before is None or after is None else changed(before, after)


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        return {
            name: text
            for key, inner in value.items()
            for name, text in _flat(inner, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return {path: " ".join(map(str, value))}
    if isinstance(value, list):
        return {name: text for n, inner in enumerate(value) for name, text in _flat(inner, f"{path}[{n}]").items()}
    return {path: str(value)} if path else {}


def _files(
    before: Mapping[str, tuple[int, str]] | None, after: Mapping[str, tuple[int, str]] | None, *, data: bool
) -> list[Change] | None:
    if before is None or after is None:
        return None

    def chosen(files: Mapping[str, tuple[int, str]]) -> dict[str, str]:
        return {path: f"{size} bytes {digest[:12]}" for path, (size, digest) in files.items() if is_data(path) is data}

    return changed(chosen(before), chosen(after))


def is_data(path: str) -> bool:
    """Whether a project's file is data rather than code: by its folder, then by its kind."""
    if path.endswith(_CODE):
        return False
    return path.startswith("data/") or "/data/" in path or path.endswith(_DATA)


def _features(signature: Mapping[str, Any] | None) -> dict[str, str] | None:
    if signature is None:
        return None
    inputs = list(signature.get("inputs") or ())
    columns = list(signature.get("columns") or ())
    if len(inputs) == 1 and len(columns) > 1:
        # One matrix: its columns are the features.
        return {str(column): _typed(inputs[0], shape=False) for column in columns}
    return {str(item["name"]): _typed(item, shape=False) for item in inputs}


def _schema(signature: Mapping[str, Any] | None) -> dict[str, str] | None:
    if signature is None:
        return None
    found = {f"input {item['name']}": _typed(item) for item in signature.get("inputs") or ()}
    found |= {f"output {item['name']}": _typed(item) for item in signature.get("outputs") or ()}
    for name in ("task", "classes", "columns"):
        if signature.get(name) is not None:
            value = signature[name]
            found[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found | {f"made by {name}": str(text) for name, text in (signature.get("producer") or {}).items()}


def _typed(item: Mapping[str, Any], *, shape: bool = True) -> str:
    words = [str(item.get("datatype", "")), str(item.get("kind", ""))]
    if shape:
        words.append("[" + ", ".join(map(str, item.get("shape") or ())) + "]")
    return " ".join(word for word in words if word)


def _numbers(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in metrics.items()}
