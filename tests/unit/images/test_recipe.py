"""The recipe, the store and the table of `make images`."""

import json
from pathlib import Path

import pytest

from images import elf, publish, recipe
from images.store import Layer, Store, tree_fingerprint
from slipway_operator.builder.layers import LayerDigests, write_layer

SHELLS = {"bash", "dash", "sh", "coreutils", "busybox"}


def digests(size: int = 1) -> LayerDigests:
    return LayerDigests(digest="sha256:" + "1" * 64, diff_id="sha256:" + "2" * 64, size=size, unpacked=2 * size)


@pytest.mark.parametrize("name", ["BASE", "FETCHERS"])
def test_no_shell_where_none_is_needed(name: str) -> None:
    assert not SHELLS & set(getattr(recipe, name))


@pytest.mark.parametrize("name", ["BASE", "FETCHERS", "COMPILER"])
def test_a_package_is_named_once(name: str) -> None:
    packages = getattr(recipe, name)

    assert len(packages) == len(set(packages))


def test_our_own_code_is_the_last_layer() -> None:
    last = {image.name: image.layers[-1] for image in recipe.IMAGES}

    assert last == {
        "base": "base",
        "runtime": "runtime-code",
        "operator": "operator-code",
        "builder": "operator-code",
        "builder-compiler": "operator-code",
        "tools": "tools",
    }


def test_every_image_stands_on_the_base() -> None:
    assert {image.layers[0] for image in recipe.IMAGES} == {"base"}


def test_the_tools_are_locked_by_hash_and_leave_the_projects_own_alone() -> None:
    text = (Path(recipe.__file__).parent / "tools-requirements.txt").read_text()
    names = {line.partition("==")[0] for line in text.splitlines() if "==" in line and not line.startswith(("#", " "))}

    assert {"skl2onnx", "onnx", "onnxruntime", "protobuf"} <= names
    assert not names & {"numpy", "scipy", "scikit-learn", "joblib", "pandas"}
    assert text.count("==") <= text.count("--hash=sha256:")


def test_a_layer_is_made_once_for_its_inputs(tmp_path: Path) -> None:
    calls = []

    def build(out: Path) -> LayerDigests:
        calls.append(out)
        tree = tmp_path / "tree"
        tree.mkdir(exist_ok=True)
        return write_layer(tree, "opt", out)

    store = Store(tmp_path / "cache")
    first = store.layer("x", ["a"], build)
    again = store.layer("x", ["a"], build)
    other = store.layer("x", ["b"], build)

    assert [layer.reused for layer in (first, again, other)] == [False, True, False]
    assert (first.key, first.digests) == (again.key, again.digests)
    assert other.key != first.key
    assert len(calls) == 2
    assert first.path.exists()


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(out: Path) -> LayerDigests:
        out.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Store(tmp_path).layer("x", [], build)

    assert list((tmp_path / "layers").iterdir()) == []


def test_fingerprint_sees_content_and_names_but_no_byte_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = tree_fingerprint(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.cpython-311.pyc").write_text("2")
    same = tree_fingerprint(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = tree_fingerprint(tmp_path)
    (tmp_path / "b.py").write_text("2")

    assert first == same
    assert len({first, renamed, tree_fingerprint(tmp_path)}) == 3


def made(tmp_path: Path, size: int = 1) -> list[publish.Made]:
    layer = Layer(name="base", key="k", path=tmp_path / "l", digests=digests(size), reused=True)
    return [
        publish.Made(image=image, digest="sha256:" + "3" * 64, layers=(layer,), layout=tmp_path)
        for image in recipe.IMAGES
    ]


def test_facts_name_every_image_by_digest(tmp_path: Path) -> None:
    publish.write_facts(made(tmp_path), publish.Target(prefix="r:5000/slipway", insecure=True), tmp_path / "build")

    facts = json.loads((tmp_path / "build/images.json").read_text())
    values = json.loads((tmp_path / "build/images-values.yaml").read_text())
    assert set(facts["images"]) == {"base", "runtime", "operator", "builder", "builderCompiler", "tools"}
    assert all(
        reference.startswith("r:5000/slipway/") and "@sha256:" in reference for reference in facts["images"].values()
    )
    assert values["interpreters"] == [
        {"python": "3.11", "base": facts["images"]["base"], "tools": facts["images"]["tools"]}
    ]
    assert values["registry"] == facts["registry"] == {"prefix": "r:5000/slipway", "insecure": True}


def test_an_image_that_grew_is_named(tmp_path: Path) -> None:
    grown = made(tmp_path, publish.LARGE + 1)

    assert "runtime is over 150 MB: NO REASON GIVEN" in publish.table(grown, [])
    assert publish.large(made(tmp_path)) == []


def test_libraries_are_read_from_programs(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "program").write_bytes(Path("/proc/self/exe").resolve().read_bytes())
    (one / "text").write_text("#!/bin/x\n")
    needs = elf.needed(one / "program")

    assert "libc.so.6" in needs
    assert elf.missing_libraries([one])["libc.so.6"] == ["program"]
    for library in needs:
        (two / library).write_text("")
    assert elf.missing_libraries([two, one]) == {}


def test_what_an_interrupted_build_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "layers" / ".x-half"
    done = tmp_path / "layers" / "x-whole"
    left.mkdir(parents=True)
    done.mkdir()

    Store(tmp_path).sweep()

    assert (left.exists(), done.exists()) == (False, True)


def test_a_tree_is_prepared_once_and_only_whole(tmp_path: Path) -> None:
    calls = []

    def fill(tree: Path) -> None:
        calls.append(tree)
        tree.mkdir()
        (tree / "f").write_text("1")

    def fail(tree: Path) -> None:
        tree.mkdir()
        raise OSError("disk full")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        store.tree("t", 1, fail)

    assert store.tree("t", 1, fill) == store.tree("t", 1, fill)
    assert len(calls) == 1
    assert (store.tree("t", 1, fill) / "f").read_text() == "1"
