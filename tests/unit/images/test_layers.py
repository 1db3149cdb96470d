"""Layers are equal whenever their files are, and any tar and gzip read them."""

import gzip
import hashlib
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway_operator.builder import layers
from slipway_operator.builder.errors import StepFailed
from slipway_operator.builder.layers import write_layer


def tree(root: Path, *, reverse: bool = False) -> Path:
    files = [("b/script", b"#!x", 0o700), ("b/data", b"1" * 3000, 0o600), ("a.txt", b"", 0o664), ("b.txt", b"2", 0o444)]
    for name, content, mode in reversed(files) if reverse else files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (1 if reverse else 2, 3))
    (root / "link").symlink_to("../outside")
    (root / "z").hardlink_to(root / "b/data")
    return root


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    one = write_layer(tree(tmp_path / "one"), "opt/env", tmp_path / "1.tar.gz")
    two = write_layer(tree(tmp_path / "two", reverse=True), "/opt/env/", tmp_path / "2.tar.gz")

    assert one == two
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


def test_digests_are_those_of_the_file_and_of_what_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "layer.tar.gz"

    found = write_layer(tree(tmp_path / "tree"), "", out)

    packed = out.read_bytes()
    plain = gzip.decompress(packed)
    assert found.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert found.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert (found.size, found.unpacked) == (len(packed), len(plain))


def test_gzip_header_says_neither_name_nor_time(tmp_path: Path) -> None:
    out = tmp_path / "layer.tar.gz"
    write_layer(tree(tmp_path / "tree"), "", out)

    assert out.read_bytes()[:10] == layers.GZIP_HEADER
    assert layers.GZIP_HEADER[3:8] == bytes(5)


def test_entries_are_sorted_owned_and_without_a_time(tmp_path: Path) -> None:
    out = tmp_path / "layer.tar.gz"
    write_layer(tree(tmp_path / "tree"), "opt/project", out, uid=65532, gid=65532)

    with tarfile.open(out) as archive:
        entries = archive.getmembers()

    names = [entry.name for entry in entries]
    assert names == [
        "opt",
        "opt/project",
        *(f"opt/project/{name}" for name in ("a.txt", "b", "b/data", "b/script", "b.txt", "link", "z")),
    ]
    assert {entry.mtime for entry in entries} == {0}
    assert [(entry.uid, entry.gid) for entry in entries] == [(0, 0)] * 2 + [(65532, 65532)] * 7
    assert {entry.uname for entry in entries} == {""}
    modes = {entry.name.removeprefix("opt/project/"): oct(entry.mode) for entry in entries}
    assert (modes["b"], modes["b/script"], modes["b/data"], modes["b.txt"]) == ("0o755", "0o755", "0o644", "0o644")


def test_links_stay_links(tmp_path: Path) -> None:
    out = tmp_path / "layer.tar.gz"
    write_layer(tree(tmp_path / "tree"), "", out)

    with tarfile.open(out) as archive:
        symbolic, hard = archive.getmember("link"), archive.getmember("z")

    assert (symbolic.issym(), symbolic.linkname) == (True, "../outside")
    assert (hard.islnk(), hard.linkname) == (True, "b/data")


def test_a_link_to_a_folder_is_not_entered(tmp_path: Path) -> None:
    root, outside = tmp_path / "tree", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "here").symlink_to(outside)
    out = tmp_path / "layer.tar.gz"

    write_layer(root, "", out)

    with tarfile.open(out) as archive:
        assert archive.getnames() == ["here"]


def test_setuid_is_dropped_and_a_shared_tmp_stays_shared(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "tmp").mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "su").write_bytes(b"")
    (root / "su").chmod(0o4755)
    out = tmp_path / "layer.tar.gz"

    write_layer(root, "", out)

    with tarfile.open(out) as archive:
        assert (archive.getmember("tmp").mode, archive.getmember("su").mode) == (0o1777, 0o755)


def test_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "t"
    root.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        with pytest.raises(StepFailed, match="UnsupportedFile: opt/s ") as failed:
            write_layer(root, "opt", tmp_path / "layer.tar.gz")
    assert not failed.value.retry


def test_names_that_are_not_utf8_or_long_survive(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    names = [b"caf\xe9", "ü".encode() * 60, b"x" * 200]
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"1")
    out = tmp_path / "layer.tar.gz"

    write_layer(root, "p" * 90, out)

    with tarfile.open(out) as archive:
        found = {os.fsencode(name) for name in archive.getnames()}
    assert {b"p" * 90 + b"/" + name for name in names} <= found


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([0, 1, layers.BLOCK - 1, layers.BLOCK, layers.BLOCK + 1, 3 * layers.BLOCK]), seed=st.binary()
)
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, size: int, seed: bytes) -> None:
    root = tmp_path_factory.mktemp("round")
    content = (seed + b"\0") * (size // (len(seed) + 1) + 1)
    (root / "tree").mkdir()
    (root / "tree" / "f").write_bytes(content[:size])

    write_layer(root / "tree", "", root / "layer.tar.gz")

    with tarfile.open(root / "layer.tar.gz") as archive:
        extracted = archive.extractfile("f")
        assert extracted is not None
        assert extracted.read() == content[:size]
