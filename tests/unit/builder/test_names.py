"""Names and links that a project may not have, whoever wrote them."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway_operator.builder import names
from slipway_operator.builder.errors import StepFailed


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../secret",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "..\\b",
        "a\nb",
        "a\x00b",
        "a\x7fb",
        "a\u202etxt.exe",
        ".git/config",
        "sub/.GIT/hooks/x",
        "GIT~1/x",
        ".g\u200cit/config",
        ".git /config",
        ".git./config",
        ".git::$INDEX_ALLOCATION/x",
        "x" * 256,
        "a/" * 600 + "a",
    ],
)
def test_a_path_with_a_trick_is_refused(path: str) -> None:
    with pytest.raises(StepFailed) as failed:
        names.checked(path)

    assert failed.value.reason == "UnsafePath"
    assert "rename" in failed.value.message


@pytest.mark.parametrize(
    "path", ["a", "a/b.py", ".gitignore", ".github/x.yml", "gît/é", "a b/c", "-x", "数据/模型.csv", "a:b"]
)
def test_an_ordinary_path_is_fine(path: str) -> None:
    assert names.checked(path) == path


def test_a_name_that_is_not_utf8_has_its_own_reason() -> None:
    with pytest.raises(StepFailed) as failed:
        names.decoded(b"caf\xe9.csv")

    assert failed.value.reason == "FileNameNotUtf8"
    assert "caf\\\\xe9.csv" in failed.value.message


@settings(deadline=None)
@given(st.text(max_size=60))
def test_what_is_accepted_stays_inside_wherever_it_is_joined(path: str) -> None:
    if names.fault_of(path) is None:
        joined = posixpath.normpath(posixpath.join("/project", path))

        assert joined == f"/project/{path}"


@pytest.mark.parametrize(
    "paths",
    [
        ["Readme.md", "README.md"],
        ["data/a.csv", "Data/b.csv"],
        ["stra\u00dfe", "STRASSE"],
        ["caf\u00e9", "cafe\u0301"],
        ["a", "a"],
        ["a", "a/b"],
        ["a/b", "a"],
    ],
)
def test_two_names_that_are_one_elsewhere_collide(paths: list[str]) -> None:
    with pytest.raises(StepFailed) as failed:
        names.refuse_collisions(paths)

    assert failed.value.reason == "FileNamesCollide"


def test_names_that_only_look_alike_do_not_collide() -> None:
    names.refuse_collisions(["a/b", "a/c", "ab", "b/a"])


@pytest.mark.parametrize(
    "links",
    [
        {"a": "/etc/passwd"},
        {"a": "../x"},
        {"d/a": "../../x"},
        {"d": ".", "a": "d/../x"},
        {"a": "b", "b": "../x"},
        {"a": "b/c", "b": "d", "d/c": "../../x"},
        {"a": "b", "b": "a"},
        {"a": "a"},
        {"a": ""},
        {"a": "..\\x"},
        {"a": "b/x", "b": "/"},
        {"a": ".git/config"},
    ],
)
def test_a_link_that_leads_out_is_refused(links: dict[str, str]) -> None:
    with pytest.raises(StepFailed) as failed:
        names.refuse_escapes(links)

    assert failed.value.reason == "SymlinkOutsideProject"


def test_links_within_the_project_are_fine() -> None:
    names.refuse_escapes({"a": "b", "d/e/f": "../../g", "h": "./d/e", "i": "h/../x", "j": "missing"})
