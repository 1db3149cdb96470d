"""docs/faults.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "faults.md").read_text()
_CELL = re.compile(r"(?P<file>[a-z0-9_/]+/test_[a-z0-9_]+\.py)(?:::(?P<test>test_\w+)|\[(?P<fault>[a-z0-9-]+)\])")
NAMED = sorted({(found["file"], found["test"] or "", found["fault"] or "") for found in _CELL.finditer(PAGE)})


def test_the_page_names_many() -> None:
    assert len(NAMED) > 60


@pytest.mark.parametrize(("file", "test", "fault"), NAMED)
def test_a_test_that_the_page_names_is_there(file: str, test: str, fault: str) -> None:
    text = (ROOT / "tests" / ("" if file.startswith(("e2e/", "faults/")) else "unit") / file).read_text()

    assert f"def {test}(" in text if test else re.search(rf'Fault\(\s*"{fault}"', text)


def test_every_fault_of_the_cluster_is_on_the_page() -> None:
    text = (ROOT / "tests" / "e2e" / "test_what_goes_wrong.py").read_text()
    known = set(re.findall(r'Fault\(\s*"([a-z0-9-]+)"', text))
    named = {fault for _, _, fault in NAMED}

    # Specs that name what the project or the platform has not: docs/reasons.md says what to do.
    assert known - named == {"example-missing", "interpreter", "package-list"}
