"""The images as the registry has them: what was pushed, not what a recipe says."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from tools import __main__ as tools

BUILT = Path(__file__).parents[2] / "build" / "images.json"
IMAGES = json.loads(BUILT.read_text())["images"] if BUILT.exists() else {}
SHELLS = {"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "busybox", "toybox"}

pytestmark = pytest.mark.skipif(not IMAGES, reason="no images of this tree were built: `make images`")


def crane(*arguments: str) -> bytes:
    return subprocess.run(
        [str(tools.ensure("crane")), *arguments, "--insecure"], capture_output=True, check=True, timeout=120
    ).stdout


def programs_of(image: str) -> set[PurePosixPath]:
    """Give what may be run, and every link, of all layers."""
    repository, found = image.partition("@")[0], set()
    for layer in json.loads(crane("manifest", image))["layers"]:
        process = [str(tools.ensure("crane")), "blob", f"{repository}@{layer['digest']}", "--insecure"]
        with subprocess.Popen(process, stdout=subprocess.PIPE) as blob:
            with tarfile.open(fileobj=blob.stdout, mode="r|*") as files:
                runs = [one.name for one in files if one.issym() or one.islnk() or (one.isreg() and one.mode & 0o111)]
            assert blob.wait(60) == 0
        found |= set(map(PurePosixPath, runs))
    return found


@pytest.mark.parametrize("name", ["base", "runtime", "operator", "builder"])
def test_no_layer_of_an_image_holds_a_shell(name: str) -> None:
    """Nor a link that is called like one; also where a later layer would hide it."""
    programs = programs_of(IMAGES[name])

    assert any(one.name.startswith("python3") for one in programs), "programs are found"
    assert [str(one) for one in programs if one.name in SHELLS] == []


def test_the_image_with_a_compiler_holds_one() -> None:
    """Which shows that one would be found."""
    assert PurePosixPath("usr/bin/sh") in programs_of(IMAGES["builderCompiler"])


@pytest.mark.parametrize("name", ["runtime", "operator"])
def test_an_image_runs_as_a_user_without_rights(name: str) -> None:
    assert json.loads(crane("config", IMAGES[name]))["config"]["User"].split(":")[0] == "65532"
