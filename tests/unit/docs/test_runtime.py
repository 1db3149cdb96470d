"""docs/runtime-tests.md names tests, targets and programs that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "runtime-tests.md").read_text()
TESTS = sorted(set(re.findall(r"((?:unit|cluster|clients|browser)/[a-z0-9_/]*test_[a-z0-9_]+\.py)::(test_\w+)", PAGE)))
TARGETS = sorted(set(re.findall(r"`make ([a-z0-9-]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`(tests/[a-z0-9_/]+\.py)`", PAGE)))


def test_the_page_names_many() -> None:
    assert len(TESTS) > 80
    assert len(TARGETS) > 4


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_test_that_the_page_names_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_the_page_names_is_there(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_a_program_that_the_page_names_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


def test_no_row_is_without_proof() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]

    for row in rows:
        asked, shown = row[0].strip(), row[1].strip()
        assert asked == "what" or "::test_" in shown or "`" in shown, asked
