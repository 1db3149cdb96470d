import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools import __main__ as commands
from tools import cache, debian, gobuild, say, uv
from tools.catalogue import GO_MODULE_SUM, GO_TOOLS, GO_VERSION, GoTool, provider
from tools.refusal import Refused

OWN = {"kubernetes": "k8s.io/kubernetes", "coredns": "github.com/coredns/coredns"}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tool", GO_TOOLS.values(), ids=lambda tool: tool.name)
def test_each_tools_dependencies_are_locked_at_the_version_that_it_says(tool):
    required = locked(tool.name)
    package = OWN.get(tool.name, next(iter(tool.programs.values())))
    modules = [module for module in required if package == module or package.startswith(f"{module}/")]

    if package == ".":
        assert tool.version.startswith("0."), "only our own programs have no module of others"
    else:
        assert required[max(modules, key=len)] == f"v{tool.version}"


def locked(name: str) -> dict[str, str]:
    text = (GO_TOOLS[name].module / "go.mod").read_text()
    required = dict(re.findall(r"^(?:require )?\s*(\S+) (v\S+)", text, re.MULTILINE))
    return required | dict(re.findall(r"(\S+) => \S+ (v\S+)", text))


@pytest.mark.parametrize("name", ["coredns", "provisioner"])
def test_what_is_shared_with_kubernetes_is_compiled_once(name):
    own, kubernetes = locked(name), locked("kubernetes")

    shared = own.keys() & kubernetes.keys()

    assert "k8s.io/client-go" in shared
    assert {each: own[each] for each in shared} == {each: kubernetes[each] for each in shared}


@pytest.mark.parametrize(
    "tool", [each for each in GO_TOOLS.values() if each.name != "pause"], ids=lambda tool: tool.name
)
def test_each_module_has_its_checksums(tool):
    assert (tool.module / "go.sum").stat().st_size > 0


def test_a_tool_is_found_by_each_of_its_names():
    assert provider("kubectl") is provider("kube-proxy") is GO_TOOLS["kubernetes"]
    assert provider("ctr") is GO_TOOLS["containerd"]


def test_an_unknown_tool_is_refused_with_those_that_there_are(capsys):
    assert commands.main(["ensure", "helmet"]) == 1

    assert "There is no tool 'helmet'; there are: " in capsys.readouterr().err


def make_tool(folder: Path, monkeypatch, **changes) -> GoTool:
    module = folder / "go" / "thing"
    module.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").write_text("module thing\n")
    monkeypatch.setattr("tools.catalogue.MODULES", folder / "go")
    return GoTool(name="thing", version="1.2.3", programs={"thing": "."}, **changes)


def test_a_changed_lock_or_flag_is_another_folder(tmp_path, monkeypatch):
    names = {
        gobuild.folder_name(make_tool(tmp_path, monkeypatch)),
        gobuild.folder_name(make_tool(tmp_path, monkeypatch, tags=("x",))),
    }
    (tmp_path / "go" / "thing" / "go.sum").write_text("other\n")
    names.add(gobuild.folder_name(GoTool(name="thing", version="1.2.3", programs={"thing": "."})))

    assert len(names) == 3
    assert all(name.startswith("thing-1.2.3-") for name in names)


def old_go(folder: Path, monkeypatch, *, module_sum: str) -> None:
    """Put a Go of 2022 first on PATH, which fetches a module that holds no executable bit."""
    programs = folder / "module" / "bin"
    programs.mkdir(parents=True)
    (programs / "go").write_text("#!/bin/sh\necho go1.26.8\n")
    said = json.dumps({"Dir": str(folder / "module"), "Sum": module_sum})
    old = folder / "go"
    old.write_text(f"#!/bin/sh\n[ $1 = mod ] && echo '{said}' || echo go1.19.8\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_where_go_is_too_old_the_pinned_one_is_fetched(cached, tmp_path, monkeypatch):
    old_go(tmp_path, monkeypatch, module_sum=GO_MODULE_SUM)

    found = gobuild.find_go()

    assert found == cached / f"go-{GO_VERSION}" / "bin" / "go"
    assert subprocess.run([found], capture_output=True, text=True, check=True).stdout == "go1.26.8\n"


def test_a_go_with_another_sum_is_refused(cached, tmp_path, monkeypatch):
    old_go(tmp_path, monkeypatch, module_sum="h1:other")

    with pytest.raises(Refused, match=r"its sum is h1:other, not .*\nInstall Go 1\.26 or newer"):
        gobuild.find_go()
    assert not list(cached.glob("go-*"))


def test_a_folder_is_made_once(cached):
    calls = []

    def make(fresh: Path) -> None:
        calls.append(fresh)
        (fresh / "program").write_text("x")

    assert [cache.made("thing-1", make), cache.made("thing-1", make)] == [cached / "thing-1"] * 2
    assert len(calls) == 1
    assert (cached / "thing-1" / "program").read_text() == "x"


def test_what_fails_leaves_nothing_that_looks_made(cached):
    def fail(fresh: Path) -> None:
        (fresh / "program").write_text("half")
        raise Refused("no")

    with pytest.raises(Refused):
        cache.made("thing-1", fail)

    assert [path.name for path in cached.iterdir()] == [".locks"]


def test_what_a_killed_builder_left_is_thrown_away(cached):
    (cached / ".thing-1.abc").mkdir(parents=True)

    cache.made("thing-1", lambda fresh: (fresh / "program").touch())

    assert sorted(path.name for path in cached.iterdir()) == [".locks", "thing-1"]


def test_two_builders_make_it_once():
    gate = threading.Barrier(2)
    calls: list[Path] = []

    def build() -> None:
        gate.wait()
        cache.made("thing-1", calls.append)

    builders = [threading.Thread(target=build) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(timeout=20)

    assert len(calls) == 1


def test_a_full_disk_is_a_sentence():
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Refused, match=r"cannot be written to .*No space left on device\. Free some space"):
        cache.made("thing-1", full)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param("# x\nwrite /tmp/a: no space left on device\n", "the disk is full", id="disk"),
        pytest.param("go: downloading x v1\nx.go:1: undefined: y\n", "undefined: y", id="error"),
        pytest.param("", "without a word", id="silence"),
    ],
)
def test_a_failed_build_says_why(said, told):
    assert told in gobuild._cause(said)


def test_packages_that_only_root_may_install_are_named(monkeypatch):
    monkeypatch.setattr(debian, "find", lambda program: Path("/usr/bin/apt-get") if program == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(Refused, match="sudo apt-get install --no-install-recommends docker-registry runc"):
        debian.ensure(["runc", "docker-registry"])


def test_another_distribution_is_told_what_is_needed(monkeypatch):
    monkeypatch.setattr(debian, "find", lambda _: None)

    with pytest.raises(Refused, match=r"your system's own\) are needed: runc"):
        debian.ensure(["runc"])


def test_a_missing_list_is_read_once_and_the_install_tried_again(monkeypatch):
    ran, found = [], {"apt-get": Path("/usr/bin/apt-get")}

    def run(command, **_):
        ran.append(command[1])
        if ran.count("install") == 2:
            found["runc"] = Path("/usr/sbin/runc")
        return subprocess.CompletedProcess(command, 100 if ran == ["install"] else 0, "", "E: Unable to locate package")

    monkeypatch.setattr(debian, "find", found.get)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)

    assert debian.ensure(["runc"]) == {"runc": Path("/usr/sbin/runc")}
    assert ran == ["install", "update", "install"]


@pytest.mark.parametrize("line", ["UV_VERSION := 0.13.9", "UV_VERSION = 0.13.9", "UV_VERSION=0.13.9"])
def test_uvs_version_is_the_makefiles(line):
    assert uv.pinned(f"A := b\n{line}\n") == "0.13.9"


def test_a_makefile_without_uv_is_refused():
    with pytest.raises(Refused, match="no UV_VERSION"):
        uv.pinned("all:\n")


def test_the_list_needs_nothing_installed():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "tools", "list"],
        cwd=Path(__file__).parents[3] / "hack",
        capture_output=True,
        text=True,
        check=True,
    )

    assert "helm            4.3.1" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.96, "60.0 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")],
)
def test_durations(seconds, said):
    assert say.elapsed(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999_600, "1 MB"), (12_600_000, "13 MB"), (6e9, "6.0 GB")])
def test_sizes(count, said):
    assert say.size(count) == said


def test_a_long_step_shows_that_it_lives(monkeypatch, capsys):
    monkeypatch.setattr(say, "SIGN_OF_LIFE_SECONDS", 0.01)
    seen = threading.Event()
    real = say.line

    def line(text: str) -> None:
        real(text)
        if "…" in text:
            seen.set()

    monkeypatch.setattr(say, "line", line)

    with say.step("building"):
        assert seen.wait(5)

    assert "✓ building: " in capsys.readouterr().err
