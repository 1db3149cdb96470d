"""The pages that say what shows a promise name tests, targets and programs that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("runtime-tests.md", "rollback-tests.md")}
TEXT = "\n".join(PAGES.values())
FOLDERS = "unit|cluster|clients|browser|e2e|faults|gitops"
TESTS = sorted(set(re.findall(rf"((?:{FOLDERS})/[a-z0-9_/]*test_[a-z0-9_]+\.py)::(test_\w+)", TEXT)))
TARGETS = sorted(set(re.findall(r"`make ([a-z0-9-]+)`", TEXT)))
FILES = sorted(set(re.findall(r"`(tests/[a-z0-9_/]+\.py)`", TEXT)))


@pytest.mark.parametrize(("page", "least"), [("runtime-tests.md", 80), ("rollback-tests.md", 40)])
def test_a_page_names_many(page: str, least: int) -> None:
    assert len(set(re.findall(r"::test_\w+", PAGES[page]))) > least


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_test_that_a_page_names_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_a_page_names_is_there(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_a_program_that_a_page_names_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_no_row_is_without_proof(page: str) -> None:
    rows = [
        line.strip("|").split("|") for line in PAGES[page].splitlines() if line.startswith("| ") and "---" not in line
    ]

    for row in rows:
        asked, shown = row[0].strip(), row[1].strip()
        assert asked == "what" or "::test_" in shown or "`" in shown, asked
