"""Byte code depends on the sources alone, and Python uses it without looking at them."""

import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from slipway_operator.builder.bytecode import compile_file, compile_tree

SOURCES = {
    "package/__init__.py": "NAME = 'x'\nSET = 'a' in {'a', 'bc', 'd'}\n",
    "package/one.py": "def f(value):\n    return value in {'alpha', 'beta', 'gamma', 'delta'}\n",
    "package/deep/two.py": "class A:\n    def m(self):\n        return __file__\n",
    "package/template.py": "{% not python %}\n",
    "package/warns.py": "import re\nX = '\\d'\n",
}


def tree(root: Path) -> Path:
    for name, text in SOURCES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def compiled(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.pyc"))}


def test_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "another-place")

    compile_tree(one, "/opt/env")
    compile_tree(two, "/opt/env")

    assert compiled(one) == compiled(two)
    assert len(compiled(one)) == len(SOURCES) - 1, "the template does not compile and is left out"


def test_the_hash_seed_of_the_process_does_not_show(tmp_path: Path) -> None:
    found = set()
    for seed in ("1", "2", "3"):
        root = tree(tmp_path / seed)
        code = (
            "from pathlib import Path; from slipway_operator.builder.bytecode import compile_file; "
            f"compile_file(Path({str(root / 'package/one.py')!r}), '/opt/env/package/one.py')"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": seed})
        found.add(next(iter(compiled(root).values())))

    assert len(found) == 1


def test_tracebacks_show_the_path_in_the_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    compile_tree(root, "/opt/env")

    code = marshal.loads(next((root / "package/deep/__pycache__").glob("two.*.pyc")).read_bytes()[16:])  # noqa: S302

    assert code.co_filename == "/opt/env/package/deep/two.py"


def test_python_imports_it_without_looking_at_the_source(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    compile_tree(root, "/opt/env")
    (root / "package/__init__.py").write_text("NAME = 'changed'\n")

    done = subprocess.run(
        [sys.executable, "-c", "import package; print(package.NAME)"],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "x\n"


def test_a_link_out_of_the_tree_is_left_alone(tmp_path: Path) -> None:
    root, outside = tree(tmp_path / "tree"), tmp_path / "outside.py"
    outside.write_text("X = 1\n")
    (root / "package/link.py").symlink_to(outside)

    compile_tree(root, "/opt/env")

    assert not list(root.rglob("link.*.pyc"))


def test_an_interpreter_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        compile_tree(tree(tmp_path / "tree"), "/opt/env", python="/bin/false")


def test_a_file_that_is_no_python_is_not_compiled(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_bytes(b"\xff\xfe\x00")

    assert compile_file(source, "/a.py") is False
