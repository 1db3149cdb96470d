"""Every reason that a build may end with is explained to the people who read it."""

from pathlib import Path

import pytest

from slipway_operator.builder.errors import RegistryReason
from slipway_operator.builder.requirements import LockReason
from slipway_operator.builder.sources import SourceReason
from slipway_operator.builder.uv_errors import InstallReason

PAGE = Path(__file__).parents[4] / "docs" / "packaging.md"


@pytest.mark.parametrize("reason", [*SourceReason, *LockReason, *InstallReason, *RegistryReason])
def test_a_reason_is_in_the_documentation(reason):
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]

    assert any(f"`{reason.value}`" in row.split("|")[1] for row in rows), f"{PAGE.name} does not explain {reason.value}"
