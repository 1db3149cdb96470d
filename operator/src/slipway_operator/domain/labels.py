"""Names of labels, annotations and the field manager: how things of one owner are found again."""

from __future__ import annotations

from typing import Final

FIELD_MANAGER: Final = "slipway"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
NAME: Final = "app.kubernetes.io/name"
COMPONENT: Final = "app.kubernetes.io/component"

OWNER: Final = "slipway.dev/owner"
"""Name of the ModelDeployment that a thing belongs to."""
STEP: Final = "slipway.dev/step"
"""Which step of the way a Job is."""
KEY: Final = "slipway.dev/key"
"""Hash of all that a Job depends on."""
CHAIN: Final = "slipway.dev/chain"
"""Key of the build that a Job comes from: what no longer belongs to the wanted chain is ended."""
SOURCE: Final = "slipway.dev/source"
"""Hash of the source as the spec names it: a commit that was found for it is found again."""
CONTENT: Final = "slipway.dev/content"
LANE: Final = "slipway.dev/lane"
"""Content whose traffic a pod takes: the Service selects it."""
CANARY: Final = "slipway.dev/canary"
"""Content of a canary's pods, in place of ``CONTENT``: they take the live content's lane."""
LOG: Final = "slipway.dev/log"
PROBE: Final = "slipway.dev/probe"

RETRY: Final = "slipway.dev/retry"
"""Annotation: any new value runs a step that failed for good once more."""
TRY: Final = "slipway.dev/try"
"""Annotation of a Job: hash of what may make a failed step worth another try (limits, Secrets, the retry asked for)."""
PAUSED: Final = "slipway.dev/paused"
"""Annotation: while it is ``true`` nothing goes further; a state, not a request."""
APPLIED: Final = "slipway.dev/applied"
"""Annotation: hash of what was applied last, so that a field that the plan drops is noticed."""
ENTRIES: Final = "slipway.dev/entries"
"""Annotation of a Job that removes: short digests of the log entries that go once it has succeeded."""


def owned(name: str) -> dict[str, str]:
    """Labels of everything that belongs to a ModelDeployment."""
    return {OWNER: name, MANAGED_BY: FIELD_MANAGER}
