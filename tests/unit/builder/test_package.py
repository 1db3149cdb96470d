"""A package has the same bytes whenever its files have, and opens nowhere but where it should."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway_operator.builder import folder, package, zips
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.package import Found, Kind, Package, PackagedFile, Provenance
from slipway_operator.builder.workplace import Limits

SOURCE = Provenance(kind="git", commit="a" * 40)


def write(
    target: Path, contents: dict[str, bytes], order: list[str] | None = None, *, limits: Limits | None = None
) -> Package:
    found = [Found(path=path, kind="file", size=len(contents[path])) for path in order or contents]
    return package.write_package(target, found, lambda file: [contents[file.path]], SOURCE, limits=limits or Limits())


NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(contents=st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=8), data=st.data())
def test_the_order_in_which_files_are_found_does_not_count(
    tmp_path: Path, contents: dict[str, bytes], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(list(contents)))

    first = write(tmp_path / "a.zip", contents)
    second = write(tmp_path / "b.zip", contents, order)

    assert first.path.read_bytes() == second.path.read_bytes()
    with zipfile.ZipFile(first.path) as archive:
        assert archive.testzip() is None
        assert {n: archive.read(f"project/{n}") for n in contents} == contents


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(umask=st.sampled_from([0o000, 0o022, 0o077]), mtime=st.integers(0, 2_000_000_000))
def test_times_and_the_umask_do_not_count(tmp_path_factory: pytest.TempPathFactory, umask: int, mtime: int) -> None:
    root = tmp_path_factory.mktemp("tree")
    before = os.umask(umask)
    try:
        (root / "a.py").write_text("x = 1\n")
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o700 if umask == 0o077 else 0o755)
        os.utime(root / "a.py", (mtime, mtime))
    finally:
        os.umask(before)

    made = package.write_package(
        root.parent / f"{root.name}.zip", folder.files(root), folder.reader(root), SOURCE, limits=Limits()
    )

    assert made.manifest.files == (
        PackagedFile(path="a.py", size=6, sha256=hashlib.sha256(b"x = 1\n").hexdigest(), kind="file"),
        PackagedFile(path="run.sh", size=10, sha256=hashlib.sha256(b"#!/bin/sh\n").hexdigest(), kind="executable"),
    )
    same: dict[str, tuple[Kind, bytes]] = {"a.py": ("file", b"x = 1\n"), "run.sh": ("executable", b"#!/bin/sh\n")}
    expected = package.write_package(
        root.parent / f"{root.name}.expected.zip",
        [Found(path=path, kind=kind, size=len(content)) for path, (kind, content) in same.items()],
        lambda file: [same[file.path][1]],
        SOURCE,
        limits=Limits(),
    )
    assert made.path.read_bytes() == expected.path.read_bytes()


def test_the_bytes_are_fixed_for_good(tmp_path: Path) -> None:
    """A digest that moves would rebuild every project: raise the format's version instead."""
    made = write(tmp_path / "a.zip", {"b.txt": b"two\n", "a.txt": b"one\n"})

    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert made.sha256 == "b859047ccd3a9e82041a02e2c23340707967a24c7b08a50e478e3fee7f795a9d"


def test_the_manifest_comes_first_and_says_what_is_inside(tmp_path: Path) -> None:
    made = write(tmp_path / "a.zip", {"uv.lock": b"lock", "d/e.csv": b"1,2"})

    with zipfile.ZipFile(made.path) as archive:
        manifest = package.Manifest.model_validate_json(archive.read(archive.infolist()[0]))
        names = archive.namelist()
    assert names == ["manifest.json", "project/d/e.csv", "project/uv.lock"]
    assert manifest.source.commit == "a" * 40
    assert manifest.locks == {"uv.lock": hashlib.sha256(b"lock").hexdigest()}
    assert [(file.path, file.size) for file in manifest.files] == [("d/e.csv", 3), ("uv.lock", 4)]
    assert "time" not in made.manifest.text().decode().lower()


def test_executables_and_links_keep_their_kind(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "run").write_text("#!/bin/true\n")
    (root / "run").chmod(0o755)
    (root / "d" / "link").symlink_to("../run")

    made = package.write_package(tmp_path / "p.zip", folder.files(root), folder.reader(root), SOURCE, limits=Limits())
    read = package.read_package(made.path, limits=Limits())
    package.unpack(read, tmp_path / "out")

    assert {file.path: file.kind for file in read.manifest.files} == {"d/link": "link", "run": "executable"}
    assert (tmp_path / "out" / "d" / "link").readlink() == Path("../run")
    assert stat.S_IMODE((tmp_path / "out" / "run").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("limits", "word"), [(Limits(project_bytes=10), "more than 10 B"), (Limits(project_files=1), "2 files")]
)
def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, limits: Limits, word: str) -> None:
    with pytest.raises(StepFailed) as failed:
        write(tmp_path / "a.zip", {"a": b"x" * 8, "b": b"y" * 8}, limits=limits)

    assert failed.value.reason == "RepositoryTooLarge"
    assert word in failed.value.message


def test_a_file_that_grows_while_it_is_read_is_not_packaged(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="SourceChanged"):
        package.write_package(
            tmp_path / "a.zip",
            [Found(path="a", kind="file", size=2)],
            lambda _: [b"more", b"bytes"],
            SOURCE,
            limits=Limits(),
        )


def test_an_lfs_pointer_is_told_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="LfsPointer"):
        write(tmp_path / "a.zip", {"m.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})


def _tampered(made: Package, change: str) -> bytes:
    """The package with one thing changed, written by another tool."""
    out = io.BytesIO()
    with zipfile.ZipFile(made.path) as archive, zipfile.ZipFile(out, "w") as other:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename == "project/a" and change == "content":
                content = b"two"
            if entry.filename == "project/a" and change == "missing":
                continue
            if entry.filename == "manifest.json" and change == "escape":
                content = content.replace(b'"a"', b'"../a"')
            copy = zipfile.ZipInfo(entry.filename, (1980, 1, 1, 0, 0, 0))
            copy.external_attr = (zips.LINK_MODE if change == "kind" else zips.FILE_MODE) << 16
            other.writestr(copy, content, zipfile.ZIP_DEFLATED if change == "compressed" else zipfile.ZIP_STORED)
        if change == "extra":
            other.writestr("project/b", b"more")
    return out.getvalue()


@pytest.mark.parametrize("change", ["content", "missing", "extra", "escape", "kind", "compressed", "cut", "none"])
def test_a_package_from_elsewhere_is_checked_to_its_last_byte(tmp_path: Path, change: str) -> None:
    made = write(tmp_path / "a.zip", {"a": b"one"})
    other = tmp_path / "b.zip"
    other.write_bytes(made.path.read_bytes()[:-30] if change == "cut" else _tampered(made, change))

    if change == "none":
        assert package.read_package(other, limits=Limits()).manifest == made.manifest
        return
    with pytest.raises(StepFailed) as failed:
        package.read_package(other, limits=Limits())
    assert failed.value.reason in {"PackageInvalid", "UnsafePath"}


def _as_foreign(change: str) -> bytes:
    """A zip file that has a manifest, and something that Slipway never writes."""
    out = io.BytesIO()
    methods = {"deflated": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}
    with zipfile.ZipFile(out, "w", methods.get(change, zipfile.ZIP_STORED)) as archive:
        archive.writestr("manifest.json", "{}" * 100)
    content = bytearray(out.getvalue())
    listed = content.index(b"PK\x01\x02")
    if change == "encrypted":
        content[6] |= 1
        content[listed + 8] |= 1
    elif change == "unknown method":
        content[8] = content[listed + 10] = 99
    else:
        start = 30 + len("manifest.json")
        content[start:listed] = b"\xff" * (listed - start)
    return bytes(content)


@pytest.mark.parametrize("change", ["encrypted", "unknown method", "deflated", "lzma", "stored"])
def test_a_zip_file_that_nobody_can_read_is_no_package(tmp_path: Path, change: str) -> None:
    (tmp_path / "a.zip").write_bytes(_as_foreign(change))

    with pytest.raises(StepFailed, match="PackageInvalid"):
        package.read_package(tmp_path / "a.zip", limits=Limits())


def test_a_folder_with_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree" / "pipe")

    with pytest.raises(StepFailed, match="UnsafePath"):
        folder.files(tmp_path / "tree")


def test_an_empty_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="SourceEmpty"):
        write(tmp_path / "a.zip", {})
