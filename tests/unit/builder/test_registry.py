"""What the registry client makes of crane's failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway_operator.builder import registry
from slipway_operator.builder.errors import RegistryReason, StepFailed
from slipway_operator.builder.registry import RegistryClient

RACE = "PUT http://reg.test/v2/a/manifests/b: DIGEST_INVALID: digest did not match; MANIFEST_BLOB_UNKNOWN: blob unknown"


def crane(folder: Path, *, failures: int, said: str) -> RegistryClient:
    """A client of a program that fails so often with these words, and counts its calls."""
    program = folder / "crane"
    program.write_text(
        f"#!/bin/sh\necho call >>{folder}/calls\n"
        f'if [ "$(wc -l <{folder}/calls)" -le {failures} ]; then echo "Error: {said}" >&2; exit 1; fi\n'
    )
    program.chmod(0o755)
    return RegistryClient(program=str(program))


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_RACE_WAITS", (0.0, 0.0, 0.0))


def test_a_push_that_met_another_one_is_done_again(tmp_path: Path):
    crane(tmp_path, failures=2, said=RACE).tag("reg.test/a:b", "c")
    assert calls(tmp_path) == 3


def test_a_race_that_does_not_end_passes_by_itself_later(tmp_path: Path):
    with pytest.raises(StepFailed) as failed:
        crane(tmp_path, failures=9, said=RACE).tag("reg.test/a:b", "c")
    assert (failed.value.reason, failed.value.retry, calls(tmp_path)) == (RegistryReason.UNAVAILABLE, True, 4)


def test_another_failure_is_told_at_once(tmp_path: Path):
    with pytest.raises(StepFailed) as failed:
        crane(tmp_path, failures=9, said="UNAUTHORIZED: authentication required").tag("reg.test/a:b", "c")
    assert (failed.value.reason, calls(tmp_path)) == (RegistryReason.ACCESS_DENIED, 1)
