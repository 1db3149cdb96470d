"""How each layer is made, and from what: one method a layer, its inputs beside its steps."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import debian, elf, python, recipe
from images.store import Layer, Store, tree_fingerprint
from slipway_operator.builder.bytecode import compile_tree
from slipway_operator.builder.layers import LayerDigests, write_layer

_HERE = Path(__file__).parent
_BUILDER = "operator/src/slipway_operator/builder"
Fill = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One layer to be: ``fill`` lays out the tree that appears below ``prefix``."""

    name: str
    prefix: str
    inputs: Any
    fill: Fill


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Makes layers from a work tree into a store.

    Attributes:
        root: The work tree.
        store: Where finished layers are.
        crane: Program for the builder image.
        refresh: Look for newer Debian packages.
    """

    root: Path
    store: Store
    crane: Callable[[], Path]
    refresh: bool = False

    def layer(self, name: str) -> Layer:
        """The layer of this name, from the store or made now."""
        plan = self._plans()[name]()
        inputs = [self._tools_of_the_trade(), plan.prefix, plan.inputs]
        return self.store.layer(name, inputs, functools.partial(_make, plan))

    def _plans(self) -> dict[str, Callable[[], _Plan]]:
        environment, code = self._environment, self._code
        return {
            "base": self._base,
            "fetchers": lambda: self._debian("fetchers", recipe.FETCHERS, above=recipe.BASE),
            "compiler": lambda: self._debian(
                "compiler",
                [name for name in recipe.COMPILER if name not in recipe.FETCHERS],
                above=[*recipe.BASE, *recipe.FETCHERS],
                also=_compiler_names,
            ),
            "programs": self._programs,
            "runtime-env": lambda: environment("runtime-env", "slipway-runtime"),
            "operator-env": lambda: environment("operator-env", "slipway-operator", "controller"),
            "builder-env": lambda: environment("builder-env", "slipway-operator"),
            "runtime-code": lambda: code("runtime-code", "slipway-runtime", self.root / "model-runtime"),
            "operator-code": lambda: code("operator-code", "slipway-operator", self.root / "operator"),
            "tools": self._tools,
        }

    def _tools_of_the_trade(self) -> list[str]:
        """What every layer's bytes depend on beside its own inputs."""
        shared = [tree_fingerprint(self.root / _BUILDER, [f"{name}.py"]) for name in ("layers", "bytecode")]
        return [*shared, platform.python_version(), zlib.ZLIB_RUNTIME_VERSION]

    def _packages(self) -> dict[str, Path]:
        names = sorted({*recipe.BASE, *recipe.FETCHERS, *recipe.COMPILER})
        return _downloaded(self.store.folder, tuple(names), refresh=self.refresh)

    def _base(self) -> _Plan:
        packages = self._packages()

        def finish(tree: Path) -> None:
            debian.finish_base(tree)
            library = f"usr/lib/python{recipe.PYTHON}"
            compile_tree(tree / library, f"/{library}")

        names = [packages[name] for name in recipe.BASE]
        return self._debian_plan("base", names, above=[], also=finish)

    def _debian(self, name: str, names: Iterable[str], *, above: Iterable[str], also: Fill | None = None) -> _Plan:
        packages = self._packages()
        return self._debian_plan(
            name, [packages[wanted] for wanted in names], above=[packages[below] for below in above], also=also
        )

    def _debian_plan(self, name: str, packages: list[Path], *, above: list[Path], also: Fill | None) -> _Plan:
        def fill(tree: Path) -> None:
            debian.unpack(packages, tree)
            if also is not None:
                also(tree)
            _check_libraries(name, tree, above)

        made_by = tree_fingerprint(_HERE, ["debian.py", "elf.py"])
        inputs = [
            made_by,
            recipe.UNWANTED,
            recipe.GIT_PROGRAMS,
            debian.fingerprint(packages),
            debian.fingerprint(above),
        ]
        return _Plan(name=name, prefix="", inputs=inputs, fill=fill)

    def _environment(self, name: str, package: str, extra: str | None = None) -> _Plan:
        requirements = python.locked_requirements(self.root, package, extra)

        def fill(tree: Path) -> None:
            python.environment(requirements, tree)
            compile_tree(tree, "/opt/env")

        return _Plan(name=name, prefix="opt/env", inputs=[_made_by_python(), requirements], fill=fill)

    def _code(self, name: str, package: str, folder: Path) -> _Plan:
        def fill(tree: Path) -> None:
            python.own_code(self.root, package, tree)
            compile_tree(tree, "/opt/env")

        sources = tree_fingerprint(folder, ["pyproject.toml", "src/**/*"])
        return _Plan(name=name, prefix="opt/env", inputs=[_made_by_python(), sources], fill=fill)

    def _programs(self) -> _Plan:
        programs = {"crane": self.crane(), "uv": python.uv_program()}

        def fill(tree: Path) -> None:
            tree.mkdir()
            for name, path in programs.items():
                shutil.copyfile(path, tree / name)
                (tree / name).chmod(0o755)

        inputs = {name: [path.stat().st_size, str(path)] for name, path in programs.items()}
        return _Plan(name="programs", prefix="usr/bin", inputs=inputs, fill=fill)

    def _tools(self) -> _Plan:
        requirements = (_HERE / "tools-requirements.txt").read_text()
        exporter = self.root / "operator/src/slipway_operator/exporter"

        def install(tree: Path) -> None:
            python.install(requirements, tree)
            compile_tree(tree, "/opt/slipway/tools")

        def fill(tree: Path) -> None:
            # Prepared once: an edit of the exporter must not install and compile its tools again.
            tools = self.store.tree("tools", [self._tools_of_the_trade(), _made_by_python(), requirements], install)
            shutil.copytree(tools, tree / "tools", symlinks=True, copy_function=os.link)
            shutil.copytree(exporter, tree / "exporter", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            compile_tree(tree / "exporter", "/opt/slipway/exporter")

        inputs = [_made_by_python(), requirements, tree_fingerprint(exporter)]
        return _Plan(name="tools", prefix="opt/slipway", inputs=inputs, fill=fill)


def _make(plan: _Plan, out: Path) -> LayerDigests:
    print(f"  making layer {plan.name}", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"slipway-{plan.name}-", dir=out.parent) as scratch:
        tree = Path(scratch) / "tree"
        plan.fill(tree)
        return write_layer(tree, plan.prefix, out)


@functools.cache
def _downloaded(folder: Path, names: tuple[str, ...], *, refresh: bool) -> dict[str, Path]:
    """The Debian packages, from the store unless newer ones are asked for."""
    place = folder / "debian"
    listed = place / "names.txt"
    wanted = "\n".join(names)
    if refresh or not listed.exists() or listed.read_text() != wanted:
        print("  downloading Debian packages", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        debian.download(names, place)
        listed.write_text(wanted)
    found = debian.found(place)
    if absent := [name for name in names if name not in found]:
        sys.exit(f"These Debian packages did not come: {', '.join(absent)}. Look at hack/images/recipe.py.")
    return found


def _check_libraries(name: str, tree: Path, above: list[Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="slipway-below-") as scratch:
        below = Path(scratch) / "tree"
        debian.unpack(above, below)
        missing = elf.missing_libraries([below, tree])
    if missing:
        lines = [f"  {library}, needed by {users[0]}" for library, users in missing.items()]
        sys.exit(f"Layer {name} lacks libraries; name their packages in hack/images/recipe.py:\n" + "\n".join(lines))


def _compiler_names(tree: Path) -> None:
    """The plain names that Debian's alternatives would have given."""
    programs = tree / "usr/bin"
    for name, target in (("cc", "gcc-12"), ("gcc", "gcc-12"), ("c++", "g++-12"), ("g++", "g++-12"), ("cpp", "cpp-12")):
        (programs / name).symlink_to(target)
    for name in ("gcc", "g++", "cpp"):
        (programs / f"x86_64-linux-gnu-{name}").symlink_to(f"{name}-12")


def _made_by_python() -> list[Any]:
    return [tree_fingerprint(_HERE, ["python.py"]), recipe.PYTHON, recipe.UNWANTED_PYTHON]
